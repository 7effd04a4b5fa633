"""Weights of both networks under the names of the original SD implementation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from vidseg.core.checkpoints.sizes import METADATA_KEY, UNET_PREFIX, VAE_PREFIX, ModelSizes, UNetSizes, VAESizes

LICENSE = "demonstration and tests, non-commercial"

_RESNET_PARTS = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
_MIDDLE_PARTS = {"resnets.0": "middle_block.0", "attentions.0": "middle_block.1", "resnets.1": "middle_block.2"}
_VAE_PARTS = (
    (r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}"),
    (r"mid_block\.attentions\.0\.", lambda _: "mid.attn_1."),
    (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
)
_VAE_ATTENTION_PARTS = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def original_unet_key(name: str, sizes: UNetSizes) -> str:
    """Return the original name of a diffusers parameter, without prefix.

    >>> original_unet_key("up_blocks.1.upsamplers.0.conv.bias", UNetSizes(64))
    'output_blocks.5.2.conv.bias'
    """
    for ours, theirs in _UNET_ENDS.items():
        if name.startswith(ours + "."):
            return theirs + name[len(ours) :]
    kind, rest = name.split(".", maxsplit=1)
    if kind == "mid_block":
        part, index, leaf = rest.split(".", maxsplit=2)
        return f"{_MIDDLE_PARTS[f'{part}.{index}']}.{_unet_leaf(part, leaf)}"
    level, part, index, leaf = rest.split(".", maxsplit=3)
    if kind == "down_blocks":
        first = int(level) * (sizes.num_res_blocks + 1) + 1
        block, prefix = first + int(index), "input_blocks"
        if part == "downsamplers":
            return f"input_blocks.{first + sizes.num_res_blocks}.0.{leaf.replace('conv', 'op')}"
    else:
        first = int(level) * (sizes.num_res_blocks + 1)
        block, prefix = first + int(index), "output_blocks"
        if part == "upsamplers":
            return f"output_blocks.{first + sizes.num_res_blocks}.{1 if level == '0' else 2}.{leaf}"
    return f"{prefix}.{block}.{int(part == 'attentions')}.{_unet_leaf(part, leaf)}"


def _unet_leaf(part: str, leaf: str) -> str:
    if part == "attentions":
        return leaf
    layer, kind = leaf.rsplit(".", maxsplit=1)
    return f"{_RESNET_PARTS[layer]}.{kind}"


def original_vae_key(name: str, sizes: VAESizes) -> str:
    """Return the original name of a diffusers parameter, without prefix; decoder levels count the other way.

    >>> original_vae_key("decoder.up_blocks.0.resnets.1.conv1.bias", VAESizes())
    'decoder.up.3.block.1.conv1.bias'
    """
    last = len(sizes.ch_mult) - 1
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda match: f"up.{last - int(match[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda match: f"up.{last - int(match[1])}.upsample", name)
    for pattern, replacement in _VAE_PARTS:
        name = re.sub(pattern, replacement, name)
    if ".attn_1." in name:
        head, leaf = name.split(".attn_1.")
        layer, kind = leaf.rsplit(".", maxsplit=1)
        return f"{head}.attn_1.{_VAE_ATTENTION_PARTS[layer]}.{kind}"
    return name


def original_unet_weights(unet: nn.Module, sizes: UNetSizes) -> dict[str, Tensor]:
    """Return the UNet's weights under their full original names, fp16."""
    return _renamed(unet, UNET_PREFIX, lambda name: original_unet_key(name, sizes))


def original_vae_weights(vae: nn.Module, sizes: VAESizes) -> dict[str, Tensor]:
    """Return the autoencoder's weights under their full original names, fp16; attention weights are 1x1 kernels."""
    weights = _renamed(vae, VAE_PREFIX, lambda name: original_vae_key(name, sizes))
    return {
        name: value[:, :, None, None] if ".attn_1." in name and value.ndim == 2 else value
        for name, value in weights.items()
    }


def _renamed(network: nn.Module, prefix: str, rename: Callable[[str], str]) -> dict[str, Tensor]:
    return {
        prefix + rename(name): value.detach().to("cpu", torch.float16).contiguous()
        for name, value in network.state_dict().items()
    }


def load_original(network: nn.Module, weights: Mapping[str, Tensor], prefix: str, rename: Callable[[str], str]) -> None:
    """Load weights with original names into a diffusers network; every parameter must be there."""
    state = {
        name: weights[prefix + rename(name)].reshape(value.shape).to(value)
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(state)


def load_unet(unet: nn.Module, weights: Mapping[str, Tensor], sizes: UNetSizes) -> None:
    """Load a UNet from weights with original names."""
    load_original(unet, weights, UNET_PREFIX, lambda name: original_unet_key(name, sizes))


def load_vae(vae: nn.Module, weights: Mapping[str, Tensor], sizes: VAESizes) -> None:
    """Load an autoencoder from weights with original names."""
    load_original(vae, weights, VAE_PREFIX, lambda name: original_vae_key(name, sizes))


def save_weights(path: Path, weights: Mapping[str, Tensor], sizes: ModelSizes, provenance: Mapping[str, Any]) -> None:
    """Write a file with the sizes, the provenance and the license in its header."""
    metadata = {
        METADATA_KEY: sizes.to_metadata()[METADATA_KEY],
        "vidseg.provenance": json.dumps(dict(provenance)),
        "license": LICENSE,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    save_file({name: value.contiguous() for name, value in weights.items()}, unfinished, metadata)
    unfinished.replace(path)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a file's tensors and its header."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118


def sizes_of(metadata: Mapping[str, str]) -> ModelSizes:
    """Return the sizes that a file's header states."""
    return ModelSizes.from_metadata(metadata[METADATA_KEY])
