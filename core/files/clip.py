"""Read a clip, a video file or a folder of images, frame by frame, after checking all of it once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from copy import copy
from functools import partial
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..types import InputError, Progress, SettingError, no_progress
from .images import IMAGE_SUFFIXES, as_levels, as_share, natural_key, read_all_pixels, read_durations, read_pixels
from .video import VideoStream, find_variable_times

CHECK_STAGE = "check input"
"""Name of the stage that reads every frame once before any long work."""
FRAMES_FOLDER = "frames"
"""Folder inside a clip's folder that holds its frames, beside ``masks`` and others."""
_CHUNK = 1 << 20  # bytes read at a time
SizeCheck = Callable[[tuple[int, int]], None]
"""Refuses a size ``(H, W)`` by raising `InputError`."""
_Number = TypeVar("_Number", np.float32, np.uint8)
FrameReader = Generator[tuple[str, NDArray[np.float32]], int | None, None]
"""Yields frames and what to call them; a number that is sent skips the frames before it."""


class ClipInfo(NamedTuple):
    """What is known of a clip before it is processed."""

    name: str
    num_frames: int
    frame_size: tuple[int, int]  # (H, W)
    fps: float | None  # average; None for images
    times: tuple[float, ...] | None  # second of each frame, for a variable frame rate
    fingerprint: str  # SHA-256 of the content of all files in order, hexadecimal
    frame_names: tuple[str, ...] | None = None  # of image files, without ending


