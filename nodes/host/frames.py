"""The host's IMAGE, VIDEO and MASK as the core's frames and label maps, and pictures for people."""

from __future__ import annotations

import io as bytes_io
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from comfy_api.input_impl import VideoFromFile
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...core.files.clip import open_clip
from ...core.files.label_images import LabelReader, Picture
from ...core.method.frames import FrameSource, HeldFrames
from ...core.regions.labels import find_inner_point
from ...core.regions.palette import draw_legend
from ...core.types import Features, InputError, Progress, Region

logger = logging.getLogger(__name__)


@contextmanager
def open_source(frames: Tensor | None, video: Any, progress: Progress) -> Iterator[tuple[FrameSource, tuple[int, int]]]:
    """Open the IMAGE or VIDEO that is wired, a file to be decoded frame by frame; also tell its frames' ``(H,W)``."""
    if (frames is None) == (video is None):
        wired = "both" if frames is not None else "neither"
        raise InputError(
            f"`frames` or `video` must be wired, one of the two, but got {wired}. Wire Load Video to `video` for a "
            "long clip, or images to `frames`."
        )
    if video is not None and not isinstance(video, VideoFromFile):
        frames = video.get_components().images  # made of images in memory
    if frames is not None:
        held = HeldFrames(convert_frames(frames))
        yield held, held.size
        return
    with _file_of(video) as path, open_clip(path, progress) as clip:
        yield clip, clip.info.frame_size


@contextmanager
def _file_of(video: VideoFromFile) -> Iterator[Path]:
    """Yield the path of a video: its own, or that of a copy for one that is trimmed or lies in memory."""
    source = video.get_stream_source()
    trimmed = getattr(video, "get_active_trim_window", lambda: (0.0, 0.0))()
    if not isinstance(source, bytes_io.BytesIO) and not any(trimmed):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(dir=find_temporary_folder(), prefix="vidseg-") as folder:
        path = Path(folder) / f"video.{video.get_container_format().split(',')[0]}"
        video.save_to(str(path))
        yield path


