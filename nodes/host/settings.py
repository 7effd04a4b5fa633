"""Settings by the names of the widgets that fill them, so that an error names what a person sees."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any

from ...core.config.settings import Settings, replace_parts
from ...core.types import InputError
from .schema import AUTO

WIDGETS = {
    "frame.max_side": ("max_side",),
    "sampling.num_steps": ("steps",),
    "sampling.guidance_scale": ("guidance_scale",),
    "sampling.seed": ("seed",),
    "feature.step": ("feature_step",),
    "feature.blocks": ("blocks",),
    "feature.matching_block": ("matching_block",),
    "window.length": ("window_length",),
    "anchor": ("anchor_frame",),
    "cluster.num_clusters": ("num_clusters",),
    "cluster.num_restarts": ("num_restarts",),
    "cluster.granularity": ("granularity",),
    "context.num_neighbors": ("num_neighbors",),
    "refinement.spatial_threshold": ("spatial_threshold",),
    "modulation.step": ("start_step", "modulation_step"),
    "modulation.block": ("block",),
    "modulation.factor": ("modulation_factor",),
    "difference.filter_strength": ("filter_strength",),
    "video.frames": ("video_frames",),
}
"""Widgets that a setting has, each in other nodes."""


def name_widgets(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Let the errors of a node's ``execute`` name the widgets among its parameters instead of settings."""
    own = signature(execute).parameters
    names = {setting: widget for setting, widgets in WIDGETS.items() for widget in widgets if widget in own}

    @wraps(execute)
    def executed(*args: Any, **inputs: Any) -> Any:
        try:
            return execute(*args, **inputs)
        except InputError as error:
            raise error.calling(names).with_traceback(error.__traceback__) from None

    return executed


def find_modulated_step(settings: Settings, step: int, steps: int) -> int:
    """Return the modulated step that a widget chose, or that of ``settings`` for `AUTO`.

    Raises:
        InputError: `AUTO` stands for a step that ``steps`` do not reach.
    """
    automatic = settings.modulation.step
    if step == AUTO and automatic >= steps:
        raise InputError(
            f"`steps` must be at least {automatic + 1} while `modulation.step` is {AUTO}, which stands for step "
            f"{automatic}, but got {steps}. Raise it, or choose `modulation.step`."
        )
    return automatic if step == AUTO else step


def adapt_to_kind(settings: Settings, video_frames: int, layer: str = "spatial") -> Settings:
    """Return ``settings`` with the widgets that concern video models only; an image model has its own.

    Args:
        settings: of the kind of the model.
        video_frames: frames that a video model sees together; 0 takes those of ``settings``.
        layer: whose queries are the features, ``spatial`` or ``temporal``.

    Raises:
        InputError: temporal layers are asked of an image model.
    """
    if not settings.video.frames:
        if layer != "spatial":
            raise InputError(
                f"`layer` must be spatial for an image model, which has no temporal layers, but got {layer}. Load "
                "Stable Video Diffusion, or choose spatial."
            )
        return settings
    windows = {"window": {"length": video_frames}} if video_frames else {}
    return replace_parts(
        settings, video={"frames": video_frames or settings.video.frames, "query_layer": layer}, **windows
    )
