"""From widgets to settings, and back to widgets in errors: each widget knows the setting that it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from comfy_api.latest import io

from ...core.config.settings import SETTINGS, Settings, parse_value, replace_parts, replace_values
from ...core.types import InputError, SettingError
from .schema import AUTO

WORDS = {"dtype": "--force-fp32 of ComfyUI"}
"""What people type for arguments of the core that are no widgets."""


def tell_widgets(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Let the errors of a node's ``execute`` name its widgets instead of the settings that they hold."""

    @wraps(execute)
    def executed(node: type[io.ComfyNode], *args: Any, **inputs: Any) -> Any:
        try:
            return execute(node, *args, **inputs)
        except SettingError as error:
            widgets = {key: socket.id for key, socket in _setting_widgets(node).items()}
            raise InputError(error.told({**WORDS, **widgets})).with_traceback(error.__traceback__) from None

    return executed


def read_settings(
    node: type[io.ComfyNode], base: Settings, widgets: Mapping[str, Any], fixed: Mapping[str, Any] | None = None
) -> Settings:
    """Return ``base`` with what the ``widgets`` of a node hold, by their names, and ``fixed`` values by key.

    A widget that leaves the choice to the preset changes nothing; one that is missing, neither.
    """
    values = dict(fixed or {})
    for key, socket in _setting_widgets(node).items():
        value = widgets.get(socket.id)
        if key in SETTINGS and value is not None and value != socket.automatic:
            values[key] = parse_value(SETTINGS[key], value) if isinstance(value, str) else value
    steps, step = values.get("sampling.num_steps"), base.modulation.step
    if steps is not None and "modulation.step" not in values and step >= steps:
        limit = f"be at least {step + 1} while {{0}} is {AUTO}, which stands for step {step}"
        raise SettingError("sampling.num_steps", limit, steps, "Raise it, or choose {0}", "modulation.step")
    return replace_values(base, values)


def _setting_widgets(node: type[io.ComfyNode]) -> dict[str, Any]:
    """Return the widgets of a node that hold settings, by key."""
    sockets = node.define_schema().inputs
    return {socket.setting: socket for socket in sockets if hasattr(socket, "setting")}


def adapt_to_kind(settings: Settings, video_frames: int, layer: str = "spatial") -> Settings:
    """Return ``settings`` with the widgets that concern video models only; an image model has its own.

    ``video_frames`` that a video model sees together: 0 takes those of ``settings``. ``layer`` has the queries.
    """
    if not settings.video.frames:
        if layer != "spatial":
            remedy = "Load Stable Video Diffusion, or choose spatial"
            limit = "be spatial for an image model, which has no temporal layers"
            raise SettingError("video.query_layer", limit, layer, remedy)
        return settings
    windows = {"window": {"length": video_frames}} if video_frames else {}
    return replace_parts(
        settings, video={"frames": video_frames or settings.video.frames, "query_layer": layer}, **windows
    )