class _Frames(Protocol):
    """Where frames come from; `Clip` adds the checks. Each frame comes with what to call it in a message."""

    def frames(self, start: int) -> FrameReader:
        """Yield the frames ``(H,W,3)`` from number ``start`` on."""

    def levels(self) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """Yield all frames ``(H,W,3)`` in 8 bits."""

    def sizes(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yield the size ``(H,W)`` of all frames, each of which is decoded and in order."""

    def files(self) -> list[Path]:
        """Return the files in order."""


class _Images:
    """Images in the order of their names, or the pictures of one file."""

    def __init__(self, paths: list[Path], *, is_animation: bool = False) -> None:
        self._paths, self._is_animation = paths, is_animation

    def frames(self, start: int) -> FrameReader:
        wanted = start
        for number, (label, read) in enumerate(self._pictures()):
            if number >= wanted:
                wanted = (yield label, as_share(read())) or 0

    def levels(self) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        for label, read in self._pictures():
            yield label, as_levels(read())

    def sizes(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for label, read in self._pictures():
            pixels = read()
            if pixels.dtype != np.uint8 and not (pixels.min() >= 0 and pixels.max() <= 1):  # also false for NaN
                limit, remedy = "hold finite values in [0, 1]", "Write the frame again, as an 8-bit image if in doubt"
                raise SettingError("input", limit, f"{label}, which holds NaN or values beyond", remedy)
            yield label, (pixels.shape[0], pixels.shape[1])

    def files(self) -> list[Path]:
        return self._paths

    def _pictures(self) -> Iterator[tuple[str, Callable[[], NDArray[Any]]]]:
        """Yield what to call each picture, and what reads it."""
        if not self._is_animation:
            return ((path.name, partial(read_pixels, path)) for path in self._paths)
        (path,) = self._paths
        pictures = enumerate(read_all_pixels(path))
        return ((f"picture {number} of {path.name}", partial(np.asarray, pixels)) for number, pixels in pictures)


class Clip:
    """A checked clip. It reads forward; reading back starts again at the first frame.

    Frames of a video that are skipped are decoded, but not converted.
    """

    def __init__(self, source: _Frames, info: ClipInfo) -> None:
        self.info = info
        self._source = source
        self._position = 0
        self._frames = source.frames(0)
        self._files = source.files()
        self._seen = _sign(self._files)
        self._lock = Lock()  # another thread may read ahead when the clip is closed

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return self.info.num_frames

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            self._frames.close()

    def read(self, start: int, stop: int) -> Tensor:
        """Return frames ``start`` (included) to ``stop`` (excluded), ``(T,H,W,3)`` float32 in [0, 1]."""
        if not 0 <= start < stop <= self.num_frames:
            raise InputError(f"`start`, `stop` must be a range in [0, {self.num_frames}], but got {start}, {stop}.")
        self._require_unchanged(slice(start, stop))
        with self._lock:
            frames = self._read(start, stop)
        return frames[0][None] if len(frames) == 1 else torch.stack(frames)

    def _read(self, start: int, stop: int) -> list[Tensor]:
        """Return the frames one by one."""
        skipped = start if 0 < self._position < start else None
        if start != self._position and skipped is None:
            self._frames.close()
            self._frames = self._source.frames(start)
        self._position = stop
        frames = []
        for _ in range(start, stop):
            label, frame = self._read_next(skipped)
            skipped = None
            frames.append(torch.from_numpy(self._require_size(label, frame)))
        return frames

    def show(self) -> Iterator[Tensor]:
        """Yield all frames to look at, ``(H,W,3)`` uint8; other frames may be read meanwhile, by another thread."""
        for number, (label, frame) in enumerate(copy(self._source).levels()):
            self._require_unchanged(slice(number, number + 1))
            yield torch.from_numpy(self._require_size(label, frame))

    def _require_unchanged(self, frames: slice) -> None:
        """Check that the files of frames are those that were checked."""
        part = frames if self.info.frame_names else slice(None)
        files = self._files[part]
        if _sign(files) != self._seen[part]:
            raise SettingError("input", "stay as it is during the run", f"another {files[0].name}", "Start again")

    def _require_size(self, label: str, frame: NDArray[_Number] | None) -> NDArray[_Number]:
        """Check that there is a frame, and that its size is that which was checked."""
        if frame is None or frame.shape != (*self.info.frame_size, 3):
            raise SettingError("input", "stay as it is during the run", f"another {label}", "Start again")
        return frame

    def _read_next(self, wanted: int | None) -> tuple[str, NDArray[np.float32] | None]:
        """Return the next frame, or the later one that is wanted; None at the end."""
        try:
            return self._frames.send(wanted)
        except StopIteration:
            return "end", None


def _sign(files: Sequence[Path]) -> list[tuple[int, ...]]:
    """Return what changes with the content of files."""
    try:
        return [(status.st_ino, status.st_size, status.st_mtime_ns) for status in map(Path.stat, files)]
    except OSError as error:
        got = f"a file that is gone ({error.filename})"
        raise SettingError("input", "stay as it is during the run", got, "Start again") from error


def open_clip(path: Path, progress: Progress = no_progress, check_size: SizeCheck | None = None) -> Clip:
    """Open a video file, an image, a folder of images, or a folder that holds such a folder called ``frames``.

    Every frame is decoded once here, so that a bad one is found before any long work; ``check_size`` may refuse the
    size of the first before the others are decoded.
    """
    if path.is_dir():
        source, claimed, stream = _open_folder(path)
    elif not path.exists():
        limit = "be a video file or a folder of frames"
        raise SettingError("input", limit, f"{path}, which does not exist", "Check the path")
    elif not path.is_file():
        limit = "be a video file or a folder of frames"
        raise SettingError("input", limit, f"{path}, which is neither", "Give a file")
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        return _open_image(path, progress, check_size)
    else:
        stream = VideoStream(path)
        source, claimed = stream, stream.claimed_frames
    size, count = _check(source, claimed, progress, check_size)
    if stream is None:
        return _make_clip(source, path.name, size, count)
    if stream.is_cut_short():
        got = f"{path.name}, which announces {claimed} frames and holds {count}"
        remedy = f"Copy it again, or re-encode what is there: ffmpeg -i {path.name} repaired.mp4"
        raise SettingError("input", "be complete", got, remedy)
    fingerprint = fingerprint_clip(source.files())
    return Clip(source, ClipInfo(path.name, count, size, stream.measure_rate(), stream.variable_times(), fingerprint))


def list_clip_files(path: Path) -> list[Path]:
    """Return the files of a clip in order: those whose content is its fingerprint."""
    return _open_folder(path)[0].files() if path.is_dir() else [path]


def reopen_clip(path: Path, info: ClipInfo) -> Clip:
    """Open a clip that `open_clip` has checked, here or on another machine, without decoding all of it again."""
    if path.is_dir():
        source = _open_folder(path)[0]
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        source = _Images([path]) if info.frame_names else _Images([path], is_animation=True)
    else:
        source = VideoStream(path)
    if info.frame_names and tuple(file.stem for file in source.files()) != info.frame_names:
        raise SettingError("input", "hold the same frames on all machines", f"others in {path}", "Copy them again")
    return Clip(source, info)


def _make_clip(source: _Frames, name: str, size: tuple[int, int], count: int) -> Clip:
    """Return a checked clip of image files, which have no times."""
    names = tuple(file.stem for file in source.files())
    return Clip(source, ClipInfo(name, count, size, None, None, fingerprint_clip(source.files()), names))


def _open_image(path: Path, progress: Progress, check_size: SizeCheck | None) -> Clip:
    """Open an image, a clip of one frame, or the pictures of an animation or of a TIFF of several pages."""
    claimed, durations = read_durations(path)
    if claimed == 1:
        single = _Images([path])
        return _make_clip(single, path.name, *_check(single, claimed, progress, check_size))
    source = _Images([path], is_animation=True)
    size, count = _check(source, claimed, progress, check_size)
    if count != claimed:
        got = f"{path.name}, which announces {claimed} pictures and holds {count}"
        raise SettingError("input", "be complete", got, "Write it again")
    times = find_variable_times([0.0, *accumulate(durations[:-1])]) if durations else None
    fps = count / sum(durations) if durations else None
    return Clip(source, ClipInfo(path.name, count, size, fps, times, fingerprint_clip([path])))


def _open_folder(folder: Path) -> tuple[_Frames, int, VideoStream | None]:
    """Return the images of a folder in natural order."""
    inner = folder / FRAMES_FOLDER
    folder = inner if inner.is_dir() else folder
    paths = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not paths:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise SettingError("input", "hold at least one frame", f"no image in {folder}", f"Give images: {kinds}")
    return _Images(sorted(paths, key=lambda p: natural_key(p.name))), len(paths), None


def _check(
    source: _Frames, claimed: int, progress: Progress, check_size: SizeCheck | None
) -> tuple[tuple[int, int], int]:
    """Decode every frame; return their size and number."""
    size, first, count = (0, 0), "", 0
    for label, (height, width) in source.sizes():
        if count == 0:
            size, first = (height, width), label
            if check_size is not None:
                check_size(size)
        elif (height, width) != size:
            got = f"{first} of {size[1]}x{size[0]} and {label} of {width}x{height}"
            raise SettingError("input", "hold frames of one size", got, "Resize or remove the frames that differ")
        count += 1
        progress(CHECK_STAGE, count, max(claimed, count))
    if count == 0:
        raise SettingError("input", "hold at least one frame", "a video without any", "Check that it plays")
    return size, count


def fingerprint_clip(paths: Sequence[Path]) -> str:
    """Return the SHA-256 of the content of ``paths`` in order."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            part = hashlib.sha256()
            while chunk := file.read(_CHUNK):
                part.update(chunk)
        total.update(part.digest())
    return total.hexdigest()
