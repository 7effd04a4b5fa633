"""Build diffusers' UNet and autoencoder from a model file or folder, without a network and without a pickle.

On a CPU they are made to compute exactly what other implementations of Stable Diffusion compute. Two programs that
multiply the same matrices get the same bits only if memory is laid out alike: a library of linear algebra picks its
kernels by strides and by alignment. With these steps features, decodes and so labels of this program and of the ComfyUI
nodes are equal, not merely close (`tests/nodes/test_in_host_chain.py`). Where a decoder doubles maps both compute it in
another way than the models' own code (`..doubling`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ...checkpoints.describe import ModelDescription
from ...checkpoints.files import list_part_files, read_config
from ...checkpoints.sizes import NUMBER_CHANNELS, UNET_PREFIX, VAE_PREFIX, UNetSizes, VAESizes
from ...types import InputError
from ..doubling import Doubling, can_fold

Tensors = dict[str, Tensor]
Converter = Callable[[Tensors, dict[str, Any]], Tensors]
ALIGNMENT = 64
"""Bytes to which torch aligns memory of its own; tensors that lie in a mapped file may start anywhere."""
XL_CONDITIONING: dict[str, Any] = {"addition_embed_type": "text_time", "addition_time_embed_dim": NUMBER_CHANNELS}
"""diffusers' settings of what SDXL is told beside the text."""
MAX_SCORES = 2**26
"""Attention scores of the autoencoder held at once, at most."""


