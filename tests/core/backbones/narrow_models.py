"""Narrow models with random weights in which no norm is an identity and no bias is zero."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from vidseg.core.checkpoints.describe import CONDITIONING_KEY, POOLED_KEY
from vidseg.core.checkpoints.sizes import ModelSizes, UNetSizes, VAESizes

from ...narrow_checkpoint import NARROW_SVD, NARROW_XL, random_model

VAE = VAESizes(ch=32, ch_mult=(1, 1, 1, 2))
"""An autoencoder that widens once: a third of the time of one with the usual widths."""
SD2 = ModelSizes(UNetSizes(32, num_head_channels=32, context_dim=64), VAE)
"""Shape of SD 2.1: linear projections, heads of constant width."""
SD1 = ModelSizes(
    UNetSizes(32, num_heads=4, context_dim=48, use_linear_in_transformer=False), VAE, prediction_type="v_prediction"
)
"""Shape of SD 1.x: convolutions as projections, a constant number of heads; v-prediction for variety."""
SVD = replace(NARROW_SVD, vae=VAE)
"""Shape of Stable Video Diffusion: temporal layers, 8 input channels, told three numbers, no text."""
XL = replace(NARROW_XL, vae=replace(NARROW_XL.vae, ch_mult=(1, 1, 1, 1)))
"""Shape of SDXL: three levels, ten transformer blocks on the coarsest, told a pooled text and sizes."""


def _thin(sizes: ModelSizes) -> ModelSizes:
    # Two channels in each group of a norm, so that a frame of 64x64, which is one cell on the last level, has some.
    unet = replace(sizes.unet, channel_mult=(1, 1, 2, 2))
    return replace(sizes, unet=unet, vae=replace(sizes.vae, ch_mult=(1, 1, 1, 1)))


THIN = _thin(SD2)
"""SD 2.1 with hardly more channels on coarse levels, half as slow: where there must be a model of any width."""
THIN_SVD = _thin(SVD)
"""The same of Stable Video Diffusion."""


def narrow_model(path: Path, sizes: ModelSizes = SD2) -> Path:
    """Write a narrow model with its empty prompt to ``path`` and return it."""
    path.write_bytes(_content(sizes))
    return path


@cache
def _content(sizes: ModelSizes) -> bytes:
    """Return the file of a narrow model, which is made once in each test process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        random_model(path, sizes=sizes)
        tensors = load_file(path)
        generator = torch.Generator().manual_seed(7)
        for name, value in tensors.items():
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith("mix_factor") or name in {CONDITIONING_KEY, POOLED_KEY}:
                tensors[name] = noise
            elif value.ndim == 1:
                tensors[name] = value + 0.1 * noise
        return save(tensors, sizes.to_metadata())


def sparse_model(path: Path, shapes: Iterable[tuple[str, tuple[int, ...]]], filled: Mapping[str, Tensor]) -> Path:
    """Write a float16 file of any size whose tensors are zero, except those of ``filled``; zeros take no disk."""
    entries, offset, places = {}, 0, {}
    for name, shape in shapes:
        end = offset + 2 * int(np.prod(shape))
        entries[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, end]}
        places[name], offset = offset, end
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name, value in filled.items():
            file.seek(8 + len(header) + places[name])
            file.write(value.half().numpy().tobytes())
        file.truncate(8 + len(header) + offset)
    return path
