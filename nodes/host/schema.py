"""Small differences between versions of the host, in one place; and what every node shares."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from comfy_api.latest import io

from ...core.config.settings import QUALITIES

CATEGORY = "VidSeg"
AUTO = -1
"""Value of a widget that leaves the choice to the preset of the model's kind."""
MAX_SEED = 2**32 - 1
"""Largest seed of K-means."""
Features = io.Custom("VIDSEG_FEATURES")
AnchorLabels = io.Custom("VIDSEG_ANCHOR_LABELS")
Labels = io.Custom("VIDSEG_LABELS")
_SCHEMA_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}
_Input = TypeVar("_Input", bound=io.Input)


def schema(**values: Any) -> io.Schema:
    """Return a schema without the fields that this version of the host does not know (such as search aliases)."""
    values.setdefault("category", CATEGORY)
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
            tooltip="A Stable Diffusion 1.x or 2.x model, from Load Checkpoint or Load Demo Model; or Stable Video "
            "Diffusion, from Image Only Checkpoint Loader.",
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


def chosen(**values: float) -> dict[str, float]:
    """Return the values that a person chose: those that are not `AUTO`."""
    return {name: value for name, value in values.items() if value != AUTO}


def sampling_inputs(config: Any) -> list[io.Input]:
    """Return the inputs that must be the same in all nodes that run the UNet; ``config`` holds the defaults."""
    return [
        advanced(
            io.Int.Input(
                "steps",
                default=config.num_steps,
                min=1,
                max=1000,
                tooltip="Sampling steps of the whole schedule, of which only the last few run. Keep the same in "
                "Extract Diffusion Features and Masked Modulation Upsample.",
            )
        ),
        advanced(
            io.Float.Input(
                "guidance_scale",
                default=float(AUTO),
                min=float(AUTO),
                max=30.0,
                step=0.1,
                tooltip="Classifier-free guidance between positive and negative. -1: 5 for Stable Diffusion; for "
                "Stable Video Diffusion 1 in the first frame of a window, rising to 2.5 in the last. Keep the same in "
                "both nodes.",
            )
        ),
    ]


def frames_input(*, optional: bool = False) -> io.Input:
    """Return the input of nodes that read the video."""
    tooltip = "The frames of the video, as one batch of images in their order."
    return io.Image.Input("frames", optional=optional, tooltip=tooltip)


def quality_input(*, optional: bool = False) -> io.Input:
    """Return the dial between quality and speed."""
    return io.Combo.Input(
        "quality",
        options=list(QUALITIES),
        default="exact",
        optional=optional,
        tooltip="exact: the paper's method, every region modulated by itself; slowest. balanced: regions that lie "
        "apart share a modulated pass of one step. fast: no modulation, borders follow the edges of the picture. "
        "draft: likewise, with quicker features. The README has measured quality and speed of each.",
    )


def seed_input(default: int, tooltip: str) -> io.Input:
    """Return a seed that stays as it is from run to run."""
    return io.Int.Input("seed", default=default, min=0, max=MAX_SEED, control_after_generate=False, tooltip=tooltip)


def max_side_input(default: int) -> io.Input:
    """Return the size at which frames are processed."""
    return io.Int.Input(
        "max_side",
        default=default,
        min=0,
        max=16384,
        step=64,
        tooltip="Reduce frames to this longer side before processing; 0 keeps their size. Smaller is faster and "
        "coarser. Labels always come back in the size of the frames.",
    )


def num_clusters_input(default: int) -> io.Input:
    """Return the number of regions, as many as label maps can hold beside 255 for void."""
    tooltip = (
        "Number of regions. Few for a subject before a background, 20 for a whole scene; 0 chooses by granularity."
    )
    return io.Int.Input("num_clusters", default=default, min=0, max=255, tooltip=tooltip)


def granularity_input(default: float) -> io.Input:
    """Return how finely regions are divided where their number is chosen automatically."""
    return io.Float.Input(
        "granularity",
        default=default,
        min=0.0,
        max=1.0,
        step=0.05,
        display_mode=io.NumberDisplay.slider,
        tooltip="Only with num_clusters 0: share of the variety of the first picture that regions must explain. More "
        "gives more and smaller regions.",
    )


def window_length_input(default: int, remark: str, *, least: int = 1) -> io.Input:
    """Return the length of a window in frames; ``remark`` ends the tooltip."""
    tooltip = f"Frames that are labeled together before the memory moves on{remark}"
    return io.Int.Input("window_length", default=default, min=least, max=10_000, tooltip=tooltip)


def step_input(name: str, default: int, tooltip: str) -> io.Input:
    """Return an advanced input that numbers a sampling step; with `AUTO` as default it takes that too."""
    return advanced(io.Int.Input(name, default=default, min=min(0, default), max=999, tooltip=tooltip))


def block_input(name: str, default: int, blocks: tuple[int, ...], tooltip: str) -> io.Input:
    """Return an advanced input that numbers one of the decoder ``blocks``; as default `AUTO` is allowed."""
    return advanced(io.Int.Input(name, default=default, min=min(*blocks, default), max=max(blocks), tooltip=tooltip))


def choice_input(name: str, options: list[str], default: str, tooltip: str, *, optional: bool = False) -> io.Input:
    """Return an advanced input with a few options."""
    return advanced(io.Combo.Input(name, options=options, default=default, tooltip=tooltip, optional=optional))


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
