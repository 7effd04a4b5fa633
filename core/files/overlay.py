"""The overlay of a result: its frames with the colors of their labels."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ..regions.palette import paint_pixels
from ..types import Progress
from .clip import Clip
from .result_folder import OVERLAY_FILE, ResultFolder
from .video import write_video

OVERLAY_STAGE = "overlay"
"""Name of the stage that writes the video at the end."""


def write_overlay(folder: ResultFolder, clip: Clip, progress: Progress) -> None:
    """Write the overlay of the label maps that are in ``folder``."""
    info, pictures = clip.info, _draw_frames(folder, clip, progress)
    folder.write_file(OVERLAY_FILE, lambda path: write_video(path, pictures, info.fps, info.times))


def _draw_frames(folder: ResultFolder, clip: Clip, progress: Progress) -> Iterator[Tensor]:
    """Yield frames with the colors of their labels, ``(H,W,3)`` uint8."""
    for number, (frame, label_map) in enumerate(zip(clip.show(), folder.read_label_maps(clip.num_frames), strict=True)):
        yield paint_pixels(frame, label_map)
        progress(OVERLAY_STAGE, number + 1, clip.num_frames)
