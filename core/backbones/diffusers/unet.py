"""A Stable Diffusion UNet of diffusers, run part by part: its encoder, single decoder blocks, its head.

diffusers' modules do the arithmetic; only the order is spelled out here, so that a pass can start in the middle of the
decoder and attention can be read and replaced without patching the model.

``E`` counts elements of a UNet call, guidance halves included (unconditional half first).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...config.parts import ATTENTION_BLOCKS


class AttentionRecord(NamedTuple):
    """What self-attention in a decoder block used, and cross-attention gave, ``(E,N,C)`` each, heads merged."""

    query: Tensor
    key: Tensor
    cross: Tensor  # projected: fixed where its queries and keys are, since its values depend on the context alone


class Injection(NamedTuple):
    """What takes the place of a block's own attention in a repetition."""

    mix: Callable[[Any, Tensor], Tensor]  # self-attention's output (E,N,C), not projected, of its module and values
    cross: Tensor  # (E,N,C), output of the cross-attention


class DecoderBlock(NamedTuple):
    """One of the paper's decoder blocks 0..11, made of diffusers' modules: attention in 3..11, upsampler in 2, 5, 8."""

    resnet: Any
    attention: Any
    upsampler: Any


Note = Callable[[int, str, Tensor], None]
"""Is shown what of each transformer block can be read, by its number and one of `LAYER_KINDS`; may raise to stop."""


class EncoderOutput(NamedTuple):
    """What the decoder starts from."""

    hidden: Tensor  # (E,C,h,w), output of the middle block
    skips: tuple[Tensor, ...]  # one for each decoder block, in the decoder's order


def list_decoder_blocks(unet: Any, attended: tuple[int, ...] = ATTENTION_BLOCKS) -> tuple[DecoderBlock, ...]:  # noqa: ANN401
    """Return the decoder blocks in order; those ``attended`` must hold attention: 3..11 in SD 1.x, 2.x and SVD."""
    blocks = []
    for group in unet.up_blocks:
        attentions = getattr(group, "attentions", [None] * len(group.resnets))
        for index, (resnet, attention) in enumerate(zip(group.resnets, attentions, strict=True)):
            is_last = index == len(group.resnets) - 1 and group.upsamplers is not None
            blocks.append(DecoderBlock(resnet, attention, group.upsamplers[0] if is_last else None))
    found = tuple(number for number, block in enumerate(blocks) if block.attention is not None)
    if found != attended:
        raise TypeError(f"not the shape of the model: attention in decoder blocks {found}")
    return tuple(blocks)


def embed_timestep(unet: Any, timestep: int, count: int, like: Tensor) -> Tensor:  # noqa: ANN401
    """Return the embedding ``(E,C)`` of a timestep in [0, 999] for ``count`` elements, on the device of ``like``."""
    timesteps = torch.full((count,), timestep, device=like.device)
    embedding: Tensor = unet.time_embedding(unet.time_proj(timesteps).to(like.dtype))
    return embedding


def run_encoder(unet: Any, latents: Tensor, time: Tensor, context: Tensor) -> EncoderOutput:  # noqa: ANN401
    """Run the UNet up to and including its middle block on ``(E,4,H/8,W/8)``, divided by ``sqrt(1 + sigma**2)``."""
    hidden = unet.conv_in(latents)
    skips = [hidden]
    for group in unet.down_blocks:
        attentions = getattr(group, "attentions", [None] * len(group.resnets))
        for resnet, attention in zip(group.resnets, attentions, strict=True):
            hidden = run_resnet(resnet, hidden, time)
            if attention is not None:
                hidden, _ = run_attention(attention, hidden, context, None)
            skips.append(hidden)
        for downsampler in group.downsamplers or ():
            hidden = downsampler(hidden)
            skips.append(hidden)
    before, after = unet.mid_block.resnets
    hidden, _ = run_attention(unet.mid_block.attentions[0], run_resnet(before, hidden, time), context, None)
    return EncoderOutput(run_resnet(after, hidden, time), tuple(skips[::-1]))


def run_resnet(block: Any, hidden: Tensor, time: Tensor | None = None) -> Tensor:  # noqa: ANN401
    """Run a residual block on ``(E,C,h,w)``, with a time embedding ``(E,C'')`` in a UNet; with diffusers' own bits."""
    # What nothing else reads is overwritten, since fetching fresh memory takes a good part of the time on a CPU.
    if not _is_plain(block):
        other: Tensor = block(hidden, time)
        return other
    result: Tensor = block.conv1(F.silu(block.norm1(hidden), inplace=True))
    if time is not None:
        result += block.time_emb_proj(F.silu(time))[:, :, None, None]
    result = block.conv2(F.silu(block.norm2(result), inplace=True))
    result += hidden if block.conv_shortcut is None else block.conv_shortcut(hidden)
    return result


def _is_plain(block: Any) -> bool:  # noqa: ANN401
    """Return whether a residual block is Stable Diffusion's: it scales nothing and has SiLU between its layers.

    In an autoencoder's decoder, which is told no time, diffusers calls the same norm ``group``.
    """
    is_default = block.time_embedding_norm in {"default", "group"} and not block.skip_time_act
    return is_default and block.output_scale_factor == 1 and isinstance(block.nonlinearity, nn.SiLU)


def run_feed_forward(layer: Any, tokens: Tensor) -> Tensor:  # noqa: ANN401
    """Run a gated feed-forward layer on ``(E,N,C)``; likewise with the bits of diffusers' own."""
    gate, _, project = layer.net
    values, gates = gate.proj(tokens).chunk(2, dim=-1)
    output: Tensor = project(F.gelu(gates).mul_(values))
    return output


def run_decoder(vae: Any, latents: Tensor) -> Tensor:  # noqa: ANN401
    """Return the pixels ``(T,3,H,W)`` in [-1, 1] that an autoencoder of images makes of ``(T,4,H/8,W/8)``."""
    decoder = vae.decoder
    before, after = decoder.mid_block.resnets
    start = latents if vae.post_quant_conv is None else vae.post_quant_conv(latents)
    hidden = run_resnet(before, decoder.conv_in(start))
    hidden = run_resnet(after, decoder.mid_block.attentions[0](hidden))
    for group in decoder.up_blocks:
        for resnet in group.resnets:
            hidden = run_resnet(resnet, hidden)
        for upsampler in group.upsamplers or ():
            hidden = upsampler(hidden)
    pixels: Tensor = decoder.conv_out(F.silu(decoder.conv_norm_out(hidden), inplace=True))
    return pixels


def run_block(
    block: DecoderBlock,
    hidden: Tensor,
    skip: Tensor,
    time: Tensor,
    context: Tensor,
    injected: Injection | None = None,
) -> tuple[Tensor, AttentionRecord | None]:
    """Run a decoder block without its upsampler, on ``(E,C,h,w)``; also return what its own attention used, if any."""
    hidden = run_resnet(block.resnet, torch.cat([hidden, skip], dim=1), time)
    if block.attention is None:
        return hidden, None
    return run_attention(block.attention, hidden, context, injected)


def read_query(block: DecoderBlock, hidden: Tensor, skip: Tensor, time: Tensor) -> Tensor:
    """Return the self-attention queries ``(E,N,C)`` of a block with attention, and compute nothing after them."""
    tokens = _project_in(block.attention, run_resnet(block.resnet, torch.cat([hidden, skip], dim=1), time))
    layer = block.attention.transformer_blocks[0]
    query: Tensor = layer.attn1.to_q(layer.norm1(tokens))
    return query


def upsample_latents(block: DecoderBlock, hidden: Tensor) -> Tensor:
    """Run the block's upsampler, if it has one."""
    if block.upsampler is None:
        return hidden
    larger: Tensor = block.upsampler(hidden)
    return larger


def run_head(unet: Any, hidden: Tensor) -> Tensor:  # noqa: ANN401
    """Return the UNet's output ``(E,4,H/8,W/8)`` from the output of its last block."""
    output: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))
    return output


