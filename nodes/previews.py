"""Look at regions and features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from comfy_api.latest import io, ui
from torch import Tensor

from ..core.regions.palette import draw_legend, draw_overlay
from ..core.types import Features
from .host.frames import (
    convert_frames,
    draw_beside,
    draw_tags,
    fit_legend,
    project_to_colors,
    reduce_frames,
    reduce_size,
)
from .host.labels import Labels, require_frames_of
from .host.progress import NodeProgress
from .host.schema import features_input, fps_input, labels_input, schema

PREVIEW_SIDE = 512
"""Longer side of what is shown inside a node, pixels."""
MAX_PREVIEW_FRAMES = 60
"""Frames shown inside a node at most; of longer clips every second, third ... frame."""


class SmallFrames(Sequence[Tensor]):
    """Frames ``(T,H,W,3)`` as they are shown inside a node, each made when it is asked for."""

    def __init__(self, frames: Tensor, legend: Tensor | None) -> None:
        self._frames, self._legend = frames, legend

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._frames)

    def __getitem__(self, number: Any) -> Any:
        """Return a frame ``(H,W,3)`` with the legend beside it."""
        small = reduce_frames(self._frames[number][None].float(), PREVIEW_SIDE)
        return (small if self._legend is None else draw_beside(small, self._legend))[0]


def choose_shown(frames: Tensor, fps: float, node: type[io.ComfyNode], legend: Tensor | None = None) -> ui.SavedImages:
    """Return ``frames`` ``(T,H,W,3)`` as what the host shows inside the node: one small animated picture."""
    stride = -(-len(frames) // MAX_PREVIEW_FRAMES)
    small = SmallFrames(frames[::stride], legend)
    saved = ui.ImageSaveHelper.save_animated_webp(
        small, "vidseg_preview", folder_type=io.FolderType.temp, cls=node, fps=fps / stride, lossless=False, quality=80,
        method=2,
    )  # fmt: skip
    return ui.SavedImages([saved], is_animated=len(small) > 1)


class PreviewRegions(io.ComfyNode):
    """Overlay of the regions with ids, names and a legend."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "checks",
            node_id="PreviewRegions",
            display_name="Preview Regions",
            description="Show the regions over the video with their ids and names. A region keeps its color in every "
            "frame, preview and export.",
            search_aliases=["vidseg", "overlay", "show segmentation", "legend"],
            is_output_node=True,
            inputs=[
                io.Image.Input("frames", tooltip="The frames that were segmented."),
                labels_input(),
                io.Float.Input(
                    "opacity", default=0.5, min=0.0, max=1.0, step=0.05, tooltip="Of the colors over the frames."
                ),
                io.Boolean.Input("tags", default=True, tooltip="Write ids and names on the regions."),
                fps_input(),
            ],
            outputs=[
                io.Image.Output("overlay", display_name="overlay"),
                io.Image.Output("legend", display_name="legend"),
            ],
        )

    @classmethod
    def execute(cls, frames: Tensor, labels: Labels, opacity: float, tags: bool, fps: float) -> io.NodeOutput:
        """Draw the overlay."""
        frames = convert_frames(frames)
        require_frames_of(labels, frames)
        progress = NodeProgress(has_text=False)
        maps, regions = labels.full(progress).maps, labels.regions
        painted = torch.empty_like(frames)
        for number in range(len(frames)):
            one = slice(number, number + 1)
            picture = draw_overlay(frames[one], maps[one], opacity)
            painted[one] = draw_tags(picture, maps[one], regions) if tags else picture
            progress("overlay", number + 1, len(frames))
        legend = fit_legend(reduce_size(labels.frame_size, PREVIEW_SIDE), regions)
        key = draw_legend(regions).float()[None] / 255
        return io.NodeOutput(painted, key, ui=choose_shown(painted, fps, cls, legend))


class PreviewFeatures(io.ComfyNode):
    """Features as colors."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "checks",
            node_id="PreviewFeatures",
            display_name="Preview Features",
            description="Show features as colors (their three main directions): things that look alike to the model "
            "have the same color in all frames.",
            search_aliases=["vidseg", "pca", "visualize features"],
            is_output_node=True,
            inputs=[features_input(), fps_input()],
            outputs=[io.Image.Output("image", display_name="image")],
        )

    @classmethod
    def execute(cls, features: Features, fps: float) -> io.NodeOutput:
        """Draw the features in the size of the frames, one rectangle per cell."""
        cells = project_to_colors(features).movedim(-1, 1)
        colors = F.interpolate(cells, features.frame_size, mode="nearest-exact").movedim(1, -1)
        return io.NodeOutput(colors, ui=choose_shown(colors, fps, cls))
