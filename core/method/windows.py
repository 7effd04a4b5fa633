"""Which frames are labeled together, and which of them a model sees together."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ..backbones.protocol import FeatureSource
from ..config.parts import Variant, WindowConfig
from ..config.settings import NAMED_KINDS, Settings
from ..types import InputError, SettingError
from . import published


def split_windows(num_frames: int, config: WindowConfig, variant: Variant = "paper") -> list[range]:
    """Return the frames of each window, in order; the last window holds the frames that remain.

    >>> split_windows(14, WindowConfig(6))
    [range(0, 6), range(6, 12), range(12, 14)]
    """
    if num_frames < 1:
        raise InputError(f"`num_frames` must be at least 1, but got {num_frames}. Pass a clip that holds frames.")
    config.check()
    if variant == "published":
        return published.split_windows(num_frames, config.length)
    return [range(start, min(start + config.length, num_frames)) for start in range(0, num_frames, config.length)]


def find_window(frame: int, length: int, num_frames: int) -> range:
    """Return the window of a frame: as long as the clip allows.

    >>> find_window(7, 6, 10)
    range(6, 10)
    """
    start = frame - frame % length
    return range(start, min(start + length, num_frames))


def spread_frames(num_frames: int, config: WindowConfig) -> list[int]:
    """Return the numbers of as many frames as a window has, spread evenly over a clip, the first frame among them.

    >>> spread_frames(10, WindowConfig(4))
    [0, 2, 5, 7]
    """
    count = min(num_frames, config.length)
    return [number * num_frames // count for number in range(count)]


class Span(NamedTuple):
    """A unit of work: numbers of the frames that the model sees, and the last of them, whose results count."""

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
    finished are kept as they are. Reference code: they are overwritten, see `published.split_windows`.

    >>> for span in split_spans(20, Settings.of(kind="svd")): print(span.frames, span.kept)
    range(0, 14) range(0, 14)
    range(6, 20) range(14, 20)
    """
    if not settings.video.frames:
        return [Span(frames, frames) for frames in split_windows(num_frames, settings.window, settings.variant)]
    length = settings.video.frames
    return [
        Span(range(max(0, kept.stop - length), kept.stop), kept)
        for kept in split_windows(num_frames, WindowConfig(length), settings.variant)
    ]


def split_seen(num_frames: int, settings: Settings) -> list[Span]:
    """Return what a model sees of some frames: windows of a video model, the last shifted back; else all of them."""
    if not settings.video.frames:
        return [Span(range(num_frames), range(num_frames))]
    return split_spans(num_frames, replace(settings, variant="paper"))


def split_noise(num_frames: int, settings: Settings) -> list[range]:
    """Return the frames that share a draw of noise where it is drawn by windows; published code: all that are given."""
    length = settings.video.frames or settings.window.length
    return [range(num_frames)] if settings.variant == "published" else split_windows(num_frames, WindowConfig(length))


def split_context_windows(span: Span, settings: Settings) -> list[range]:
    """Return the windows of the scene context in the kept frames of ``span``, counted from its first frame seen."""
    first = span.num_finished
    inner = split_windows(len(span.kept), WindowConfig(settings.window.length))
    return [range(first + window.start, first + window.stop) for window in inner]


def require_kind(backbone: FeatureSource, settings: Settings) -> None:
    """Check that model and settings are of the same kind: video or not, layers with names or not; windows fit."""
    length = settings.video.frames
    is_video = backbone.info.kind == "svd"
    if is_video != (length > 0):
        wanted = "1 or more for a video model" if is_video else "0 for an image model"
        remedy = "Take the settings of `preset(name, kind)` for the kind of the model"
        raise SettingError("video.frames", f"be {wanted}", length, remedy)
    has_names, named = backbone.info.kind in NAMED_KINDS, bool(settings.feature.layers)
    if has_names != named:
        limit = f"{'name layers' if has_names else 'be empty'} with a model of the kind {backbone.info.kind}"
        remedy = "Take the settings of `preset(name, kind)` for the kind of the model"
        raise SettingError("feature.layers", limit, ", ".join(settings.feature.layers) or "none", remedy)
    if is_video and settings.cluster.fit_frames == "clip":
        limit = "be window or anchor with a video model, which reads whole windows"
        raise SettingError("cluster.fit_frames", limit, "clip", "Choose one of them")
    if length % settings.window.length:
        got, limit = settings.window.length, f"divide the {length} frames that the model sees together"
        raise SettingError("window.length", limit, got, f"Use {length}")
