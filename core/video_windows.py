"""Which frames a model sees together, and which of them are new (Stable Video Diffusion needs whole windows)."""

from __future__ import annotations

from typing import NamedTuple

from .backbones.protocol import Backbone, VideoBackbone
from .config.parts import WindowConfig
from .config.settings import Settings
from .context import windows
from .types import InputError


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


def spans(num_frames: int, settings: Settings) -> list[Span]:
    """Return the units of work of a clip.

    An image model sees the frames of a window of the scene context. A video model (``settings.video.frames`` > 0) sees
    that many frames whenever the clip has them: the last span is shifted back, and frames that the span before has
    finished are kept as they are. Reference code (``window.tail="overlap"``): they are overwritten, see
    `context.windows`.

    >>> from .config import preset
    >>> for span in spans(20, preset("default", "svd")): print(span.frames, span.kept)
    range(0, 14) range(0, 14)
    range(6, 20) range(14, 20)

    Args:
        num_frames: frames of the clip.
        settings: window and video settings.

    Raises:
        InputError: there is no frame.
    """
    if not settings.video.frames:
        return [Span(frames, frames) for frames in windows(num_frames, settings.window)]
    length, tail = settings.video.frames, settings.window.tail
    return [
        Span(range(max(0, kept.stop - length), kept.stop), kept)
        for kept in windows(num_frames, WindowConfig(length, tail))
    ]


def context_windows(span: Span, settings: Settings) -> list[range]:
    """Return the windows of the scene context in the kept frames of ``span``, counted from its first frame seen."""
    first = span.num_finished
    inner = windows(len(span.kept), WindowConfig(settings.window.length))
    return [range(first + window.start, first + window.stop) for window in inner]


def require_kind(backbone: Backbone, settings: Settings) -> None:
    """Check that model and settings are both of an image model, or both of a video model.

    Raises:
        InputError: they are not, or windows of the scene context do not divide those of a video model.
    """
    length = settings.video.frames
    if isinstance(backbone, VideoBackbone) != (length > 0):
        wanted = "1 or more for a video model" if isinstance(backbone, VideoBackbone) else "0 for an image model"
        raise InputError(
            f"`video.frames` must be {wanted}, but got {length}. Take the settings of `preset(name, kind)` for the "
            "kind of the model."
        )
    if length % settings.window.length:
        raise InputError(
            f"`window.length` must divide `video.frames`, {length}, but got {settings.window.length}. Use {length}."
        )
