"""Where frames come from, the size that a model takes, and what is checked of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..backbones.protocol import PIXELS_PER_CELL, SIDE_MULTIPLE
from ..config.settings import Settings
from ..types import Grid, InputError, SettingError, require_shape
from .published import round_side


def fit_size(frame_size: tuple[int, int], settings: Settings) -> tuple[int, int]:
    """Return the size ``(H, W)`` in pixels at which frames of ``frame_size`` are processed.

    The longer side is reduced to ``frame.max_side`` when that is set, never enlarged, then both sides are rounded to
    multiples of 64, at least 64.

    >>> fit_size((480, 854), Settings.of(max_side=448)), fit_size((480, 854), Settings.of("reference"))
    ((256, 448), (448, 832))
    """
    longest = max(frame_size)
    scale = min(1.0, settings.frame.max_side / longest) if settings.frame.max_side else 1.0
    round_to = round_side if settings.variant == "published" else _round_side
    height, width = (max(SIDE_MULTIPLE, round_to(side * scale)) for side in frame_size)
    return height, width


def _round_side(side: float) -> int:
    """Round a side in pixels to the nearest multiple of 64."""
    return int(side / SIDE_MULTIPLE + 0.5) * SIDE_MULTIPLE


def coarse_grid(size: tuple[int, int]) -> Grid:
    """Return the coarse grid of frames of ``size`` ``(H, W)``, which are multiples of 64."""
    return Grid(size[0] // PIXELS_PER_CELL, size[1] // PIXELS_PER_CELL)


def check_frames(frames: Tensor) -> None:
    """Check that ``frames`` are ``(T,H,W,3)`` floating-point values in [0, 1], and that there are any."""
    sizes = require_shape("frames", frames, "T H W 3")
    if not frames.is_floating_point():
        raise InputError(f"`frames` must hold floating-point values in [0, 1], but got {frames.dtype}. Divide by 255.")
    if min(sizes.values()) < 1:
        raise InputError(f"`frames` must hold at least one frame, but got shape {tuple(frames.shape)}.")
    for index, frame in enumerate(frames):
        low, high = (float(value) for value in frame.aminmax())
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # also false for NaN
            raise InputError(
                f"`frames` must hold finite values in [0, 1], but frame {index} holds [{low:g}, {high:g}]. "
                "Check the step that made this frame."
            )


def fit_frames(frames: Tensor, settings: Settings) -> Tensor:
    """Return ``frames`` ``(T,H,W,3)`` in the size of `fit_size`, float32 in [0, 1]; see `resize_frames`."""
    return to_floats(resize_frames(frames, settings))


def resize_frames(frames: Tensor, settings: Settings) -> Tensor:
    """Return ``frames`` ``(T,H,W,3)`` resized to `fit_size` (bicubic, antialiased), aspect not kept, uint8 on the CPU.

    They are rounded to 8 bits before and after: within one gray level of the reference code's Pillow. Frames that have
    the right size stay as they are.
    """
    height, width = fit_size((int(frames.shape[1]), int(frames.shape[2])), settings)
    if (height, width) == tuple(frames.shape[1:3]):
        return frames
    resized = torch.empty(len(frames), height, width, 3, dtype=torch.uint8)
    for frame, small in zip(frames, resized, strict=True):
        levels = (frame.detach().cpu().float() * 255).round_().clamp_(0, 255).to(torch.uint8)
        planes = levels.movedim(-1, 0)[None]  # (H,W,3) -> (1,3,H,W)
        planes = F.interpolate(planes, (height, width), mode="bicubic", antialias=True, align_corners=False)
        small[:] = planes[0].movedim(0, -1)
    return resized


def to_floats(frames: Tensor) -> Tensor:
    """Return frames as float32 in [0, 1], of bytes or of numbers in [0, 1]."""
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames.float()


class FrameSource(Protocol):
    """Frames that are read when they are needed."""

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        ...

    def read(self, start: int, stop: int) -> Tensor:
        """Return frames ``start`` (included) to ``stop`` (excluded), ``(T,H,W,3)`` float32 in [0, 1]."""
        ...


class FittedFrames(NamedTuple):
    """Frames as `resize_frames` makes them, and the size that they had ``(H, W)``."""

    frames: Tensor
    frame_size: tuple[int, int]


def read_fitted(source: FrameSource, frames: range, settings: Settings) -> FittedFrames:
    """Return some frames in the size of the model, read one by one."""
    sized, frame_size = [], (0, 0)
    for number in frames:
        frame = source.read(number, number + 1)
        check_frames(frame)
        frame_size = (int(frame.shape[1]), int(frame.shape[2]))
        sized.append(resize_frames(frame, settings))
    return FittedFrames(torch.cat(sized), frame_size)


def read_ahead(source: FrameSource, spans: Iterable[range], settings: Settings) -> Iterator[FittedFrames]:
    """Yield what `read_fitted` gives for each of ``spans``; the next one is read while the caller is busy."""
    coming: deque[Future[FittedFrames]] = deque()
    with ThreadPoolExecutor(1, "vidseg-reader") as reader:
        for span in spans:
            coming.append(reader.submit(read_fitted, source, span, settings))
            if len(coming) == 2:
                yield coming.popleft().result()
        if coming:
            yield coming.popleft().result()


def check_tokens(frame_size: tuple[int, int], num_frames: int, settings: Settings) -> None:
    """Check that K-means will see as many tokens of ``num_frames`` frames ``(H,W)`` as there are clusters."""
    tokens = coarse_grid(fit_size(frame_size, settings)).num_tokens
    if settings.cluster.fit_frames != "anchor":
        tokens *= min(settings.window.length, num_frames)
    require_tokens_for(settings.cluster.num_clusters, tokens)


def require_tokens_for(num_clusters: int, num_tokens: int) -> None:
    """Check that there are as many tokens as clusters."""
    if num_clusters > num_tokens:
        limit, remedy = f"be at most the number of tokens, {num_tokens}", "Choose fewer clusters or larger frames"
        raise SettingError("cluster.num_clusters", limit, num_clusters, remedy)


class HeldFrames:
    """Frames ``(T,H,W,3)`` that the caller holds, checked; made float when they are read, so that bytes stay bytes."""

    def __init__(self, frames: Tensor) -> None:
        sizes = require_shape("frames", frames, "T H W 3")
        check_frames(frames[:1].float() / 255 if frames.dtype == torch.uint8 else frames)
        self._frames = frames
        self.size = (sizes["H"], sizes["W"])

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self._frames)

    def read(self, start: int, stop: int) -> Tensor:
        """Return frames ``start`` (included) to ``stop`` (excluded), ``(T,H,W,3)`` float32 in [0, 1]."""
        return to_floats(self._frames[start:stop].cpu())