def respond_to_offset(block: DecoderBlock) -> Tensor:
    """Return ``(C,)`` float32: what 1 added to all channels of an attention's output adds to the block's output.

    The layer norms of the transformer do not see a constant on all channels of a token, so nothing but the residual
    stream carries it, up to the output projection: the row sums of its weight (paper Eq. 2 in closed form).
    """
    if block.attention is None:
        raise TypeError("decoder blocks 0..2 have no attention")
    layer = block.attention.proj_out
    weight, bias = layer.weight.detach().float(), layer.bias.detach().float()
    ones = weight.new_ones((1, *weight.shape[1:]))
    sums = F.linear(ones, weight, bias) if weight.ndim == 2 else F.conv2d(ones, weight, bias).flatten(1)
    response: Tensor = (sums - bias)[0]
    return response


def run_attention(
    layer: Any,  # noqa: ANN401
    hidden: Tensor,
    context: Tensor,
    injected: Injection | None = None,
    note: Note | None = None,
) -> tuple[Tensor, AttentionRecord | None]:
    """Run a spatial transformer on ``(E,C,h,w)``; return what its first block's attention used."""
    tokens = _project_in(layer, hidden)
    first: AttentionRecord | None = None
    for number, block in enumerate(layer.transformer_blocks):
        show = partial(note, number) if note else None
        tokens, record = _run_transformer_block(block, tokens, context, injected, show)
        first = first if number else record
    return hidden + _project_out(layer, tokens, hidden), first


def _run_transformer_block(
    block: Any,  # noqa: ANN401
    tokens: Tensor,
    context: Tensor,
    injected: Injection | None,
    show: Callable[[str, Tensor], None] | None,
) -> tuple[Tensor, AttentionRecord | None]:
    """Run self-attention, cross-attention and feed-forward on ``(E,N,C)``."""
    normed = block.norm1(tokens)
    value = block.attn1.to_v(normed)
    record = None
    if injected is None:
        query, key = block.attn1.to_q(normed), block.attn1.to_k(normed)
        if show:
            show("query", query)
            show("key", key)
        tokens = tokens + attend(block.attn1, query, key, value)
        cross_query = block.attn2.to_q(block.norm2(tokens))
        if show:
            show("cross_query", cross_query)
        cross = attend(block.attn2, cross_query, block.attn2.to_k(context), block.attn2.to_v(context))
        record = AttentionRecord(query, key, cross)
    else:
        tokens = tokens + block.attn1.to_out[0](injected.mix(block.attn1, value))
        cross = injected.cross
    tokens = tokens + cross
    tokens = tokens + run_feed_forward(block.ff, block.norm3(tokens))
    if show:
        show("output", tokens)
    return tokens, record


def attend(attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ANN401
    """Return the projected output ``(E,N,C)`` of queries ``(E,N,C)`` and keys and values ``(E,M,C)``, heads merged."""
    output: Tensor = attention.to_out[0](mix_values(query, key, value, attention.heads))
    return output


def mix_values(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Return what attention makes of the values, ``(E,N,C)``, before its projection; heads are merged."""
    q, k, v = (torch.unflatten(x, -1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    if query.dtype == torch.float16 and query.device.type != "cuda":  # scores can pass 65504 where they are kept
        q, k, v = q.float(), k.float(), v.float()
    mixed = F.scaled_dot_product_attention(q, k, v).to(query.dtype)
    return mixed.transpose(1, 2).flatten(2)


def _project_in(layer: Any, hidden: Tensor) -> Tensor:  # noqa: ANN401
    """(E,C,h,w) -> (E,N,C); SD 2.x projects tokens, SD 1.x maps."""
    normed = layer.norm(hidden)
    if layer.use_linear_projection:
        tokens: Tensor = layer.proj_in(normed.flatten(2).transpose(1, 2))
        return tokens
    projected: Tensor = layer.proj_in(normed)
    return projected.flatten(2).transpose(1, 2)


def _project_out(layer: Any, tokens: Tensor, like: Tensor) -> Tensor:  # noqa: ANN401
    """(E,N,C) -> (E,C,h,w)."""
    if layer.use_linear_projection:
        tokens = layer.proj_out(tokens)
        return torch.unflatten(tokens.transpose(1, 2), 2, like.shape[2:])
    maps: Tensor = layer.proj_out(torch.unflatten(tokens.transpose(1, 2), 2, like.shape[2:]))
    return maps
