"""A vision model of transformers, DINOv2 or DINOv3, as a source of features: the yardstick of diffusion features."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ...checkpoints.files import read_config
from ...checkpoints.vision import VisionDescription
from ...types import InputError, require_shape
from ..protocol import PIXELS_PER_CELL, BackboneInfo, Layer

PATCH_LAYER = "patch"
"""The one layer that is read: what the model says of each patch at its end."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of colors, where the folder's preprocessor_config.json does not tell them."""


class VisionModel:
    """A `VisionBackbone`. Use `load_diffusers` to make one.

    Frames are resized so that each patch of the model is a coarse cell of 16 pixels.
    """

    def __init__(self, description: VisionDescription, dtype: torch.dtype, device: torch.device) -> None:
        from transformers import AutoModel  # noqa: PLC0415, takes a second to import

        self.description, self.device = description, device
        try:
            model: Any = AutoModel.from_pretrained(
                description.path, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=dtype
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"`features` must be readable, but {description.path.name} is not: {reason}.") from None
        self._model = model.eval().requires_grad_(False).to(device)
        self._colors = _read_colors(description)

    @cached_property
    def info(self) -> BackboneInfo:
        """What the model is; the first use reads the files for their fingerprint."""
        model = self.description
        return BackboneInfo(model.path.resolve().name, model.kind, "none", model.fingerprint)

    @torch.no_grad()
    def read_frames(self, frames: Tensor, layers: Sequence[Layer]) -> tuple[Tensor, ...]:
        """Return the patches ``(T,N,C)`` of frames ``(T,H,W,3)``; see `VisionBackbone.read_frames`."""
        sizes = require_shape("frames", frames, "T H W 3")
        unknown = [layer for layer in layers if layer != PATCH_LAYER]
        if unknown or not layers:
            raise InputError(f"`layers` must be {PATCH_LAYER} with a vision model, but got {unknown or 'none'}.")
        height, width = sizes["H"] // PIXELS_PER_CELL, sizes["W"] // PIXELS_PER_CELL
        size, pictures = (height * self.description.patch, width * self.description.patch), frames.movedim(-1, 1)
        pictures = pictures.to(self.device, torch.float32)
        if tuple(pictures.shape[2:]) != size:
            pictures = F.interpolate(pictures, size, mode="bicubic", antialias=True).clamp(0, 1)
        mean, deviation = (pictures.new_tensor(values)[:, None, None] for values in self._colors)
        inputs = ((pictures - mean) / deviation).to(self._model.dtype)
        tokens = self._model(pixel_values=inputs).last_hidden_state[:, -height * width :]  # behind class and registers
        return (tokens.float().cpu(),) * len(layers)


def _read_colors(description: VisionDescription) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and standard deviation of colors, as the folder tells them."""
    path = description.path / "preprocessor_config.json"
    told = read_config(path) if path.is_file() else {}
    return told.get("image_mean", MEAN), told.get("image_std", DEVIATION)
