"""Decode a video file with PyAV, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from ..types import InputError

_TEXT_FORMATS = frozenset({"tty", "bin", "xbin", "adf", "idf"})
"""Formats under which FFmpeg draws text files as pictures."""
_OPTIONS = {"protocol_whitelist": "file"}
"""A playlist must not make the program open a network address."""
_REGULAR = 0.02
"""Largest deviation of the distance of two frames, relative to the mean, at which the rate counts as constant."""
_SLACK = 2.5
"""Frames by which a complete file may end before the time that it announces; edit lists hide some."""


class VideoStream:
    """The first video stream of a file.

    Attributes:
        path: the file.
        claimed_frames: number of frames that the file announces; 0 if it does not.
        fps: average frames per second.
    """

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
        """Yield the frames from number ``start`` on, upright, ``(H,W,3)`` float32 in [0, 1].

        Raises:
            InputError: a frame cannot be decoded.
        """
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
    pixels = frame.to_ndarray(format="rgb24")
    turned = np.rot90(pixels, round(frame.rotation / 90) % 4)
    return np.ascontiguousarray(turned, np.float32) / np.float32(255)
