"""Build diffusers' modules of Stable Video Diffusion from a model file or folder, without network and pickle."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.autoencoders.vae import Encoder
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from torch import Tensor, nn

from ...checkpoints.describe import FRAME_ENCODER_PREFIX, ModelDescription
from ...checkpoints.sizes import NUMBER_CHANNELS, UNET_PREFIX, VAE_PREFIX, UNetSizes, VAESizes
from .weights import Tensors, load_from_folder, load_state_dict, move_tensor, read_tensors, vae_config

NORM_EPSILON = 1e-5
"""Of the norms of the UNet's residual blocks in training; diffusers sets another in some of them."""
_TOP = {
    "time_embed.0.": "time_embedding.linear_1.",
    "time_embed.2.": "time_embedding.linear_2.",
    "label_emb.0.0.": "add_embedding.linear_1.",
    "label_emb.0.2.": "add_embedding.linear_2.",
    "input_blocks.0.0.": "conv_in.",
    "middle_block.0.": "mid_block.resnets.0.",
    "middle_block.1.": "mid_block.attentions.0.",
    "middle_block.2.": "mid_block.resnets.1.",
    "out.0.": "conv_norm_out.",
    "out.2.": "conv_out.",
}
_IN_RESNET = {
    "in_layers.0.": "norm1.",
    "in_layers.2.": "conv1.",
    "emb_layers.1.": "time_emb_proj.",
    "out_layers.0.": "norm2.",
    "out_layers.3.": "conv2.",
    "skip_connection.": "conv_shortcut.",
    "nin_shortcut.": "conv_shortcut.",
}
_IN_TRANSFORMER = {
    "time_stack.": "temporal_transformer_blocks.",
    "time_pos_embed.0.": "time_pos_embed.linear_1.",
    "time_pos_embed.2.": "time_pos_embed.linear_2.",
}
_IN_VAE_ATTENTION = {"norm.": "group_norm.", "q.": "to_q.", "k.": "to_k.", "v.": "to_v.", "proj_out.": "to_out.0."}


