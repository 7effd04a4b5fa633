"""Choose the adapter by what the host's MODEL is."""

from __future__ import annotations

from typing import Any

from ...types import InputError
from ..protocol import FeatureBackbone
from .backbone import ComfyBackbone, Conditioning
from .checks import is_video_model, is_video_vae, is_xl_model
from .svd import ComfySvdBackbone
from .xl import ComfyXl


def model_kind(model: Any) -> str:
    """Return ``svd`` for a MODEL with temporal layers, ``sdxl`` for one of SDXL's levels, else ``sd``."""
    if is_xl_model(model):
        return "sdxl"
    return "svd" if is_video_model(model) else "sd"


def open_backbone(
    model: Any,
    vae: Any,
    positive: Conditioning | None = None,
    negative: Conditioning | None = None,
    clip_vision: Any = None,
    *,
    reads_frames: bool = True,
) -> FeatureBackbone:
    """Return the host's model as a backbone if its parts belong together; ``reads_frames`` needs conditioning."""
    if not is_video_model(model):
        if clip_vision is not None:
            raise InputError(
                "`clip_vision` must not be connected for an image model, but is. Remove the wire, or load Stable Video "
                "Diffusion."
            )
        if is_video_vae(vae):
            raise InputError(
                "`vae` must be that of an image model, but got the one of Stable Video Diffusion, which mixes frames. "
                "Take the VAE of the same checkpoint as the model."
            )
        kind = ComfyXl if is_xl_model(model) else ComfyBackbone
        return kind(model, vae, positive, negative)
    backbone = ComfySvdBackbone(model, vae, positive, negative, clip_vision)
    if reads_frames:
        backbone.require_conditioning()
    return backbone
