"""Write an overlay as an MP4 file, and label maps as a lossless gray video, with PyAV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from torch import Tensor

from ..types import InputError, Progress, no_progress

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


def write_video(
    path: Path, frames: Iterable[Tensor], fps: float | None = None, times: Sequence[float] | None = None
) -> None:
    """Encode frames to ``path``, an MP4 file, one at a time.

    Args:
        path: the file; it is whole only when the function returns.
        frames: each ``(H,W,3)`` uint8, all of one size. An odd side is extended by repeating its last line.
        fps: frames per second; None for `DEFAULT_FPS`.
        times: second of each frame, for a variable rate.

    Raises:
        InputError: no encoder is available.
        OSError: the file cannot be written.
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
    """Write label maps as a lossless gray video: the gray value of a pixel is the id of its region.

    Args:
        path: a Matroska file (``.mkv``, FFV1); it is whole when the function returns.
        maps: ``(T,H,W)`` uint8.
        fps: frames per second.
        progress: called with stage ``id video`` in frames.

    Raises:
        OSError: the file cannot be written.
    """
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