def build_video_unet(model: ModelDescription, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return the UNet with its weights on ``device`` as ``dtype``."""
    if model.layout == "folder":
        make, tensors = load_from_folder(UNetSpatioTemporalConditionModel, model.path / "unet")
    else:
        make = partial(UNetSpatioTemporalConditionModel, **video_unet_config(model.sizes.unet))
        original = read_tensors([model.path], UNET_PREFIX)
        tensors = {convert_unet_name(name.removeprefix(UNET_PREFIX)): value for name, value in original.items()}
    unet = load_state_dict(make, move_tensor(tensors, device, dtype), model.path.name)
    for name, module in unet.named_modules():
        if isinstance(module, nn.GroupNorm) and ".resnets." in name:
            module.eps = NORM_EPSILON
    return unet


def build_video_vae(model: ModelDescription, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return the autoencoder, whose decoder is temporal, with its weights on ``device`` as ``dtype``."""
    if model.layout == "folder":
        make, tensors = load_from_folder(AutoencoderKLTemporalDecoder, model.path / "vae")
    else:
        config = vae_config(model.sizes.vae)
        del config["up_block_types"]
        make = partial(AutoencoderKLTemporalDecoder, **config)
        tensors = _vae_tensors(read_tensors([model.path], VAE_PREFIX), VAE_PREFIX, model.sizes.vae)
    return load_state_dict(make, move_tensor(tensors, device, dtype), model.path.name)


def build_frame_encoder(model: ModelDescription, device: torch.device, dtype: torch.dtype) -> nn.Module | None:
    """Return a file's own encoder of conditioning frames, to moments ``(B,8,h,w)``, or None: the autoencoder serves."""
    if model.layout == "folder":
        return None
    prefix = f"{FRAME_ENCODER_PREFIX}encoder."
    if not (tensors := read_tensors([model.path], prefix)):
        return None
    tensors |= read_tensors([model.path], f"{FRAME_ENCODER_PREFIX}quant_conv.")
    renamed = _vae_tensors(tensors, FRAME_ENCODER_PREFIX, model.sizes.vae)
    weights = {name.replace("encoder.", "0.").replace("quant_conv.", "1."): value for name, value in renamed.items()}
    make = partial(_moments_encoder, model.sizes.vae)
    return load_state_dict(make, move_tensor(weights, device, dtype), model.path.name)


def video_unet_config(sizes: UNetSizes) -> dict[str, Any]:
    """Return diffusers' settings of SVD's UNet."""
    attended = [2**level in sizes.attention_resolutions for level in range(len(sizes.channel_mult))]
    down = ("CrossAttnDownBlockSpatioTemporal" if has else "DownBlockSpatioTemporal" for has in attended)
    up = ("CrossAttnUpBlockSpatioTemporal" if has else "UpBlockSpatioTemporal" for has in reversed(attended))
    return {
        "in_channels": sizes.in_channels,
        "out_channels": sizes.out_channels,
        "down_block_types": tuple(down),
        "up_block_types": tuple(up),
        "block_out_channels": sizes.channels,
        "addition_time_embed_dim": NUMBER_CHANNELS,
        "projection_class_embeddings_input_dim": sizes.adm_in_channels,
        "layers_per_block": sizes.num_res_blocks,
        "transformer_layers_per_block": sizes.transformer_depth,
        "cross_attention_dim": sizes.context_dim,
        "num_attention_heads": sizes.heads,
    }


def convert_unet_name(name: str) -> str:
    """Return diffusers' name of a tensor of SVD's UNet in the original layout.

    >>> convert_unet_name("output_blocks.8.1.time_stack.0.attn1.to_q.weight")
    'up_blocks.2.attentions.2.temporal_transformer_blocks.0.attn1.to_q.weight'
    >>> convert_unet_name("output_blocks.8.2.conv.weight")
    'up_blocks.2.upsamplers.0.conv.weight'
    """
    for old, new in _TOP.items():
        if name.startswith(old):
            return new + _inner(name.removeprefix(old), new)
    side, number, layer, rest = name.split(".", 3)
    index = int(number) - (side == "input_blocks")
    block = f"{'down' if side == 'input_blocks' else 'up'}_blocks.{index // 3}."
    if rest.startswith("op."):
        return f"{block}downsamplers.0.conv.{rest.removeprefix('op.')}"
    if rest.startswith("conv."):
        return f"{block}upsamplers.0.{rest}"
    place = f"{block}{'attentions' if layer == '1' else 'resnets'}.{index % 3}."
    return place + _inner(rest, place)


def _inner(name: str, place: str) -> str:
    """Rename within a residual block or a transformer; elsewhere nothing is to be renamed."""
    if "resnets" in place:
        return _in_resnet(name)
    return _rename(name, _IN_TRANSFORMER) if "attentions" in place else name


def _in_resnet(name: str) -> str:
    """Rename within a residual block with a temporal part."""
    if name.endswith("mix_factor"):
        return "time_mixer.mix_factor"
    part = "temporal" if name.startswith("time_stack.") else "spatial"
    return f"{part}_res_block.{_rename(name.removeprefix('time_stack.'), _IN_RESNET)}"


def _rename(name: str, table: dict[str, str]) -> str:
    """Replace the beginning of ``name`` by ``table``."""
    return next((new + name.removeprefix(old) for old, new in table.items() if name.startswith(old)), name)


def _vae_tensors(tensors: Tensors, prefix: str, sizes: VAESizes) -> Tensors:
    """Return the tensors of an autoencoder under diffusers' names; one without ``quant_conv`` gets the identity."""
    renamed: Tensors = {}
    for name, value in tensors.items():
        new = _vae_name(name.removeprefix(prefix), len(sizes.ch_mult))
        is_linear = ".attentions." in new and value.ndim == 4
        renamed[new] = value[..., 0, 0] if is_linear else value
    channels = 2 * sizes.z_channels
    renamed.setdefault("quant_conv.weight", torch.eye(channels)[..., None, None])
    renamed.setdefault("quant_conv.bias", torch.zeros(channels))
    return renamed


def _vae_name(name: str, levels: int) -> str:
    """Return diffusers' name of a tensor of the autoencoder."""
    half, _, rest = name.partition(".")
    is_temporal = half == "decoder"
    if match := re.match(r"mid\.block_(\d)\.(.*)", rest):
        return f"{half}.mid_block.resnets.{int(match[1]) - 1}.{_vae_resnet(match[2], is_temporal)}"
    if match := re.match(r"mid\.attn_1\.(.*)", rest):
        return f"{half}.mid_block.attentions.0.{_rename(match[1], _IN_VAE_ATTENTION)}"
    if match := re.match(r"(down|up)\.(\d)\.(?:block\.(\d)|(?:up|down)sample)\.(.*)", rest):
        side, level, block, inner = match.groups()
        place = f"{half}.{side}_blocks.{int(level) if side == 'down' else levels - 1 - int(level)}."
        if block is None:
            return f"{place}{side}samplers.0.{inner}"
        return f"{place}resnets.{block}.{_vae_resnet(inner, is_temporal)}"
    table = {"norm_out.": "conv_norm_out.", "conv_out.time_mix_conv.": "time_conv_out."}
    return f"{half}.{_rename(rest, table)}"


def _vae_resnet(name: str, is_temporal: bool) -> str:
    return _in_resnet(name) if is_temporal else _rename(name, _IN_RESNET)


def _moments_encoder(sizes: VAESizes) -> nn.Module:
    """Return an encoder followed by its ``quant_conv``."""
    channels = 2 * sizes.z_channels
    encoder = Encoder(
        in_channels=sizes.in_channels,
        out_channels=sizes.z_channels,
        down_block_types=("DownEncoderBlock2D",) * len(sizes.ch_mult),
        block_out_channels=sizes.channels,
        layers_per_block=sizes.num_res_blocks,
        double_z=True,
    )
    return nn.Sequential(encoder, nn.Conv2d(channels, channels, 1))


def take_mode(moments: Tensor) -> Tensor:
    """Return the mode ``(B,4,h,w)`` of posteriors with ``moments`` ``(B,8,h,w)``."""
    return moments.chunk(2, dim=1)[0]
