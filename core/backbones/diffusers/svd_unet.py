"""The UNet of Stable Video Diffusion from diffusers, run part by part on one window: the counterpart of `unet`.

A UNet call holds one window of ``T`` frames and one half of guidance, so the first axis is the frames. The context is
one token, hence cross-attention gives the same for every cell whatever its queries and keys are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .unet import DecoderBlock, EncoderOutput, attend, run_feed_forward


class VideoRecord(NamedTuple):
    """Queries and keys of a decoder block's self-attentions, spatial ``(T,N,C)`` and temporal ``(N,T,C)``."""

    query: Tensor
    key: Tensor
    temporal_query: Tensor
    temporal_key: Tensor


class Injected(NamedTuple):
    """Queries and keys to use in place of a block's own, None where its own stay."""

    spatial: tuple[Tensor, Tensor] | None
    temporal: tuple[Tensor, Tensor] | None


NOTHING = Injected(None, None)


def embed_window(unet: Any, noise_level: float, numbers: Tensor, count: int, like: Tensor) -> Tensor:  # noqa: ANN401
    """Return the embedding ``(T,C)`` of the noise level ``ln(sigma) / 4`` and of ``(3,)`` numbers about the window."""
    level = torch.full((1,), noise_level, device=like.device)
    embedding = unet.time_embedding(unet.time_proj(level).to(like.dtype))
    told = unet.add_time_proj(numbers.to(like.device)).reshape(1, -1).to(like.dtype)
    embedding = embedding + unet.add_embedding(told)
    return torch.as_tensor(embedding).expand(count, -1)


def run_video_encoder(unet: Any, latents: Tensor, time: Tensor, context: Tensor) -> EncoderOutput:  # noqa: ANN401
    """Run the UNet to its middle block on ``(T,8,H/8,W/8)``, scaled latents with the conditioning frame behind."""
    count = len(latents)
    indicator = make_indicator(latents, count)
    contexts = context.expand(count, -1, -1)
    hidden = unet.conv_in(latents)
    skips = (hidden,)
    for block in unet.down_blocks:
        extra = {"encoder_hidden_states": contexts} if getattr(block, "has_cross_attention", False) else {}
        hidden, outputs = block(hidden, temb=time, image_only_indicator=indicator, **extra)
        skips += outputs
    hidden = unet.mid_block(hidden, temb=time, encoder_hidden_states=contexts, image_only_indicator=indicator)
    return EncoderOutput(hidden, skips[::-1])


def run_video_block(
    block: DecoderBlock, hidden: Tensor, skip: Tensor, time: Tensor, context: Tensor, injected: Injected = NOTHING
) -> tuple[Tensor, VideoRecord | None]:
    """Run a decoder block without its upsampler, on ``(T,C,h,w)``; also return what its attention used."""
    indicator = make_indicator(hidden, len(hidden))
    hidden = block.resnet(torch.cat([hidden, skip], dim=1), time, image_only_indicator=indicator)
    if block.attention is None:
        return hidden, None
    return _run_attention(block.attention, hidden, context, injected)


def respond_to_video_offset(block: DecoderBlock) -> Tensor:
    """Return ``(C,)`` float32: what 1 added to both self-attentions' outputs adds to the block's output.

    As `unet.respond_to_offset`; the temporal branch starts from the spatial one and gets the offset once more, and
    both are mixed with weights alpha and 1 - alpha, hence the factor ``2 - alpha``.
    """
    if block.attention is None:
        raise TypeError("decoder blocks 0..2 have no attention")
    weight: Tensor = block.attention.proj_out.weight
    alpha = torch.sigmoid(block.attention.time_mixer.mix_factor.detach().float())
    return weight.detach().float().sum(1) * (2 - alpha)


def make_indicator(like: Tensor, count: int) -> Tensor:
    """Return ``(1,T)`` zeros: the frames are a video, not single images."""
    return like.new_zeros((1, count))


def _run_attention(
    layer: Any,  # noqa: ANN401
    hidden: Tensor,
    context: Tensor,
    injected: Injected,
) -> tuple[Tensor, VideoRecord]:
    """Run a spatial and a temporal transformer of depth one on ``(T,C,h,w)``."""
    tokens = layer.proj_in(layer.norm(hidden).flatten(2).transpose(1, 2))  # (T,C,h,w) -> (T,N,C)
    tokens, query, key = _run_transformer(layer.transformer_blocks[0], tokens, context, injected.spatial)
    numbers = torch.arange(len(hidden), device=hidden.device)
    places = layer.time_pos_embed(layer.time_proj(numbers).to(tokens.dtype))  # (T,C)
    mixed = (tokens + places[:, None]).transpose(0, 1)  # (T,N,C) -> (N,T,C)
    temporal = layer.temporal_transformer_blocks[0]
    mixed = mixed + run_feed_forward(temporal.ff_in, temporal.norm_in(mixed))
    mixed, *used = _run_transformer(temporal, mixed, context, injected.temporal)
    alpha = torch.sigmoid(layer.time_mixer.mix_factor).to(tokens.dtype)
    tokens = alpha * tokens + (1 - alpha) * mixed.transpose(0, 1)
    maps = torch.unflatten(layer.proj_out(tokens).transpose(1, 2), 2, hidden.shape[2:])
    return hidden + maps, VideoRecord(query, key, *used)


def _run_transformer(
    block: Any,  # noqa: ANN401
    tokens: Tensor,
    context: Tensor,
    injected: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run self-attention, cross-attention to one token and feed-forward; also return queries and keys."""
    normed = block.norm1(tokens)
    query, key = injected or (block.attn1.to_q(normed), block.attn1.to_k(normed))
    tokens = tokens + attend(block.attn1, query, key, block.attn1.to_v(normed))
    tokens = tokens + block.attn2.to_out[0](block.attn2.to_v(context))  # softmax over one token is 1
    tokens = tokens + run_feed_forward(block.ff, block.norm3(tokens))
    return tokens, query, key
