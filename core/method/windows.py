"""Which frames are labeled together, and which of them a model sees together."""

from __future__ import annotations

from typing import NamedTuple

from ..backbones.protocol import FeatureBackbone
from ..config.parts import WindowConfig
from ..config.settings import Settings, replace_parts
from ..types import InputError, SettingError


def split_windows(num_frames: int, config: WindowConfig) -> list[range]:
    """Return the frames of each window, in order.

    Reference code (``tail="overlap"``): ``num_frames // length + 1`` windows, the last of which is shifted back to
    full length. It overlaps the one before, whose frames it overwrites; when the length divides the number of frames
    it repeats the whole last window. A clip shorter than a window, on which that code fails, is one short window.

    Args:
        num_frames: ``T`` >= 1.
        config: length, and what happens to the frames that remain.

    Returns:
        Windows that cover all frames; with ``tail="short"`` each frame once.

    Raises:
        InputError: there is no frame, or the window is empty.

    >>> split_windows(14, WindowConfig(6)), split_windows(14, WindowConfig(6, "overlap"))
    ([range(0, 6), range(6, 12), range(12, 14)], [range(0, 6), range(6, 12), range(8, 14)])
    """
    if num_frames < 1:
        raise InputError(f"`num_frames` must be at least 1, but got {num_frames}. Pass a clip that holds frames.")
    config.check()
    spans = [range(start, min(start + config.length, num_frames)) for start in range(0, num_frames, config.length)]
    if config.tail == "overlap":
        spans = spans[: num_frames // config.length]
        spans.append(range(max(0, num_frames - config.length), num_frames))
    return spans


class Span(NamedTuple):
    """A unit of work.

    Attributes:
        frames: numbers of the frames that the model sees.
        kept: those whose results count, the last of ``frames``.
    """

    frames: range
    kept: range

    @property
    def num_finished(self) -> int:
        """Number of frames in front that are finished already."""
        return self.kept.start - self.frames.start


def split_spans(num_frames: int, settings: Settings) -> list[Span]:
    """Return the units of work of a clip.

    An image model sees the frames of a window of the scene context. A video model (``settings.video.frames`` > 0) sees
    that many frames whenever the clip has them: the last span is shifted back, and frames that the span before has
    finished are kept as they are. Reference code (``window.tail="overlap"``): they are overwritten, see
    `context.windows`.

    >>> from .config import preset
    >>> for span in split_spans(20, preset("default", "svd")): print(span.frames, span.kept)
    range(0, 14) range(0, 14)
    range(6, 20) range(14, 20)

    Args:
        num_frames: frames of the clip.
        settings: window and video settings.

    Raises:
        InputError: there is no frame.
    """
    if not settings.video.frames:
        return [Span(frames, frames) for frames in split_windows(num_frames, settings.window)]
    length, tail = settings.video.frames, settings.window.tail
    return [
        Span(range(max(0, kept.stop - length), kept.stop), kept)
        for kept in split_windows(num_frames, WindowConfig(length, tail))
    ]


def split_seen(num_frames: int, settings: Settings) -> list[Span]:
    """Return what a model sees of some frames: windows of a video model, the last shifted back; else all of them."""
    if not settings.video.frames:
        return [Span(range(num_frames), range(num_frames))]
    return split_spans(num_frames, replace_parts(settings, window={"tail": "short"}))


def split_context_windows(span: Span, settings: Settings) -> list[range]:
    """Return the windows of the scene context in the kept frames of ``span``, counted from its first frame seen."""
    first = span.num_finished
    inner = split_windows(len(span.kept), WindowConfig(settings.window.length))
    return [range(first + window.start, first + window.stop) for window in inner]


def require_kind(backbone: FeatureBackbone, settings: Settings) -> None:
    """Check that model and settings are both of an image model, or both of a video model.

    Raises:
        InputError: they are not, or windows of the scene context do not divide those of a video model.
    """
    length = settings.video.frames
    is_video = backbone.info.kind == "svd"
    if is_video != (length > 0):
        wanted = "1 or more for a video model" if is_video else "0 for an image model"
        remedy = "Take the settings of `preset(name, kind)` for the kind of the model"
        raise SettingError("video.frames", f"be {wanted}", length, remedy)
    if length % settings.window.length:
        got, limit = settings.window.length, f"divide the {length} frames that the model sees together"
        raise SettingError("window.length", limit, got, f"Use {length}")
