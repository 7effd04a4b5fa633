"""Fuse the layers of diffusers' networks with torch.compile: optional, for long runs on a GPU.

Results differ from those without it by rounding. The first window pays for minutes of compiling, so short clips lose.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ...types import InputError

MAX_VARIANTS = 256
"""Most compiled variants (module, shape of input) of one function; torch gives up at 8 by default."""


def compile_networks(unet: nn.Module, vae: nn.Module, *, device: torch.device, backend: str = "inductor") -> None:
    """Compile both networks, in place and part by part, so that passes which start inside the decoder profit as well.

    Parts are compiled when they are first called, and again for another shape of input.

    Args:
        unet: diffusers' UNet of images.
        vae: diffusers' autoencoder.
        device: where they run.
        backend: of torch.compile.

    Raises:
        InputError: this machine cannot compile for the device.
    """
    if backend == "inductor":
        _require_compiler(device)
    limits: Any = torch._dynamo.config
    name = "recompile_limit" if hasattr(limits, "recompile_limit") else "cache_size_limit"  # before torch 2.6
    setattr(limits, name, max(MAX_VARIANTS, getattr(limits, name)))
    for part in _parts(unet, vae):
        part.compile(backend=backend)


def _parts(unet: Any, vae: Any) -> Iterator[nn.Module]:  # noqa: ANN401
    """Yield the largest modules that the passes of `unet_passes` call as a whole."""
    yield from (vae.encoder, vae.decoder, *unet.down_blocks, unet.mid_block)
    for group in unet.up_blocks:
        yield from (*group.resnets, *(group.upsamplers or ()))
        yield from (layer.transformer_blocks[0].ff for layer in getattr(group, "attentions", ()))


def _require_compiler(device: torch.device) -> None:
    try:
        torch.compile(torch.nn.functional.silu)(torch.zeros(8, device=device))
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(
            f"`--compile` must find a compiler for {device.type}, but torch.compile failed: {reason}. Leave it out, or "
            "install Triton for a GPU or a C++ compiler for a CPU."
        ) from error
