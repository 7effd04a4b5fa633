"""Video files with PyAV: decode frame by frame, write an overlay as MP4 and label maps as a lossless gray video."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeVar

import av
import numpy as np
import torch
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from torch import Tensor

from ..types import InputError, Progress, no_progress
from .pixels import read_colors, read_levels

_T = TypeVar("_T")
_Number = TypeVar("_Number", np.float32, np.uint8)
logger = logging.getLogger(__name__)
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
_CLOCK = 60_000
"""Units of a second in which the times of a variable rate are written; MPEG-4 knows no more than 65535."""
_SIDE_INFORMATION = {"h264": "filter_units=remove_types=6", "hevc": "filter_units=remove_types=39-40"}
"""Filters that leave out messages beside the pictures (SEI), whose damage is no damage of pictures."""
_OF_THE_SYSTEM = {
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOENT, errno.EFBIG,
}  # fmt: skip
"""Errors of writing that are of the place, not of FFmpeg."""
_H264 = {"crf": "19", "preset": "ultrafast"}
"""Quality of H.264, about free of visible loss: as 18 of superfast, in half of its time, with a fifth more bytes."""
_BITS_PER_PIXEL = 1.0
"""Bit rate of the fallback codec."""
_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
"""Streams of covers and thumbnails."""


class VideoStream:
    """The first video stream of a file; ``claimed_frames`` is what it announces (0: nothing), ``fps`` the average.

    Cover pictures are no video. Damage of a picture is refused; damage of messages beside the pictures is not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._times: list[float] = []
        self._filter = ""  # which leaves out messages beside the pictures, once they are known to be damaged
        try:
            with av.open(_url(path), options=_OPTIONS, metadata_errors="replace") as container:
                streams = [] if container.format.name in _TEXT_FORMATS else _list_videos(container)
                if not streams:
                    raise InputError(self._message("holds no video stream", "Give"))
                if len(streams) > 1:
                    logger.warning(
                        "vidseg: %s holds %d video streams, of which the first is read; ffmpeg -map 0:v:1 takes out "
                        "the second.",
                        path.name,
                        len(streams),
                    )
                stream = streams[0]
                self.claimed_frames = stream.frames
                self.fps = float(stream.average_rate or stream.guessed_rate or 0) or None
                self._end = float(((stream.start_time or 0) + (stream.duration or 0)) * (stream.time_base or 0))
        except av.error.FFmpegError as error:
            raise InputError(self._message(f"cannot be opened: {error.strerror}")) from error

    def files(self) -> list[Path]:
        """Return the one file."""
        return [self.path]

    def frames(self, start: int) -> Generator[tuple[str, NDArray[np.float32]], int | None, None]:
        """Yield the frames from number ``start`` on, upright, ``(H,W,3)`` float32 in [0, 1]; a number sent skips."""
        return self._convert(start, lambda frame: _turn(read_colors(frame), frame))

    def levels(self) -> Generator[tuple[str, NDArray[np.uint8]], int | None, None]:
        """Yield all frames, upright, ``(H,W,3)`` uint8."""
        return self._convert(0, lambda frame: _turn(read_levels(frame), frame))

    def sizes(self) -> Generator[tuple[str, tuple[int, int]], int | None, None]:
        """Yield the size ``(H,W)`` of all frames, which are decoded; the first is converted, to see that it can be."""

        def measure(frame: VideoFrame) -> tuple[int, int]:
            if len(self._times) == 1:
                read_colors(frame)
            size = (frame.height, frame.width)
            return size if _count_turns(frame) % 2 == 0 else size[::-1]

        return self._convert(0, measure)

    def _convert(self, start: int, convert: Callable[[VideoFrame], _T]) -> Generator[tuple[str, _T], int | None, None]:
        """Yield what is made of each frame from number ``start`` on, and what to call it; a number sent skips."""
        next_one = start
        while True:
            self._times = []
            try:
                for number, frame in enumerate(self._decode()):
                    if number >= next_one:
                        next_one = number + 1
                        wanted = yield f"frame {number}", convert(frame)
                        next_one = max(next_one, wanted or 0)
            except av.error.FFmpegError as error:
                if self._filter or not (found := self._find_filter()):
                    fault = f"is damaged near frame {len(self._times)}: {error.strerror}"
                    raise InputError(self._message(fault)) from error
                self._filter = found
            else:
                return

    def _decode(self) -> Iterator[VideoFrame]:
        """Yield all frames, strictly decoded, and note their times."""
        with av.open(_url(self.path), options=_OPTIONS, metadata_errors="replace") as container:
            stream = _list_videos(container)[0]
            if stream.codec_context is None:
                raise InputError(self._message("is damaged: what its pictures are coded with is not told"))
            stream.thread_type = "AUTO"
            stream.codec_context.options = {"err_detect": "explode"}
            beside = av.bitstream.BitStreamFilterContext(self._filter, stream) if self._filter else None
            for packet in container.demux(stream):
                last = packet.dts is None and not packet.size
                for part in beside.filter(None if last else packet) if beside else [packet]:
                    yield from self._check_frames(stream.decode(part), is_corrupt=packet.is_corrupt)
            if beside:
                yield from self._check_frames(stream.decode(None), is_corrupt=False)

    def _check_frames(self, frames: Iterable[VideoFrame], *, is_corrupt: bool) -> Iterator[VideoFrame]:
        """Yield the frames of a packet, none of them damaged, and note their times."""
        for frame in frames:
            if is_corrupt or frame.is_corrupt:
                raise InputError(self._message(f"is damaged near frame {len(self._times)}"))
            self._times.append(frame.time if frame.time is not None else float("nan"))
            yield frame

    def _find_filter(self) -> str:
        """Return the filter for messages beside the pictures, or nothing."""
        with av.open(_url(self.path), options=_OPTIONS, metadata_errors="replace") as container:
            return _SIDE_INFORMATION.get(_list_videos(container)[0].codec_context.name, "")

    def is_cut_short(self) -> bool:
        """Tell whether fewer frames were decoded than the file announces, both by number and by time."""
        if not self.fps or len(self._times) >= self.claimed_frames:
            return False
        return not self._times or self._times[-1] + _SLACK / self.fps < self._end

    def measure_rate(self) -> float | None:
        """Return the frames per second by the times of the frames decoded so far, by the header where they agree."""
        span = self._times[-1] - self._times[0] if len(self._times) > 1 else 0.0
        if not span > 0:  # also NaN
            return self.fps
        rate = (len(self._times) - 1) / span
        return self.fps if self.fps and abs(self.fps / rate - 1) <= _REGULAR else rate

    def variable_times(self) -> tuple[float, ...] | None:
        """Return the times in seconds of the frames decoded so far, or None where their rate is constant or unknown."""
        return find_variable_times(self._times)

    def _message(self, fault: str, remedy: str = "") -> str:
        remedy = remedy or f"Re-encode it (ffmpeg -i {self.path.name} repaired.mp4), or give"
        return (
            f"`input` must be a video that plays, but {self.path.name} {fault}. "
            f"{remedy} another file or a folder of frames."
        )


