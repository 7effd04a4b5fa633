"""The overlay of a result: its frames with the colors of their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Condition

from torch import Tensor

from ..regions.palette import paint_pixels
from ..types import Progress
from .clip import Clip
from .result_folder import OVERLAY_FILE, ResultFolder
from .video import write_video

OVERLAY_STAGE = "overlay"
"""Name of the stage that writes the video, or what of it is left at the end of a run."""
_SHOWN = 0.2
"""Seconds between two reports of progress."""


def write_overlay(folder: ResultFolder, clip: Clip, progress: Progress) -> None:
    """Write the overlay of the label maps that are in ``folder``."""
    count = clip.num_frames
    _write(folder, clip, folder.read_label_maps(count), lambda done: progress(OVERLAY_STAGE, done, count))


def _write(folder: ResultFolder, clip: Clip, label_maps: Iterator[Tensor], tell: Callable[[int], None]) -> None:
    """Write the overlay of label maps, and tell how many frames of it are drawn."""

    def draw() -> Iterator[Tensor]:
        for done, (frame, label_map) in enumerate(zip(clip.show(), label_maps, strict=True), 1):
            yield paint_pixels(frame, label_map)
            tell(done)

    info = clip.info
    folder.write_file(OVERLAY_FILE, lambda path: write_video(path, draw(), info.fps, info.times))


class OverlayWriter:
    """Writes the overlay by a thread beside a run: each frame once its label map is in the folder.

    A context manager: what is not finished when it ends is dropped.
    """

    def __init__(self, folder: ResultFolder, clip: Clip) -> None:
        self._folder, self._clip = folder, clip
        self._num_labeled = self._num_drawn = 0
        self._stopped = False
        self._changed = Condition()
        self._thread = ThreadPoolExecutor(1, "vidseg-overlay")
        self._written: Future[None]

    def __enter__(self) -> OverlayWriter:
        self._written = self._thread.submit(_write, self._folder, self._clip, self._wait_for_maps(), self._count)
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.shutdown()

    def show(self, num_frames: int) -> None:
        """Say that so many frames have their label maps in the folder."""
        with self._changed:
            self._num_labeled = num_frames
            self._changed.notify()

    def finish(self, progress: Progress) -> None:
        """Wait for what is left, once all frames have label maps; ``progress`` has the stage ``overlay`` in frames."""
        while not wait([self._written], _SHOWN).done:
            progress(OVERLAY_STAGE, self._num_drawn, self._clip.num_frames)
        self._written.result()
        progress(OVERLAY_STAGE, self._clip.num_frames, self._clip.num_frames)

    def _wait_for_maps(self) -> Iterator[Tensor]:
        """Yield the label maps, each when it is there."""
        label_maps = self._folder.read_label_maps(self._clip.num_frames)
        for number in range(self._clip.num_frames):
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._num_labeled > number)  # noqa: B023, at once
                if self._stopped:
                    raise _StoppedError
            yield next(label_maps)

    def _count(self, done: int) -> None:
        self._num_drawn = done


class _StoppedError(Exception):
    """The run ended before all frames had labels."""