def build_unet(model: ModelDescription, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return the UNet with its weights on ``device`` as ``dtype``."""
    if model.layout == "folder":
        make, tensors = load_from_folder(UNet2DConditionModel, model.path / "unet")
    else:
        config = unet_config(model.sizes.unet)
        make = partial(UNet2DConditionModel, **config)
        convert: Converter = convert_ldm_unet_checkpoint
        tensors = convert(read_tensors([model.path], UNET_PREFIX), config)
    unet = load_state_dict(make, move_tensor(tensors, device, dtype), model.path.name)
    # On a CPU the gain is small and its group norm less exact.
    return _channels_last(unet) if device.type == "cuda" else unet


def build_vae(model: ModelDescription, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return the autoencoder with its weights on ``device`` as ``dtype``."""
    if model.layout == "folder":
        make, tensors = load_from_folder(AutoencoderKL, model.path / "vae")
    else:
        config = vae_config(model.sizes.vae)
        make = partial(AutoencoderKL, **config)
        convert: Converter = convert_ldm_vae_checkpoint
        tensors = convert(read_tensors([model.path], VAE_PREFIX), config)
    vae = load_state_dict(make, move_tensor(tensors, device, dtype), model.path.name)
    if device.type in {"cpu", "cuda"}:
        _channels_last(vae.decoder)
    return vae


def unet_config(sizes: UNetSizes) -> dict[str, Any]:
    """Return diffusers' settings of a UNet. Its ``attention_head_dim`` is the number of heads."""
    is_xl = sizes.kind == "sdxl"
    attended = [2**level in sizes.attention_resolutions for level in range(len(sizes.channel_mult))]
    return {
        "in_channels": sizes.in_channels,
        "out_channels": sizes.out_channels,
        "down_block_types": tuple("CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attended),
        "up_block_types": tuple("CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attended)),
        "block_out_channels": sizes.channels,
        "layers_per_block": sizes.num_res_blocks,
        "transformer_layers_per_block": tuple(max(1, depth) for depth in sizes.depths),
        "cross_attention_dim": sizes.context_dim,
        "attention_head_dim": sizes.heads,
        "use_linear_projection": sizes.use_linear_in_transformer,
        **(XL_CONDITIONING | {"projection_class_embeddings_input_dim": sizes.adm_in_channels} if is_xl else {}),
    }


def vae_config(sizes: VAESizes) -> dict[str, Any]:
    """Return diffusers' settings of an autoencoder."""
    levels = len(sizes.ch_mult)
    return {
        "in_channels": sizes.in_channels,
        "out_channels": sizes.out_ch,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": sizes.channels,
        "latent_channels": sizes.z_channels,
        "layers_per_block": sizes.num_res_blocks,
    }


def read_tensors(files: Iterable[Path], prefix: str = "") -> Tensors:
    """Return the tensors of `.safetensors` files whose names start with ``prefix``, under their full names."""
    tensors: Tensors = {}
    for path in files:
        tensors.update(_read_file(path, prefix))
    return tensors


def _read_file(path: Path, prefix: str) -> Tensors:
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 - not a dictionary
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise InputError(f"`model` must be readable, but {path.name} is damaged: {error}. Copy it again.") from None


def load_from_folder(kind: Any, folder: Path) -> tuple[Callable[[], nn.Module], Tensors]:  # noqa: ANN401
    """Return what makes the module of a folder, and its tensors. ``kind`` is a class of diffusers."""
    config = read_config(folder / "config.json")
    return partial(kind.from_config, config), _rename(read_tensors(list_part_files(folder)))


def move_tensor(tensors: Tensors, device: torch.device, dtype: torch.dtype) -> Tensors:
    """Return ``tensors`` on ``device`` as ``dtype``."""
    return {name: tensor.to(device, dtype) for name, tensor in tensors.items()}


def _rename(tensors: Tensors) -> Tensors:
    """Translate the names that old diffusers versions gave to the autoencoder's attention."""
    old = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
    renamed = {}
    for name, tensor in tensors.items():
        new = name
        for part, replacement in old.items():
            new = new.replace(part, replacement)
        renamed[new] = tensor
    return renamed


def _channels_last(module: Any) -> nn.Module:  # noqa: ANN401, torch's own type lacks this argument
    """Lay weights out so that convolutions take maps with channels last: the decoder takes two thirds of the time."""
    module.to(memory_format=torch.channels_last)
    return cast("nn.Module", module)


def load_state_dict(make: Callable[[], nn.Module], tensors: Tensors, name: str) -> nn.Module:
    """Make a module without memory of its own and give it ``tensors`` of the model called ``name``."""
    with torch.device("meta"):
        module = make()
    try:
        module.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"`model` must hold the tensors of its architecture, but {name} does not fit: {reason}. "
            "Use an unmodified checkpoint, or correct the sizes in its metadata."
        ) from None
    return module.requires_grad_(False).eval()


def align(network: nn.Module) -> None:
    """Copy weights that do not start at a multiple of `ALIGNMENT`."""
    for parameter in network.parameters():
        if parameter.data_ptr() % ALIGNMENT:
            parameter.data = parameter.data.clone()


def use_contiguous_tokens(unet: nn.Module) -> None:
    """Let transformers project tokens ``(E,N,C)`` that lie in memory in this order, not as a view of maps."""
    for module in unet.modules():
        if isinstance(module, Transformer2DModel):
            module.proj_in.register_forward_pre_hook(_contiguous)


def use_plain_attention(vae: Any) -> None:  # noqa: ANN401
    """Let the autoencoder's attention work on maps, with its scores spelled out."""
    for module in vae.modules():
        if isinstance(module, Attention):
            module.set_processor(PlainAttention())  # type: ignore[arg-type]


def fold_doublings(vae: Any) -> None:  # noqa: ANN401
    """Let the autoencoder's decoder double maps by `Doubling`."""
    layers: list[Any] = [layer for layer in vae.decoder.modules() if isinstance(layer, Upsample2D)]
    for layer in layers:
        if can_fold(layer.conv):
            layer.forward = Doubling(layer.conv)


class PlainAttention:
    """diffusers' processor for the single attention of the autoencoder, on maps."""

    def __call__(
        self,
        attention: Any,  # noqa: ANN401
        hidden: Tensor,
        temb: None = None,  # noqa: ARG002
        **_unused: None,
    ) -> Tensor:
        """Return ``(B,C,h,w)`` of ``(B,C,h,w)``; the autoencoder has neither time embedding nor context nor mask."""
        normed = attention.group_norm(hidden)
        layers = (attention.to_q, attention.to_k, attention.to_v)
        query, key, value = (_pointwise(layer, normed).flatten(2) for layer in layers)
        mixed = torch.zeros_like(key)
        step = max(1, MAX_SCORES // key.shape[2])
        for start in range(0, key.shape[2], step):
            part = slice(start, start + step)
            scores = torch.bmm(query.transpose(1, 2)[:, part], key) * key.shape[1] ** -0.5
            mixed[:, :, part] = torch.bmm(value, scores.softmax(2).transpose(1, 2))
        projected: Tensor = _pointwise(attention.to_out[0], mixed.reshape(hidden.shape))
        return hidden + projected


def _pointwise(layer: nn.Linear, maps: Tensor) -> Tensor:
    """Apply a linear layer to each pixel."""
    return F.conv2d(maps, layer.weight[:, :, None, None], layer.bias)


def _contiguous(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.contiguous() if tensor.ndim == 3 else tensor for tensor in inputs)