def find_variable_times(seconds: Sequence[float]) -> tuple[float, ...] | None:
    """Return the times of frames in seconds from the first on, or None where their rate is constant or unknown."""
    times = np.array(seconds)
    steps = np.diff(times)
    if len(steps) < 2 or not np.isfinite(times).all() or not (steps > 0).all():
        return None
    irregular = np.abs(steps - steps.mean()).max() > max(_REGULAR * steps.mean(), 1e-3 + 1e-6)
    return tuple(round(float(time - times[0]), 6) for time in times) if irregular else None


def _url(path: Path) -> str:
    """Return a path as FFmpeg takes it for a file, whatever its name holds."""
    return f"file:{path.resolve()}"


def _list_videos(container: InputContainer) -> list[Any]:
    """Return the video streams that are no cover pictures or thumbnails."""
    return [stream for stream in container.streams.video if not stream.disposition & _PICTURES]


def _count_turns(frame: VideoFrame) -> int:
    """Return the quarter turns by which a frame is to be shown, as its file records."""
    return round(frame.rotation / 90) % 4


def _turn(pixels: NDArray[_Number], frame: VideoFrame) -> NDArray[_Number]:
    """Return the pixels of a frame as it is meant to be shown."""
    return np.ascontiguousarray(np.rot90(pixels, _count_turns(frame)))


