"""Settings of a video model from the widgets of a node."""

from __future__ import annotations

from ..core.config.settings import Settings, changed
from ..core.types import InputError


def of_kind(settings: Settings, video_frames: int, layer: str = "spatial") -> Settings:
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
    return changed(settings, video={"frames": video_frames or settings.video.frames, "query_layer": layer}, **windows)
