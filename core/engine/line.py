"""The windows of one clip on their way over the workers: read, scanned in order, enlarged, a bounded number at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

from torch import Tensor

from ..backbones.protocol import FeatureSource
from ..config.settings import Settings
from ..files.clip import ClipInfo
from ..method.features import extract_window_features, find_gpu
from ..method.frames import read_fitted
from ..method.pipeline import ScanState, scan_window, start_from_clip
from ..method.tokens import with_flow
from ..method.upsampling import upsample
from ..method.windows import Span, split_spans
from ..types import Features, LabelMaps
from .crew import Answer, Call, Crew
from .model import Workplace

IN_FLIGHT = 3
"""Windows for each worker that may be under way, or wait to be written, at once."""
_LOOK_INTERVAL = 0.5
"""Seconds between two looks at whether the run was stopped."""


class ClipTask(NamedTuple):
    """What decides the labels of a clip; all workers have it."""

    path: Path
    info: ClipInfo
    settings: Settings
    reference: Tensor | None


class Made(NamedTuple):
    """A window that is ready; its labels and the scan after it lie in the cluster."""

    number: int
    span: Span
    labels: Any
    state: Any


class Moved(NamedTuple):
    """How many frames are read, and how many are enlarged."""

    read: int
    enlarged: int


@dataclass
class _Window:
    """What there is of a window, in the cluster; None is not there yet, or no longer needed."""

    near: int
    tokens: Any = None
    rest: Any = None
    coarse: Any = None
    state: Any = None
    labels: Any = None


class Line:
    """Calls for all windows from that of a state on, in an order that lets none wait for what could be done before.

    A thread of its own hands out the calls, so that workers have some while windows are written. It puts what they did
    into ``events``, in order: `Moved`, `Made`, at the end None, or what was wrong. Who has written a window raises
    ``taken``.
    """

    def __init__(self, crew: Crew, task: ClipTask, state: ScanState | None) -> None:
        self.spans = split_spans(task.info.num_frames, task.settings)
        self.taken = state.next_window if state else 0
        self._stopped = False
        self._thread = Thread(target=self._work, daemon=True)
        self.events: SimpleQueue[Moved | Made | BaseException | None] = SimpleQueue()
        self._crew, self._task = crew, crew.keep(task)
        self._state = None if state is None else crew.keep(state)
        self._next_read = self._next_scan = self._next_out = self.taken
        self._scans = False
        self._windows: dict[int, _Window] = {}
        self._enlarging: list[int] = []  # windows that were scanned, in order
        done = self.spans[self.taken].kept.start if self.taken < len(self.spans) else task.info.num_frames
        self._moved = Moved(done, done)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Hand out no more calls."""
        self._stopped = True
        self._thread.join()

    def _work(self) -> None:
        """Make all windows, or stop early."""
        try:
            while self._next_out < len(self.spans) and not self._stopped:
                self._begin()
                answer = self._crew.wait(_LOOK_INTERVAL)
                if answer is not None and answer.call.key[0] is self:  # others are of a line that was given up
                    self._take(answer)
        except BaseException as error:  # noqa: BLE001, it is raised where the windows are taken
            self.events.put(error)
        else:
            self.events.put(None)

    def _begin(self) -> None:
        """Give all free workers something to do: first the scan, for which others wait, then enlarging."""
        while self._crew.free:
            waiting = self._windows.get(self._next_scan)
            if waiting is not None and waiting.tokens is not None and not self._scans:
                self._scans = True
                self._call(label_coarse, self._next_scan, waiting.near, 2, waiting.tokens, self._state)
            elif self._enlarging:
                index = self._enlarging.pop(0)
                window = self._windows[index]
                self._call(enlarge_window, index, window.near, 1, window.rest, window.coarse)
            elif self._next_read < min(len(self.spans), self.taken + IN_FLIGHT * self._crew.size):
                self._call(read_window, self._next_read, None, 2)
                self._next_read += 1
            else:
                return

    def _call(self, function: Any, index: int, near: int | None, kept: int, *args: Any) -> None:  # noqa: ANN401
        key = (self, function, index)
        self._crew.begin(Call(function, (self._task, self.spans[index], *args), key, kept, near))

    def _take(self, answer: Answer) -> None:
        """Note what a call made."""
        _, function, index = answer.call.key
        if answer.error is not None:
            raise answer.error
        if function is read_window:
            self._windows[index] = _Window(answer.worker, *answer.kept)
            self._moved = self._moved._replace(read=self._moved.read + len(self.spans[index].kept))
        elif function is label_coarse:
            window = self._windows[index]
            window.coarse, window.state = answer.kept
            window.tokens, self._state, self._scans = None, window.state, False
            self._next_scan += 1
            self._enlarging.append(index)
        else:
            (self._windows[index].labels,) = answer.kept
            self._moved = self._moved._replace(enlarged=self._moved.enlarged + len(self.spans[index].kept))
        self.events.put(self._moved)
        self._hand_out()

    def _hand_out(self) -> None:
        """Put the windows that are ready into the events, in order."""
        while (window := self._windows.get(self._next_out)) is not None and window.labels is not None:
            self.events.put(Made(self._next_out, self.spans[self._next_out], window.labels, window.state))
            del self._windows[self._next_out]
            self._next_out += 1


def begin_scan(place: Workplace, task: ClipTask) -> ScanState | None:
    """Return the scan before the first window, where frames of the whole clip have their say."""
    clip = place.open(task.path, task.info)
    return start_from_clip(require_backbone(place), clip, task.settings, reference=task.reference)


def read_window(place: Workplace, task: ClipTask, span: Span) -> tuple[None, Features, Features]:
    """Return the features of a window in two parts: what the scan needs of them, and what enlarging needs."""
    clip = place.open(task.path, task.info)
    fitted = read_fitted(clip, span.frames, task.settings)
    made = extract_window_features(require_backbone(place), fitted, span, task.settings)
    if task.settings.cluster.motion and span.frames.start == 0:  # the anchor's window, while it has pictures
        made = with_flow(made)
    tokens = made._replace(latents=made.latents[:, :0], noise=made.noise[:, :0], pictures=None)
    rest = made._replace(queries=made.queries[:, :0], matching=made.matching[:, :0], flow=None)
    return None, tokens, rest


def label_coarse(
    place: Workplace, task: ClipTask, span: Span, tokens: Features, state: ScanState | None
) -> tuple[None, LabelMaps, ScanState]:
    """Return the coarse maps of a window, and the scan after it."""
    return None, *scan_window(_move(tokens, place), span, task.settings, state, reference=task.reference)


def enlarge_window(
    place: Workplace, task: ClipTask, span: Span, rest: Features, coarse: LabelMaps
) -> tuple[None, LabelMaps]:
    """Return the label maps of a window."""
    del span
    return None, upsample(require_backbone(place), _move(rest, place), coarse, task.settings)


def _move(features: Features, place: Workplace) -> Features:
    """Return features that another worker may have made, to be computed with on the device of this one."""
    return features._replace(device=find_gpu(place.spec.choose_device()))


def require_backbone(place: Workplace) -> FeatureSource:
    """Return the model of a place, which must have one."""
    if place.backbone is None:
        raise RuntimeError("a worker has no model")
    return place.backbone
