"""Write a narrow model with fixed random weights, for tests and measurements."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from vidseg.core.checkpoints.describe import CONDITIONING_KEY, POOLED_KEY
from vidseg.core.checkpoints.sizes import (
    METADATA_KEY,
    NUMBER_CHANNELS,
    UNET_PREFIX,
    VAE_PREFIX,
    XL_NUMBERS,
    XL_SCALE_FACTOR,
    ModelSizes,
    UNetSizes,
    VAESizes,
)

NARROW = ModelSizes(
    UNetSizes(model_channels=32, num_head_channels=32, context_dim=64),
    VAESizes(ch=32),
)
"""Stable Diffusion 2.1's shape with a tenth of its channels."""
NUM_TOKENS = 77
"""Tokens of the empty prompt."""
_GAIN = 0.6
"""Standard deviation of a layer's output over that of its input, low enough that residual paths stay tame."""
_GAINS = {f"{VAE_PREFIX}quant_conv.weight": 14.0}
"""Gains of their own: this one gives natural frames latents of about unit variance."""
_VIDEO_GAINS = {f"{VAE_PREFIX}encoder.conv_out.weight": 8.4}
"""The same for video models, which have no such layer."""
NARROW_SVD = ModelSizes(
    UNetSizes(model_channels=32, num_head_channels=32, context_dim=64, in_channels=8, adm_in_channels=768),
    VAESizes(ch=32),
    prediction_type="v_prediction",
)
"""Stable Video Diffusion's shape with a tenth of its channels."""
NARROW_XL = ModelSizes(
    UNetSizes(
        model_channels=32, channel_mult=(1, 2, 2), attention_resolutions=(4, 2), num_head_channels=32, context_dim=64,
        transformer_depth=(0, 2, 10), adm_in_channels=XL_NUMBERS * NUMBER_CHANNELS + 48,
    ),
    VAESizes(ch=32),
    XL_SCALE_FACTOR,
)  # fmt: skip
"""SDXL's shape with a twentieth of its channels; its pooled text has 48."""

_Spec = tuple[str, tuple[int, ...]]


def random_model(path: Path, seed: int = 1, sizes: ModelSizes = NARROW) -> None:
    """Write a single-file model in the original layout with random weights, the same on every machine.

    A weight is drawn by its name and ``seed`` alone. Norms start as identities, biases as zeros.

    Args:
        path: the `.safetensors` file.
        seed: of the weights.
        sizes: widths of the model.
    """
    is_video = sizes.unet.is_video
    shapes = [*list_shapes(sizes), (CONDITIONING_KEY, (1 if is_video else NUM_TOKENS, sizes.unet.context_dim))]
    if sizes.unet.kind == "sdxl":
        shapes.append((POOLED_KEY, (sizes.unet.pooled_dim,)))
    metadata = {METADATA_KEY: sizes.to_metadata()[METADATA_KEY]}  # one entry: the format writes several in any order
    gains = _VIDEO_GAINS if is_video else _GAINS
    save_file({name: _values(name, shape, seed, gains) for name, shape in shapes}, path, metadata)


def list_shapes(sizes: ModelSizes) -> Iterator[_Spec]:
    """Yield names and shapes of all tensors of UNet and autoencoder."""
    yield from _unet(sizes.unet)
    yield from _autoencoder(sizes.vae, is_video=sizes.unet.is_video)


def _values(name: str, shape: tuple[int, ...], seed: int, gains: dict[str, float]) -> Tensor:
    """Return the values of one tensor, float32."""
    if len(shape) == 1:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    values = np.random.Generator(np.random.PCG64([zlib.crc32(name.encode()), seed])).standard_normal(shape, np.float32)
    fan_in = 1 if name == CONDITIONING_KEY else int(np.prod(shape[1:]))
    return torch.from_numpy(values * np.float32(gains.get(name, _GAIN) / fan_in**0.5))


