"""Jobs that do not depend on each other, such as clips: one after the other here, or spread over workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ..progress import Display, format_duration
from ..types import InputError, Progress
from .cluster import Cluster
from .crew import Answer, Call, Crew
from .model import ModelSpec, Workplace
from .worker import call_with_memory

_LOOK_INTERVAL = 2.0
"""Seconds between two looks at how far the workers are."""
_LEAST = 1e-6
"""Share of the work from which on the time left is told."""


class Named(Protocol):
    """A job: it can be sent to another process, and messages call it by a name."""

    @property
    def name(self) -> str:
        """What messages call it; unique."""
        ...


J = TypeVar("J", bound=Named)
R = TypeVar("R")
Task = Callable[[J, Workplace, Display], R]
"""Does a job at a place, and shows how far it is."""
Tell = Callable[[BaseException], str]
"""Says what was wrong."""


@dataclass(frozen=True)
class Ended(Generic[J, R]):
    """A job that ended: its result, or what was wrong."""

    job: J
    result: R | None
    problem: str | None


def tell_plainly(error: BaseException) -> str:
    """Return the text of an error, or its kind where it has none."""
    return str(error) or type(error).__name__


class JobsProgress:
    """Shows how many of ``total`` jobs are done, and the time left; ``things`` is what they are."""

    def __init__(self, display: Display, total: int, things: str = "clips") -> None:
        self._display, self._total, self._things, self._done = display, total, things, 0
        self._begin = time.monotonic()

    def watch(self, job: Named) -> Display:
        """Return what the one job that is under way shows itself on."""
        return _JobDisplay(self, job.name)

    def finished(self, job: Named) -> None:
        """Count a job."""
        self._done += 1
        self.show(0.0, f"{job.name} done", last=True)

    def show_all(self, shown: Mapping[str, tuple[float, str]]) -> None:
        """Show the jobs that are under way, by name: the share of each that is done, and its text."""
        if shown:
            name, (_, text) = next(iter(shown.items()))
            self.show(sum(share for share, _ in shown.values()), f"{name}: {text}", last=False)

    def show(self, share: float, text: str, *, last: bool) -> None:
        """Show the jobs that are done, and the ``share`` of others."""
        done, left = self._done + share, "?"
        if done > _LEAST:
            left = format_duration((time.monotonic() - self._begin) / done * max(0.0, self._total - done))
        counts = f"{self._done} of {self._total} {self._things}, {left} left"
        self._display.show(done / max(self._total, 1), f"{counts}; {text}", last=last)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._display.close()


class _JobDisplay:
    """Shows one job as a part of all."""

    def __init__(self, progress: JobsProgress, name: str) -> None:
        self._progress, self._name = progress, name

    def show(self, fraction: float, text: str, *, last: bool) -> None:
        """Show it; the end of a stage is not that of the job."""
        del last
        self._progress.show(fraction, f"{self._name}: {text}", last=False)

    def close(self) -> None:
        """Nothing to restore: other jobs follow."""


class _PlaceDisplay:
    """Keeps what was shown last, for those who look from afar."""

    def __init__(self, place: Workplace) -> None:
        self._place = place

    def show(self, fraction: float, text: str, *, last: bool) -> None:
        """Keep it."""
        del last
        self._place.shown = fraction, text

    def close(self) -> None:
        """Nothing to restore."""


def report_to(display: Display) -> Progress:
    """Return a ``progress`` that shows stages as they come, without a share of the whole."""

    def report(stage: str, done: int, total: int) -> None:
        display.show(0.0, f"{stage} {done} of {total}", last=False)

    return report


def run_here(
    jobs: Sequence[J], task: Task[J, R], spec: ModelSpec, progress: JobsProgress, tell: Tell = tell_plainly
) -> Iterator[Ended[J, R]]:
    """Do jobs one after another in this process, with one model; what cannot be done ends its own job alone."""
    place = Workplace(spec)
    for job in jobs:
        yield attempt(job, task, place, progress.watch(job), tell)


def attempt(job: J, task: Task[J, R], place: Workplace, display: Display, tell: Tell = tell_plainly) -> Ended[J, R]:
    """Do a job; input that cannot be processed, or a lack of memory, ends this job, not the others."""
    try:
        return Ended(job, call_with_memory(_do, place, task, job, display), None)
    except (InputError, OSError, MemoryError, RuntimeError) as error:
        return Ended(job, None, tell(error))


def run_on_ray(
    jobs: Sequence[J],
    task: Task[J, R],
    spec: ModelSpec,
    progress: JobsProgress,
    tell: Tell = tell_plainly,
    *,
    cluster: Cluster,
) -> Iterator[Ended[J, R]]:
    """Do jobs on workers of a Ray cluster, each with its own model, and yield them as they end.

    The job of a lost worker is done again.
    """
    waiting = list(reversed(jobs))
    with Crew(spec, cluster, len(jobs)) as crew:
        under_way = 0
        while waiting or under_way:
            while waiting and crew.free:
                job, under_way = waiting.pop(), under_way + 1
                crew.begin(Call(_do_there, (task, job), key=job))
                progress.show_all({job.name: (0.0, "started")})
            answer = crew.wait(_LOOK_INTERVAL)
            if answer is None:
                progress.show_all({job.name: shown for job, shown in crew.peek() if shown})
            else:
                under_way -= 1
                yield _conclude(answer, tell)


def _conclude(answer: Answer, tell: Tell) -> Ended[J, R]:
    """Return the job that an answer is of."""
    if answer.error is None:
        return Ended(answer.call.key, answer.value, None)
    return Ended(answer.call.key, None, tell(answer.error))


def _do(place: Workplace, task: Task[J, R], job: J, display: Display) -> R:
    return task(job, place, display)


def _do_there(place: Workplace, task: Task[J, R], job: J) -> R:
    """Do a job in the process of a worker."""
    place.shown = None
    return task(job, place, _PlaceDisplay(place))
