"""Let diffusers' modules compute, on a CPU, exactly what other implementations of Stable Diffusion compute.

Two programs that multiply the same matrices get the same bits only if memory is laid out alike: a library of linear
algebra picks its kernels by strides and by alignment. With the steps below features, decodes and so labels of this
program and of the ComfyUI nodes are equal, not merely close (`tests/nodes/test_in_host_chain.py`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

ALIGNMENT = 64
"""Bytes to which torch aligns memory of its own; tensors that lie in a mapped file may start anywhere."""
MAX_SCORES = 2**26
"""Attention scores of the autoencoder held at once, at most."""


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