def find_temporary_folder() -> Path:
    """Return the folder for temporary files of the host, which clears it."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def require_images(images: Tensor, name: str = "frames") -> Tensor:
    """Return IMAGE ``(T,H,W,C)`` on the CPU, otherwise as it is."""
    if not isinstance(images, Tensor) or images.ndim != 4 or 0 in images.shape:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"`{name}` must be a batch of at least one image, but got {shape}. Check the video loader.")
    return images.cpu()


def convert_frames(images: Tensor) -> Tensor:
    """Return IMAGE ``(T,H,W,C)`` as frames ``(T,H,W,3)`` float32 on the CPU: gray becomes RGB, alpha is dropped.

    Values beyond [0, 1], as HDR has them, are clipped, which a warning says.
    """
    images = require_images(images)
    colors = (images[..., :3] if images.shape[-1] >= 3 else images[..., :1].expand(-1, -1, -1, 3)).float()
    low, high = (float(value) for value in colors.aminmax())
    if low < 0 or high > 1:
        logger.warning(
            "VidSeg: frames hold values from %.3g to %.3g; what lies beyond 0 and 1 is clipped here. For HDR, map its "
            "tones before: bright areas are one white otherwise.",
            low,
            high,
        )
        colors = colors.clamp(0, 1)
    return colors


def convert_label_maps(mask: Tensor) -> Tensor:
    """Return a MASK or IMAGE that shows labels as label maps ``(T,H,W)`` uint8, by the rules of `LabelReader`."""
    maps = read_label_maps(mask)
    converted = torch.empty(mask.shape[:3], dtype=torch.uint8)
    for number, labels in enumerate(maps):
        converted[number] = labels
    return converted


def read_label_maps(mask: Tensor) -> Iterator[Tensor]:
    """Return the label maps ``(H,W)`` uint8 of a MASK or IMAGE one by one, once all of it is seen to hold labels."""
    if not isinstance(mask, Tensor) or mask.ndim not in (3, 4) or 0 in mask.shape:
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(f"`mask` must be a mask or a label image, but got {shape}. Check the node before.")
    reader = LabelReader("mask")
    for frame in mask:
        reader.look(_convert_picture(frame))
    return (reader.read(_convert_picture(frame)) for frame in mask)


def _convert_picture(frame: Tensor) -> Picture:
    """Return a frame ``(H,W)`` or ``(H,W,C)`` in [0, 1]; alpha is dropped."""
    levels = (frame.float().cpu() * 255).round().clamp(0, 255).to(torch.uint8)
    if levels.ndim == 3:
        levels = levels[..., :3] if levels.shape[-1] >= 3 else levels[..., 0]
    return Picture(levels)


def convert_label_map(mask: Tensor, which: str) -> Tensor:
    """Return the label map ``(H,W)`` uint8 of a single MASK or IMAGE, that of ``which`` frame."""
    maps = convert_label_maps(mask)
    if len(maps) != 1:
        raise InputError(
            f"`mask` must be one picture, that of {which}, but got {len(maps)}. Pick it with ImageFromBatch; of a "
            "batch of masks after Convert Mask to Image."
        )
    if len(torch.unique(maps)) < 2:
        raise InputError(
            f"`mask` must show at least two classes in {which}, but it is empty or all the same. Paint the mask, or "
            "check that the image has one."
        )
    return maps[0]


def tell_stretched(mask: Tensor, size: tuple[int, int]) -> str:
    """Return a sentence about a mask ``(H,W)`` of another size (height, width) than the frames, or nothing."""
    height, width = (int(side) for side in mask.shape)
    if (height, width) == size:
        return ""
    return f"The mask of {width}x{height} was stretched to the frames, {size[1]}x{size[0]}."


def tell_distorted(mask: Tensor, grid: tuple[int, int]) -> str:
    """Return a sentence about a mask ``(H,W)`` whose shape is not that of a ``grid`` of cells, or nothing."""
    height, width = (int(side) for side in mask.shape)
    if abs(grid[0] * width / height - grid[1]) <= 1:  # the last column may be a part of a cell
        return ""
    return f"The mask of {width}x{height} has another shape than the frames, and was stretched to it."


_MARGIN = 8
"""Pixels between a preview and its legend."""
_OUTLINE = 2
"""Pixels of the dark line around a tag."""
_MOST_COLUMNS, _SHEET_ASPECT = 8, 1.7
"""Columns of the legend beside a preview, and width to height of the room in a node that it should fill."""
_TAGGED_SHARE = 1 / 1000
"""Part of the picture that a region must cover to get a tag."""


def draw_tags(frames: Tensor, maps: Tensor, regions: tuple[Region, ...]) -> Tensor:
    """Write the id and name of each region on ``frames`` ``(T,H,W,3)``, inside the region if there is room."""
    font = ImageFont.load_default(max(10, frames.shape[1] // 24))
    tagged = []
    for frame, labels in zip(frames, maps, strict=True):
        image = Image.fromarray((frame * 255).round_().clamp_(0, 255).to(torch.uint8).numpy())
        for label, name in regions:
            inside = labels == label
            if int(inside.sum()) >= max(1, _TAGGED_SHARE * inside.numel()):
                x, y = find_inner_point(inside)
                text = str(label) if name in (f"region {label}", f"label {label}") else f"{label} {name}"
                _write(image, (x * image.width, y * image.height), (text, str(label)), font)
        tagged.append(torch.from_numpy(np.array(image)).float() / 255)
    return torch.stack(tagged)


def _write(image: Image.Image, spot: tuple[float, float], texts: tuple[str, ...], font: Any) -> None:
    """Write the first of ``texts`` that ``image`` is wide enough for, or the last, centered on ``spot`` if it fits."""
    draw = ImageDraw.Draw(image)
    style: dict[str, Any] = {"font": font, "stroke_width": _OUTLINE, "anchor": "mm"}
    boxes = [(text, draw.textbbox((0, 0), text, **style)) for text in texts]
    text, (left, top, right, bottom) = next(
        (pair for pair in boxes if pair[1][2] - pair[1][0] <= image.width), boxes[-1]
    )
    x = max(-left, min(spot[0], image.width - right))
    y = max(-top, min(spot[1], image.height - bottom))
    draw.text((x, y), text, fill="white", stroke_fill="black", **style)


def fit_legend(size: tuple[int, int], regions: tuple[Region, ...]) -> Tensor:
    """Return a legend ``(H,W,3)`` float32 that leaves frames of ``size`` largest in a node when it is beside them."""
    frame_height, frame_width = size
    tables = [draw_legend(regions, -(-len(regions) // columns)) for columns in range(1, _MOST_COLUMNS + 1)]
    sizes = [max(frame_width + table.shape[1], _SHEET_ASPECT * max(frame_height, table.shape[0])) for table in tables]
    return tables[sizes.index(min(sizes))].float() / 255


def draw_beside(frames: Tensor, legend: Tensor) -> Tensor:
    """Return ``frames`` ``(T,H,W,3)`` on white with a legend ``(h,w,3)`` at their right."""
    frame_height, frame_width = frames.shape[1:3]
    height, left = max(frame_height, legend.shape[0]), frame_width + _MARGIN
    sheet = torch.ones(len(frames), height, left + legend.shape[1], 3)
    sheet[:, :frame_height, :frame_width] = frames
    sheet[:, : legend.shape[0], left:] = legend
    return sheet


def reduce_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Return height and width with the longer one at most ``longest`` pixels."""
    scale = min(1.0, longest / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def reduce_frames(frames: Tensor, longest: int) -> Tensor:
    """Return ``frames`` ``(T,H,W,3)`` with the longer side at most ``longest`` pixels."""
    old = (int(frames.shape[1]), int(frames.shape[2]))
    size = reduce_size(old, longest)
    if size == old:
        return frames
    planes = F.interpolate(frames.movedim(-1, 1), size, mode="bilinear", antialias=True, align_corners=False)
    return planes.movedim(1, -1).clamp(0, 1)


def project_to_colors(features: Features) -> Tensor:
    """Return the three main directions of the features as RGB ``(T,h,w,3)`` in [0, 1], the same for all frames."""
    tokens = features.queries.float().flatten(0, 1)
    centered = tokens - tokens.mean(0)
    _, vectors = torch.linalg.eigh(centered.T @ centered)
    colors = centered @ vectors[:, -3:].flip(-1)
    low, high = colors.quantile(torch.tensor([0.01, 0.99]), dim=0) if len(colors) < 2**24 else colors.aminmax(dim=0)
    scaled = ((colors - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    return scaled.reshape(features.num_frames, *features.grid, 3)
