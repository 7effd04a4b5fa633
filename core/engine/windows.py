"""One clip on many workers: windows are read, scanned one after the other and enlarged wherever there is room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from ..config.settings import Settings
from ..files.clip import Clip, ClipInfo
from ..method.estimate import UnitCosts, announce_costs, measure_costs
from ..method.pipeline import ScanState, WindowResult
from ..method.windows import split_spans
from ..progress import RunProgress
from ..types import InputError, Progress
from .cluster import Cluster
from .crew import RETRIES, Call, Crew, LostValueError
from .line import ClipTask, Line, Made, begin_scan, require_backbone
from .model import ModelSpec, Workplace

_PAUSE = 0.2
"""Seconds between two looks for a worker."""


class ClipOnRay:
    """Makes the windows of one clip on workers, as `pipeline.segment_windows` does here, to the last pixel.

    A window whose worker was lost is made again. Where a machine went with what it held, the clip goes on from the
    last window that was handed out.
    """

    def __init__(self, spec: ModelSpec, cluster: Cluster, path: Path) -> None:
        self._spec, self._path = spec, path.absolute()
        self._cluster = cluster._replace(paths=(*cluster.paths, self._path))
        self._stack = ExitStack()
        self._crew: Crew | None = None

    def __enter__(self) -> ClipOnRay:
        return self

    def __exit__(self, *_error: object) -> None:
        """End the workers."""
        self._stack.close()

    def prepare(self, num_frames: int, settings: Settings) -> str:
        """Start the workers, no more than there are windows, and check them; return their kind of device."""
        crew = Crew(self._spec, self._cluster, len(split_spans(num_frames, settings)))
        self._crew = self._stack.enter_context(crew)
        return crew.device

    def count_together(self, num_frames: int, settings: Settings) -> int:
        """Return how many frames are shown as under way: all, since windows overtake each other."""
        del settings
        return num_frames

    def announce(self, progress: RunProgress, info: ClipInfo, settings: Settings, first: int) -> None:
        """Say how long the run will take, after a look at what the model costs on one worker."""
        costs = self._ask(_measure, info.frame_size, settings, info.num_frames)
        announce_costs(progress, costs, settings, info.num_frames, first, self._require_crew().size)

    def make(
        self, clip: Clip, settings: Settings, reference: Tensor | None, state: ScanState | None, progress: Progress
    ) -> Iterator[WindowResult]:
        """Yield the windows in order, from that on which the state tells."""
        crew, losses = self._require_crew(), 0
        task = ClipTask(self._path, clip.info, settings, reference)
        if state is None and settings.cluster.fit_frames == "clip":
            state = self._ask(begin_scan, task)
        while True:
            line = Line(crew, task, state)
            self._stack.callback(line.end)
            try:
                for made in _follow(line, progress):
                    state, labels = crew.fetch(made.state), crew.fetch(made.labels)
                    yield WindowResult(made.span.kept, labels, None, state)
                    losses, line.taken = 0, made.number + 1
            except LostValueError as error:
                losses += 1
                if losses > RETRIES:
                    raise InputError(f"`--engine ray` must keep its machines, but: {error}. Resume.") from error
                line.end()
                crew.forget()
            else:
                return

    def _ask(self, function: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401
        """Return what a function makes on one worker, the first that is free."""
        crew = self._require_crew()
        while not crew.free:
            crew.wait(_PAUSE)
        crew.begin(Call(function, args))
        while (answer := crew.wait()) is None:
            pass
        if answer.error is not None:
            raise answer.error
        return answer.value

    def _require_crew(self) -> Crew:
        if self._crew is None:
            raise RuntimeError("the workers were not started")
        return self._crew


def _measure(place: Workplace, size: tuple[int, int], settings: Settings, num_frames: int) -> UnitCosts:
    """Return what the parts of the model cost at a place."""
    return measure_costs(require_backbone(place), size, settings, num_frames)


def _follow(line: Line, progress: Progress) -> Iterator[Made]:
    """Let a line work, show how far it is, and yield its windows as they come."""
    line.start()
    read = 0
    while (event := line.events.get()) is not None:
        if isinstance(event, BaseException):
            raise event
        if isinstance(event, Made):
            yield event
        elif line.taken < len(line.spans):
            done = line.spans[line.taken].kept.start
            total = line.spans[-1].kept.stop - done
            if event.read > read:
                progress("features", event.read - done, total)
            progress("upsampling", event.enlarged - done, total)
            read = event.read
