"""The host's IMAGE, VIDEO and MASK as the core's frames and label maps."""

from __future__ import annotations

import io as bytes_io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.input_impl import VideoFromFile
from torch import Tensor

from ...core.files.clip import open_clip
from ...core.files.images import LabelReader, Picture
from ...core.method.frames import FrameSource, HeldFrames
from ...core.types import InputError, Progress


@contextmanager
def open_source(frames: Tensor | None, video: Any, progress: Progress) -> Iterator[tuple[FrameSource, tuple[int, int]]]:
    """Open the host's IMAGE or VIDEO, whichever is wired, and tell the size ``(H,W)`` of its frames.

    A video that is a file is decoded frame by frame, never held as a whole.
    """
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


def convert_frames(images: Tensor) -> Tensor:
    """Return IMAGE ``(T,H,W,C)`` as frames ``(T,H,W,3)`` float32 on the CPU: gray becomes RGB, alpha is dropped."""
    if not isinstance(images, Tensor) or images.ndim != 4 or 0 in images.shape:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"`frames` must be a batch of at least one image, but got {shape}. Check the video loader.")
    colors = images[..., :3] if images.shape[-1] >= 3 else images[..., :1].expand(-1, -1, -1, 3)
    return colors.float().cpu()


def convert_label_maps(mask: Tensor) -> Tensor:
    """Return a MASK or IMAGE that shows labels as label maps ``(T,H,W)`` uint8, by the rules of `LabelReader`."""
    if not isinstance(mask, Tensor) or mask.ndim not in (3, 4) or 0 in mask.shape:
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(f"`mask` must be a mask or a label image, but got {shape}. Check the node before.")
    reader = LabelReader("mask")
    for frame in mask:
        reader.look(_convert_picture(frame))
    return torch.stack([reader.read(_convert_picture(frame)) for frame in mask])


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