def _layer(name: str, *shape: int) -> Iterator[_Spec]:
    """Yield weight and bias of a convolution, a linear layer (both ``(out, in, ...)``) or a norm ``(channels,)``."""
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _unet(sizes: UNetSizes) -> Iterator[_Spec]:
    """Yield the tensors of the UNet."""
    base, channels = f"{UNET_PREFIX}", sizes.channels
    model, embedding = sizes.model_channels, 4 * sizes.model_channels
    last = len(channels) - 1
    yield from _layer(f"{base}time_embed.0", embedding, model)
    yield from _layer(f"{base}time_embed.2", embedding, embedding)
    if sizes.adm_in_channels:
        yield from _layer(f"{base}label_emb.0.0", embedding, sizes.adm_in_channels)
        yield from _layer(f"{base}label_emb.0.2", embedding, embedding)
    yield from _layer(f"{base}input_blocks.0.0", model, sizes.in_channels, 3, 3)
    skips, width, index = [model], model, 1
    for level, count in enumerate(channels):
        for _ in range(sizes.num_res_blocks):
            yield from _res_block(f"{base}input_blocks.{index}.0", width, count, sizes)
            if 2**level in sizes.attention_resolutions:
                yield from _transformer(f"{base}input_blocks.{index}.1", count, sizes, sizes.depths[level])
            width, index = count, index + 1
            skips.append(width)
        if level < last:
            yield from _layer(f"{base}input_blocks.{index}.0.op", width, width, 3, 3)
            skips.append(width)
            index += 1
    yield from _res_block(f"{base}middle_block.0", width, width, sizes)
    yield from _transformer(f"{base}middle_block.1", width, sizes, max(sizes.depths))
    yield from _res_block(f"{base}middle_block.2", width, width, sizes)
    yield from _decoder_blocks(sizes, skips, width)
    yield from _layer(f"{base}out.0", model)
    yield from _layer(f"{base}out.2", sizes.out_channels, model, 3, 3)


def _decoder_blocks(sizes: UNetSizes, skips: list[int], width: int) -> Iterator[_Spec]:
    """Yield the tensors of the UNet's decoder, which takes ``skips`` from the last on."""
    index = 0
    for level in reversed(range(len(sizes.channels))):
        count = sizes.channels[level]
        for position in range(sizes.num_res_blocks + 1):
            name = f"{UNET_PREFIX}output_blocks.{index}"
            yield from _res_block(f"{name}.0", width + skips.pop(), count, sizes)
            attends = 2**level in sizes.attention_resolutions
            if attends:
                yield from _transformer(f"{name}.1", count, sizes, sizes.depths[level])
            if level and position == sizes.num_res_blocks:
                yield from _layer(f"{name}.{2 if attends else 1}.conv", count, count, 3, 3)
            width, index = count, index + 1


def _res_block(name: str, width: int, out: int, sizes: UNetSizes) -> Iterator[_Spec]:
    """Yield the tensors of a residual block of the UNet."""
    embedding = 4 * sizes.model_channels
    yield from _layer(f"{name}.in_layers.0", width)
    yield from _layer(f"{name}.in_layers.2", out, width, 3, 3)
    yield from _layer(f"{name}.emb_layers.1", out, embedding)
    yield from _layer(f"{name}.out_layers.0", out)
    yield from _layer(f"{name}.out_layers.3", out, out, 3, 3)
    if width != out:
        yield from _layer(f"{name}.skip_connection", out, width, 1, 1)
    if sizes.is_video:
        yield from _time_layers(name, out)
        yield from _layer(f"{name}.time_stack.emb_layers.1", out, embedding)
        yield f"{name}.time_mixer.mix_factor", (1,)


def _time_layers(name: str, width: int) -> Iterator[_Spec]:
    """Yield the norms and convolutions over time of a residual block."""
    yield from _layer(f"{name}.time_stack.in_layers.0", width)
    yield from _layer(f"{name}.time_stack.in_layers.2", width, width, 3, 1, 1)
    yield from _layer(f"{name}.time_stack.out_layers.0", width)
    yield from _layer(f"{name}.time_stack.out_layers.3", width, width, 3, 1, 1)


def _transformer(name: str, width: int, sizes: UNetSizes, depth: int) -> Iterator[_Spec]:
    """Yield the tensors of a layer of attention with ``depth`` transformer blocks."""
    kernel = () if sizes.use_linear_in_transformer else (1, 1)
    yield from _layer(f"{name}.norm", width)
    yield from _layer(f"{name}.proj_in", width, width, *kernel)
    for number in range(depth):
        yield from _transformer_block(f"{name}.transformer_blocks.{number}", width, sizes)
    yield from _layer(f"{name}.proj_out", width, width, *kernel)
    if sizes.is_video:
        block = f"{name}.time_stack.0"
        yield from _transformer_block(block, width, sizes)
        yield from _layer(f"{block}.norm_in", width)
        yield from _layer(f"{block}.ff_in.net.0.proj", 8 * width, width)
        yield from _layer(f"{block}.ff_in.net.2", width, 4 * width)
        yield from _layer(f"{name}.time_pos_embed.0", 4 * width, width)
        yield from _layer(f"{name}.time_pos_embed.2", width, 4 * width)
        yield f"{name}.time_mixer.mix_factor", (1,)


