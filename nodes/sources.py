"""Frames of a clip as the core reads them: from a batch of images in memory, or from a video file as it plays."""

from __future__ import annotations

import io as bytes_io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.input_impl import VideoFromFile
from torch import Tensor

from ..core.files.clip import open_clip
from ..core.method.frames import FrameSource, check_frames
from ..core.types import InputError, Progress
from .images import as_frames


class HeldFrames:
    """`FrameSource` over frames in memory."""

    def __init__(self, frames: Tensor) -> None:
        """Hold ``frames`` ``(T,H,W,3)``."""
        self._frames = frames

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self._frames)

    def read(self, start: int, stop: int) -> Tensor:
        """Return frames ``start`` (included) to ``stop`` (excluded)."""
        return self._frames[start:stop]


@contextmanager
def open_source(frames: Tensor | None, video: Any, progress: Progress) -> Iterator[tuple[FrameSource, tuple[int, int]]]:
    """Open the images, or the video, whichever is wired.

    Args:
        frames: the host's IMAGE, or None.
        video: the host's VIDEO, or None. One that is a file is decoded frame by frame, never held as a whole.
        progress: called while a video file is checked.

    Yields:
        The frames, and their size ``(H,W)``.

    Raises:
        InputError: both or neither are wired, or the video cannot be read.
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
        held = as_frames(frames)
        check_frames(held)
        yield HeldFrames(held), (int(held.shape[1]), int(held.shape[2]))
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
    with tempfile.TemporaryDirectory(dir=temporary_folder(), prefix="vidseg-") as folder:
        path = Path(folder) / f"video.{video.get_container_format().split(',')[0]}"
        video.save_to(str(path))
        yield path


def temporary_folder() -> Path:
    """Return the folder for temporary files of the host, which clears it."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder
