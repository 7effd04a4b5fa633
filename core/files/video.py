"""Video files with PyAV: decode frame by frame, write an overlay as MP4 and label maps as a lossless gray video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from torch import Tensor

from ..types import InputError, Progress, no_progress
from .pixels import read_colors

_TEXT_FORMATS = frozenset({"tty", "bin", "xbin", "adf", "idf"})
"""Formats under which FFmpeg draws text files as pictures."""
_OPTIONS = {"protocol_whitelist": "file"}
"""A playlist must not make the program open a network address."""
_REGULAR = 0.02
"""Largest deviation of the distance of two frames, relative to the mean, at which the rate counts as constant."""
_SLACK = 2.5
"""Frames by which a complete file may end before the time that it announces; edit lists hide some."""
CODECS = ("libx264", "mpeg4")
"""Tried in this order: H.264, which browsers play, where PyAV was built with it."""
DEFAULT_FPS = 24.0
"""Frames per second of a clip of images."""
_CLOCK = 1000
"""Units of a second in which the times of a variable rate are written."""
_CRF = 18
"""Quality of H.264, about free of visible loss."""
_BITS_PER_PIXEL = 1.0
"""Bit rate of the fallback codec."""


class VideoStream:
    """The first video stream of a file; ``claimed_frames`` is what it announces (0: nothing), ``fps`` the average."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._times: list[float] = []
        try:
            with av.open(str(path.resolve()), options=_OPTIONS) as container:
                if container.format.name in _TEXT_FORMATS or not container.streams.video:
                    raise InputError(self._message("holds no video stream"))
                stream = container.streams.video[0]
                self.claimed_frames = stream.frames
                self.fps = float(stream.average_rate or stream.guessed_rate or 0) or None
                self._end = float(((stream.start_time or 0) + (stream.duration or 0)) * (stream.time_base or 0))
        except av.error.FFmpegError as error:
            raise InputError(self._message(f"cannot be opened: {error.strerror}")) from error

    def files(self) -> list[Path]:
        """Return the one file."""
        return [self.path]

    def frames(self, start: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yield the frames from number ``start`` on, upright, ``(H,W,3)`` float32 in [0, 1]."""
        number = 0
        self._times = []
        try:
            with av.open(str(self.path.resolve()), options=_OPTIONS) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                stream.codec_context.options = {"err_detect": "explode"}
                for packet in container.demux(stream):
                    for frame in packet.decode():
                        if packet.is_corrupt or frame.is_corrupt:
                            raise InputError(self._message(f"is damaged near frame {number}"))
                        self._times.append(frame.time if frame.time is not None else float("nan"))
                        if number >= start:
                            yield f"frame {number}", _pixels(frame)
                        number += 1
        except av.error.FFmpegError as error:
            raise InputError(self._message(f"is damaged near frame {number}: {error.strerror}")) from error

    def is_cut_short(self) -> bool:
        """Tell whether fewer frames were decoded than the file announces, both by number and by time."""
        if not self.fps or len(self._times) >= self.claimed_frames:
            return False
        return not self._times or self._times[-1] + _SLACK / self.fps < self._end

    def variable_times(self) -> tuple[float, ...] | None:
        """Return the times in seconds of the frames decoded so far, or None where their rate is constant or unknown."""
        times = np.array(self._times)
        steps = np.diff(times)
        if len(steps) < 2 or not np.isfinite(times).all() or not (steps > 0).all():
            return None
        irregular = np.abs(steps - steps.mean()).max() > max(_REGULAR * steps.mean(), 1e-3 + 1e-6)
        return tuple(round(float(time - times[0]), 6) for time in times) if irregular else None

    def _message(self, fault: str) -> str:
        return (
            f"`input` must be a video that plays, but {self.path.name} {fault}. "
            f"Re-encode it (ffmpeg -i {self.path.name} repaired.mp4), or give another file or a folder of frames."
        )


def _pixels(frame: VideoFrame) -> NDArray[np.float32]:
    """Return ``frame`` as it is meant to be shown: turned by the angle that its file records."""
    turned = np.rot90(read_colors(frame), round(frame.rotation / 90) % 4)
    return np.ascontiguousarray(turned, np.float32)


def write_video(
    path: Path, frames: Iterable[Tensor], fps: float | None = None, times: Sequence[float] | None = None
) -> None:
    """Encode frames ``(H,W,3)`` uint8 of one size to MP4, one at a time; an odd side is extended by its last line.

    ``times`` are the seconds of the frames, for a variable rate; without ``fps`` it is `DEFAULT_FPS`.
    """
    try:
        _encode(path, frames, fps, times)
    except av.error.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error


def _encode(path: Path, frames: Iterable[Tensor], fps: float | None, times: Sequence[float] | None) -> None:
    rate = Fraction(fps or DEFAULT_FPS).limit_denominator(1001)
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = None
        for number, frame in enumerate(frames):
            pixels = frame.cpu().numpy()
            even = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), "edge")
            if stream is None:
                codec = _codec()
                stream = container.add_stream(codec, rate=rate, options={"crf": str(_CRF)} if "264" in codec else {})
                stream.height, stream.width = even.shape[:2]
                stream.pix_fmt = "yuv420p"
                if "264" not in codec:
                    stream.bit_rate = max(100_000, int(even[..., 0].size * float(rate) * _BITS_PER_PIXEL))
                if times is not None:
                    stream.codec_context.time_base = Fraction(1, _CLOCK)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            if times is not None:
                picture.pts, picture.time_base = round(times[number] * _CLOCK), Fraction(1, _CLOCK)
            container.mux(stream.encode(picture))
        if stream is not None:
            container.mux(stream.encode())


def _codec() -> str:
    """Return the first codec of `CODECS` that can encode."""
    for name in CODECS:
        if name in av.codecs_available:
            return name
    raise InputError(f"`av` must offer one of the encoders {', '.join(CODECS)}, but has none. Install av from PyPI.")


def write_id_video(path: Path, maps: Tensor, fps: float, progress: Progress = no_progress) -> None:
    """Write label maps ``(T,H,W)`` uint8 as lossless gray video (Matroska, FFV1): a gray value is a region's id."""
    try:
        _encode_ids(path, maps, fps, progress)
    except av.error.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error


def _encode_ids(path: Path, maps: Tensor, fps: float, progress: Progress) -> None:
    with av.open(str(path), "w", format="matroska") as container:
        stream: Any = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = int(maps.shape[1]), int(maps.shape[2]), "gray"
        for number, labels in enumerate(maps.cpu().numpy()):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(labels, format="gray")))
            progress("id video", number + 1, len(maps))
        container.mux(stream.encode())