def _transformer_block(block: str, width: int, sizes: UNetSizes) -> Iterator[_Spec]:
    """Yield the tensors of self-attention, cross-attention and feed-forward."""
    for attention, context in (("attn1", width), ("attn2", sizes.context_dim)):
        yield f"{block}.{attention}.to_q.weight", (width, width)
        yield f"{block}.{attention}.to_k.weight", (width, context)
        yield f"{block}.{attention}.to_v.weight", (width, context)
        yield from _layer(f"{block}.{attention}.to_out.0", width, width)
    for norm in ("norm1", "norm2", "norm3"):
        yield from _layer(f"{block}.{norm}", width)
    yield from _layer(f"{block}.ff.net.0.proj", 8 * width, width)
    yield from _layer(f"{block}.ff.net.2", width, 4 * width)


def _autoencoder(sizes: VAESizes, *, is_video: bool = False) -> Iterator[_Spec]:
    """Yield the tensors of the autoencoder; that of video models decodes with layers over time."""
    channels, latent = sizes.channels, sizes.z_channels
    encoder, decoder = f"{VAE_PREFIX}encoder", f"{VAE_PREFIX}decoder"
    yield from _layer(f"{encoder}.conv_in", channels[0], sizes.in_channels, 3, 3)
    width = channels[0]
    for level, count in enumerate(channels):
        for index in range(sizes.num_res_blocks):
            yield from _vae_block(f"{encoder}.down.{level}.block.{index}", width, count)
            width = count
        if level < len(channels) - 1:
            yield from _layer(f"{encoder}.down.{level}.downsample.conv", width, width, 3, 3)
    yield from _vae_ends(encoder, channels[-1], channels[-1], 2 * latent)
    yield from _layer(f"{decoder}.conv_in", channels[-1], latent, 3, 3)
    width = channels[-1]
    for level in reversed(range(len(channels))):
        for index in range(sizes.num_res_blocks + 1):
            yield from _vae_block(f"{decoder}.up.{level}.block.{index}", width, channels[level], is_video=is_video)
            width = channels[level]
        if level:
            yield from _layer(f"{decoder}.up.{level}.upsample.conv", width, width, 3, 3)
    yield from _vae_ends(decoder, channels[-1], channels[0], sizes.out_ch, is_video=is_video)
    if is_video:
        yield from _layer(f"{decoder}.conv_out.time_mix_conv", sizes.out_ch, sizes.out_ch, 3, 1, 1)
    else:
        yield from _layer(f"{VAE_PREFIX}quant_conv", 2 * latent, 2 * latent, 1, 1)
        yield from _layer(f"{VAE_PREFIX}post_quant_conv", latent, latent, 1, 1)


def _vae_ends(name: str, middle: int, last: int, out: int, *, is_video: bool = False) -> Iterator[_Spec]:
    """Yield the middle blocks and the output of one half of the autoencoder."""
    for block in ("block_1", "block_2"):
        yield from _vae_block(f"{name}.mid.{block}", middle, middle, is_video=is_video)
    yield from _layer(f"{name}.mid.attn_1.norm", middle)
    for part in ("q", "k", "v", "proj_out"):
        yield from _layer(f"{name}.mid.attn_1.{part}", middle, middle, 1, 1)
    yield from _layer(f"{name}.norm_out", last)
    yield from _layer(f"{name}.conv_out", out, last, 3, 3)


def _vae_block(name: str, width: int, out: int, *, is_video: bool = False) -> Iterator[_Spec]:
    """Yield the tensors of a residual block of the autoencoder."""
    yield from _layer(f"{name}.norm1", width)
    yield from _layer(f"{name}.conv1", out, width, 3, 3)
    yield from _layer(f"{name}.norm2", out)
    yield from _layer(f"{name}.conv2", out, out, 3, 3)
    if width != out:
        yield from _layer(f"{name}.nin_shortcut", out, width, 1, 1)
    if is_video:
        yield from _time_layers(name, out)
        yield f"{name}.mix_factor", (1,)
