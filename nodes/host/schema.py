"""What every node shares: inputs, widgets that know their settings, and differences between versions of the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, get_origin

from comfy_api.latest import io

from ...core.backbones.protocol import SIDE_MULTIPLE
from ...core.config.fields import Part, SettingInfo
from ...core.config.overrides import parse_value
from ...core.config.settings import (
    OWN,
    QUALITIES,
    SETTINGS,
    Settings,
    preset,
    read_setting,
    replace_parts,
    replace_values,
)
from ...core.types import InputError, SettingError, quote
from .progress import NodeDisplay

CATEGORY = "VidSeg"
GROUPS = ("stages", "regions", "masks", "files", "scenes", "checks")
"""Folders of the menu below `CATEGORY`."""
STAGES = (
    "Extract Diffusion Features", "K-Means Init", "Scene Context KNN", "Correspondence Refine",
    "Masked Modulation Upsample",
)  # fmt: skip
"""The stages of the method in their order, by which the menu numbers them."""
AUTO, AUTO_CHOICE = -1, "auto"
"""Values of widgets, of numbers and of words, that leave the choice to the preset of the model's kind."""
OF_KIND = ("sampling.num_steps", "feature.step")
"""Settings whose widgets show the values of Stable Diffusion, though SDXL has others."""
Features = io.Custom("VIDSEG_FEATURES")
AnchorLabels = io.Custom("VIDSEG_ANCHOR_LABELS")
Labels = io.Custom("VIDSEG_LABELS")
ClipCrop = io.Custom("VIDSEG_CROP")
TrackData = io.Custom("SAM3_TRACK_DATA")
_SCHEMA_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}
_TYPES: dict[Any, Any] = {int: io.Int, float: io.Float, bool: io.Boolean}
_Input = TypeVar("_Input", bound=io.Input)


def schema(group: str, **values: Any) -> io.Schema:
    """Return a schema in a group of the menu, without fields that this host does not know (such as search aliases)."""
    values["category"] = f"{CATEGORY}/{GROUPS[GROUPS.index(group)]}"
    name = values["display_name"]
    values["display_name"] = f"{STAGES.index(name) + 1} {name}" if name in STAGES else name
    return io.Schema(**{name: value for name, value in values.items() if name in _SCHEMA_FIELDS})


def advanced(socket: _Input) -> _Input:
    """Mark an input as advanced: folded away where the host can do that."""
    socket.extra_dict = {**(socket.extra_dict or {}), "advanced": True}
    return socket


def model_inputs() -> list[io.Input]:
    """Return the inputs of nodes that run the UNet."""
    return [
        io.Model.Input(
            "model",
            tooltip="A Stable Diffusion 1.x or 2.x model, from Load Checkpoint or Load Demo Model; SDXL, from Load "
            "Checkpoint, for the qualities fast and draft; or Stable Video Diffusion, from Image Only Checkpoint "
            "Loader.",
        ),
        io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
    ]


def conditioning_inputs() -> list[io.Input]:
    """Return the optional prompts."""
    return [
        io.Conditioning.Input(
            "positive",
            optional=True,
            tooltip="The EMPTY prompt from CLIP Text Encode: the method needs no words. Not connected: zeros stand "
            "for it, the model runs without guidance, and regions are somewhat less distinct. Stable Video Diffusion "
            "takes SVD_img2vid_Conditioning instead.",
        ),
        io.Conditioning.Input(
            "negative",
            optional=True,
            tooltip="Zeros, from Conditioning Zero Out (not an empty prompt). Not connected: zeros, which is right.",
        ),
    ]


def clip_vision_input() -> io.Input:
    """Return the optional image encoder of a video model."""
    return io.ClipVision.Input(
        "clip_vision",
        optional=True,
        tooltip="For Stable Video Diffusion only: each window is conditioned on its own first frame, as in the paper. "
        "Not connected: the frame of SVD_img2vid_Conditioning in positive serves for all windows.",
    )


def setting_input(
    name: str, key: str, remark: str = "", *, base: Settings | None = None, automatic: Any = None, **looks: Any
) -> io.Input:
    """Return the widget of a setting, with the looks of its field; ``automatic`` leaves the choice to the preset."""
    about = {**OWN, **SETTINGS}[key]
    if automatic in {None, ""}:
        value = read_setting(base or preset("default"), key)
    else:
        value = automatic if about.choices else about.kind(automatic)
    socket = _field_input(name, about._replace(value=value), tooltip=_describe(key, remark, automatic), **looks)
    socket.automatic = automatic
    return socket


def part_inputs(part: type[Part], looks: Mapping[str, Mapping[str, Any]]) -> list[io.Input]:
    """Return the widgets of what a part of the core lets people set, named in ``looks`` after its fields.

    The part is none of `Settings`: nodes hand it over themselves.
    """
    infos = {info.key.partition(".")[2]: info for info in part.describe()}
    return [_field_input(name, infos[name], tooltip=f"{infos[name].text}.", **own) for name, own in looks.items()]


def _field_input(name: str, about: SettingInfo, **looks: Any) -> io.Input:
    """Return the widget of a field: its kind, default, range or choices, which ``looks`` may change."""
    value, kind = about.value, _TYPES.get(about.kind, io.Combo)
    looks = {"default": value, **looks}
    if isinstance(value, tuple):
        kind, looks["default"] = io.String, ", ".join(map(str, value))
    elif about.low is not None:
        looks |= {"min": about.kind(min(about.low, value)), "max": about.kind(about.high)}
    elif about.choices:
        looks["options"] = [*([] if value in about.choices else [value]), *about.choices]
    socket: io.Input = kind.Input(name, **looks)
    socket.setting, socket.automatic = about.key, None
    return socket