def write_video(
    path: Path, frames: Iterable[Tensor], fps: float | None = None, times: Sequence[float] | None = None
) -> None:
    """Encode frames ``(H,W,3)`` uint8 of one size to MP4, one at a time; an odd side is extended by its last line.

    ``times`` are the seconds of the frames, for a variable rate; without ``fps`` it is `DEFAULT_FPS`.
    """
    with _explain_encoding(path):
        _encode(_url(path), frames, fps, times)


@contextmanager
def _explain_encoding(path: Path) -> Iterator[None]:
    """Raise errors of the place as those of the system, and call others what they are."""
    try:
        yield
    except av.error.FFmpegError as error:
        if error.errno in _OF_THE_SYSTEM:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise InputError(
            f"`av` must encode {path.name}, but FFmpeg said: {error.strerror}. Make the frames smaller, or update av."
        ) from error


def _encode(
    target: str | IO[bytes], frames: Iterable[Tensor], fps: float | None, times: Sequence[float] | None
) -> None:
    rate = Fraction(fps or DEFAULT_FPS).limit_denominator(1001)
    ticks = None if times is None else _count_ticks(times)
    with av.open(target, "w", format="mp4") as container:
        stream: Any = None
        for number, frame in enumerate(frames):
            pixels = frame.cpu().numpy()
            odd = [(0, side % 2) for side in pixels.shape[:2]]
            even = np.pad(pixels, (*odd, (0, 0)), "edge")
            if stream is None:
                codec = _codec()
                stream = container.add_stream(codec, rate=rate, options=dict(_H264) if "264" in codec else {})
                stream.height, stream.width = even.shape[:2]
                stream.pix_fmt = "yuv420p"
                if "264" not in codec:
                    stream.bit_rate = max(100_000, int(even[..., 0].size * float(rate) * _BITS_PER_PIXEL))
                if ticks is not None:
                    stream.codec_context.time_base = Fraction(1, _CLOCK)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            if ticks is not None:
                picture.pts, picture.time_base = ticks[number], Fraction(1, _CLOCK)
            container.mux(stream.encode(picture))
        if stream is not None:
            container.mux(stream.encode())


def _count_ticks(times: Sequence[float]) -> list[int]:
    """Return times in units of `_CLOCK`, of which no two are the same."""
    ticks: list[int] = []
    for time in times:
        ticks.append(max(round(time * _CLOCK), ticks[-1] + 1 if ticks else 0))
    return ticks


def require_encoder(name: str, frame_size: tuple[int, int]) -> None:
    """Encode one frame ``(H,W)`` in memory, so that what FFmpeg refuses in ``name`` is told before any long work."""
    with _explain_encoding(Path(name)):
        _encode(BytesIO(), [torch.zeros(*frame_size, 3, dtype=torch.uint8)], None, None)


def _codec() -> str:
    """Return the first codec of `CODECS` that can encode."""
    for name in CODECS:
        if name in av.codecs_available:
            return name
    raise InputError(f"`av` must offer one of the encoders {', '.join(CODECS)}, but has none. Install av from PyPI.")


def write_id_video(path: Path, maps: Tensor, fps: float, progress: Progress = no_progress) -> None:
    """Write label maps ``(T,H,W)`` uint8 as lossless gray video (Matroska, FFV1): a gray value is a region's id."""
    with _explain_encoding(path):
        _encode_ids(path, maps, fps, progress)


def _encode_ids(path: Path, maps: Tensor, fps: float, progress: Progress) -> None:
    with av.open(_url(path), "w", format="matroska") as container:
        stream: Any = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = int(maps.shape[1]), int(maps.shape[2]), "gray"
        for number, labels in enumerate(maps.cpu().numpy()):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(labels, format="gray")))
            progress("id video", number + 1, len(maps))
        container.mux(stream.encode())