def _describe(key: str, remark: str, automatic: Any) -> str:
    """Return a tooltip: what the field says, its range where the widget has none, what -1 stands for, a remark."""
    about = {**OWN, **SETTINGS}[key]
    parts = [
        f"{about.text}.",
        f"From {about.span}." if get_origin(about.kind) is tuple and about.low is not None else "",
    ]
    if automatic in {AUTO, AUTO_CHOICE}:
        values = (read_setting(preset("default", kind), key) for kind in ("sd", "svd"))
        sd, svd = (f"{value:g}" if automatic == AUTO else value for value in values)
        parts.append(f"{automatic}: {sd} for Stable Diffusion, {svd} for Stable Video Diffusion.")
    return " ".join(filter(None, [*parts, remark]))


def sampling_inputs() -> list[io.Input]:
    """Return the inputs that must be the same in all nodes that run the UNet."""
    same = "Keep the same in Extract Diffusion Features and Masked Modulation Upsample."
    return [
        advanced(setting_input("steps", "sampling.num_steps", same)),
        advanced(setting_input("guidance_scale", "sampling.guidance_scale", same, automatic=AUTO, step=0.1)),
    ]


def frames_input(*, optional: bool = False) -> io.Input:
    """Return the input of nodes that read the video."""
    tooltip = "The frames of the video, as one batch of images in their order."
    return io.Image.Input("frames", optional=optional, tooltip=tooltip)


def quality_input(*, optional: bool = False) -> io.Input:
    """Return the dial between quality and speed."""
    remark = "SDXL takes fast and draft alone. docs/benchmarks.md has measured quality and speed of each."
    return setting_input("quality", "quality", remark, options=list(QUALITIES), optional=optional)


def seed_input(remark: str) -> io.Input:
    """Return a seed that stays as it is from run to run."""
    return setting_input("seed", "sampling.seed", remark, control_after_generate=False)


def granularity_input() -> io.Input:
    """Return how finely regions are divided where their number is chosen automatically."""
    slider = io.NumberDisplay.slider
    return setting_input("granularity", "cluster.granularity", step=0.05, display_mode=slider)


def tiles_input() -> io.Input:
    """Return the size of the tiles in which large frames are read."""
    return advanced(setting_input("tiles", "frame.tiles", step=SIDE_MULTIPLE, optional=True))


def features_input() -> io.Input:
    """Return the features that a stage works on."""
    return Features.Input("features", tooltip="From Extract Diffusion Features.")


def labels_input() -> io.Input:
    """Return labels of any kind."""
    return Labels.Input("labels", tooltip="Labels of any VidSeg node, coarse or in full resolution.")


def regions_input(remark: str) -> io.Input:
    """Return names or ids of regions, read by `selection.chosen_labels`."""
    tooltip = f"Names or ids of regions, separated by commas; 5-8 means all ids from 5 to 8. {remark}"
    return io.String.Input("regions", default="", placeholder="person, 3, 5-8", tooltip=tooltip)


def fps_input() -> io.Input:
    """Return the speed of an animated preview."""
    return io.Float.Input(
        "fps", default=12.0, min=0.1, max=120.0, step=0.5, tooltip="Speed of the preview in the node."
    )


WORDS = {"dtype": "--force-fp32 of ComfyUI"}
"""What people type for arguments of the core that are no widgets."""


def require_in_range(node: type[io.ComfyNode], **values: Any) -> None:
    """Check numbers against the range of their widgets: the host lets NaN pass."""
    for socket in node.define_schema().inputs:
        value = values.get(socket.id)
        low, high = getattr(socket, "min", None), getattr(socket, "max", None)
        if value is not None and low is not None and high is not None and not low <= value <= high:
            raise InputError(f"`{socket.id}` must lie in [{low}, {high}], but got {quote(value)}. Choose a number.")


def tell_widgets(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Let the errors of a node's ``execute`` name its widgets instead of the settings that they hold."""

    @wraps(execute)
    def executed(node: type[io.ComfyNode], *args: Any, **inputs: Any) -> Any:
        try:
            return execute(node, *args, **inputs)
        except SettingError as error:
            widgets = {key: socket.id for key, socket in _setting_widgets(node).items()}
            NodeDisplay.stop_node()
            raise InputError(error.told({**WORDS, **widgets})).with_traceback(error.__traceback__) from None
        except BaseException:
            NodeDisplay.stop_node()
            raise

    return executed


def read_settings(
    node: type[io.ComfyNode], base: Settings, widgets: Mapping[str, Any], fixed: Mapping[str, Any] | None = None
) -> Settings:
    """Return ``base`` with what ``widgets`` hold by name, unless missing or automatic, and ``fixed`` values by key.

    For a model whose layers have names, widgets `OF_KIND` that stand at their defaults leave the choice to ``base``.
    """
    values = dict(fixed or {})
    for key, socket in _setting_widgets(node).items():
        value = widgets.get(socket.id)
        if base.feature.layers and key in OF_KIND and value == socket.default:
            continue
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
    """Return ``settings`` with a video model's frames seen together (0: as they are) and layer of the queries."""
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
