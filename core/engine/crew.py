"""Workers on the machines of a Ray cluster, and calls to them; what a lost worker had begun is done by another."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..types import InputError, SettingError
from .cluster import Cluster, connect_ray
from .model import ModelSpec, Workplace
from .sight import Sight, check_sights, describe_path, look_around
from .worker import Worker

RETRIES = 3
"""Times that something is done again after its worker was lost."""
PATIENCE = 60.0
"""Seconds in which all workers should be there; work begins then with those that are."""
_PAUSE = 0.2
"""Seconds between two looks for a worker that is being started again."""


@dataclass
class Call:
    """Something for a worker to do.

    Attributes:
        function: called with the worker's `Workplace`, then ``args``; references among them stand for their values.
        args: sent along.
        key: what the caller knows it by.
        kept: values behind the first that stay in the cluster; the function then returns a tuple.
        near: number of the worker that should do it, as values lie there, if it is free.
        lost: how often its worker was lost.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    key: Any = None
    kept: int = 0
    near: int | None = None
    lost: int = 0


class Answer(NamedTuple):
    """How a call ended: its value, or what was wrong; ``kept`` refers to the values that stay in the cluster."""

    call: Call
    worker: int
    value: Any = None
    kept: tuple[Any, ...] = ()
    error: BaseException | None = None


class LostValueError(Exception):
    """A value that stayed in the cluster went with its machine."""


@dataclass
class _Member:
    """A worker: its actor, the call that it does, and when it is looked for again after it was lost."""

    actor: Any
    sight: Sight | None = None
    call: Call | None = None
    again: float | None = None
    refs: list[Any] = field(default_factory=list)


class Crew:
    """Workers that do one call at a time, each with its own model; ``device`` is the kind that all of them have."""

    def __init__(self, spec: ModelSpec, cluster: Cluster, most: int) -> None:
        self._ray = connect_ray(cluster.address)
        self.spec, self._paths = spec, [describe_path(path) for path in cluster.paths]
        self._members = {number: _Member(actor) for number, actor in enumerate(self._start(cluster.workers, most))}
        self._again: deque[Call] = deque()
        try:
            for member in self._members.values():
                self._look(member)
            self.device = self._gather()
            self._load_models()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_error: object) -> None:
        """End all workers, whatever they do."""
        for member in self._members.values():
            self._ray.kill(member.actor)

    @property
    def size(self) -> int:
        """Number of workers, those that are being started again included."""
        return len(self._members)

    @property
    def free(self) -> list[int]:
        """Numbers of the workers that have nothing to do."""
        return [number for number, member in self._members.items() if member.sight and not member.refs]

    def begin(self, call: Call) -> None:
        """Let a free worker do a call."""
        free = self.free
        member = self._members[call.near if call.near in free else free[0]]
        member.call = call
        refs = member.actor.do.options(num_returns=1 + call.kept).remote(call.function, *call.args)
        member.refs = refs if call.kept else [refs]

    def wait(self, timeout: float | None = None) -> Answer | None:
        """Return the next call that ended, or None if none did in ``timeout`` seconds, or a worker came or went."""
        self._look_again()
        busy = {member.refs[0]: number for number, member in self._members.items() if member.refs}
        if not busy:
            time.sleep(_PAUSE)
            return None
        waits = [member.again for member in self._members.values() if member.again is not None]
        timeout = min(timeout or PATIENCE, _PAUSE) if waits else timeout
        ready, _ = self._ray.wait(list(busy), num_returns=1, timeout=timeout, fetch_local=False)
        return self._take(busy[ready[0]]) if ready else None

    def peek(self) -> list[tuple[Any, Any]]:
        """Return the keys of calls under way, and what each shows of itself."""
        asked = {m.actor.peek.remote(): m.call.key for m in self._members.values() if m.call and m.refs}
        ready, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=_PAUSE) if asked else ([], [])
        shown = []
        for ref in ready:
            with contextlib.suppress(self._ray.exceptions.RayError):
                shown.append((asked[ref], self._ray.get(ref)))
        return shown

    def fetch(self, value: Any) -> Any:  # noqa: ANN401, whatever it refers to
        """Return a value that stayed in the cluster."""
        try:
            return self._ray.get(value)
        except self._ray.exceptions.RayError as error:
            raise LostValueError(shorten(error)) from error

    def forget(self) -> None:
        """Do not do again what lost workers had begun."""
        self._again.clear()

    def keep(self, value: Any) -> Any:  # noqa: ANN401, whatever it is
        """Put a value into the cluster, for several calls; return what refers to it."""
        return self._ray.put(value)

    def _start(self, asked: int, most: int) -> list[Any]:
        """Start the workers: one for each GPU, or on the machines in turn, the one that asks first."""
        ray, spec = self._ray, self.spec
        gpus = int(ray.cluster_resources().get("GPU", 0))
        uses_gpu = gpus > 0 and (spec.device or "cuda").startswith("cuda") and spec.has_model
        if uses_gpu and asked > gpus:
            raise SettingError("workers", f"be at most the cluster's GPUs, {gpus}", asked, "Leave it out")
        here = ray.get_runtime_context().get_node_id()
        nodes = sorted((node["NodeID"] for node in ray.nodes() if node["Alive"]), key=lambda node: node != here)
        count = min(asked or (gpus if uses_gpu else len(nodes)), max(most, 1))
        actor = ray.remote(num_gpus=1 if uses_gpu else 0, max_restarts=-1, max_concurrency=2)(Worker)
        if uses_gpu:
            return [actor.remote(spec) for _ in range(count)]
        near = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        strategies = [near(nodes[number % len(nodes)], soft=True) for number in range(count)]
        return [actor.options(scheduling_strategy=strategy).remote(spec) for strategy in strategies]

    def _gather(self) -> str:
        """Wait for the workers, check that they see the paths and are of one kind, and return that of their device."""
        deadline = time.monotonic() + PATIENCE
        while not all(member.sight for member in self._members.values()):
            self.wait(_PAUSE)
            if time.monotonic() > deadline and self.free:
                break
        sights = [member.sight for member in self._members.values() if member.sight]
        check_sights(sights)
        return sights[0].device

    def _load_models(self) -> None:
        """Let the workers that are there load their models, all at once, and say what is wrong before any long work."""
        for _ in self.free:
            self.begin(Call(load_model))
        while any(member.call for member in self._members.values()):
            answer = self.wait(_PAUSE)
            if answer is not None and answer.error is not None:
                raise answer.error
        self.forget()  # a worker that was lost loads its model when it needs it

    def _look(self, member: _Member) -> None:
        """Let a worker say what it sees."""
        member.sight, member.call, member.again = None, None, None
        member.refs = [member.actor.do.remote(look_around, self._paths)]

    def _look_again(self) -> None:
        """Look for workers that were lost, and give free ones what others had begun."""
        for member in self._members.values():
            if member.again is not None and time.monotonic() >= member.again:
                self._look(member)
        while self._again and self.free:
            self.begin(self._again.popleft())

    def _take(self, number: int) -> Answer | None:
        """Return how the call of a worker ended, unless it is to be done again."""
        ray, member = self._ray, self._members[number]
        call, (ref, *kept), member.refs, member.call = member.call, member.refs, [], None
        try:
            value = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            if call:
                return Answer(call, number, error=self._name_cause(error))
            return self._dismiss(number, error)
        except ray.exceptions.RayError as error:
            if call and isinstance(error, ray.exceptions.ObjectLostError):
                return Answer(call, number, error=LostValueError(shorten(error)))
            return self._lose(number, call, shorten(error))
        if call is not None:
            return Answer(call, number, value, tuple(kept))
        member.sight = value
        return None

    def _name_cause(self, error: Any) -> BaseException:  # noqa: ANN401, of an optional package
        """Return what was raised in the worker; a value that it could not get was lost."""
        lost = isinstance(error.cause, self._ray.exceptions.RayError)
        return LostValueError(shorten(error.cause)) if lost else error.cause or RuntimeError(str(error))

    def _lose(self, number: int, call: Call | None, reason: str) -> Answer | None:
        """Note that a worker was lost: it is looked for again, and another may do its call."""
        member = self._members[number]
        member.sight, member.again = None, time.monotonic() + _PAUSE
        if call is None:
            return None
        call.lost += 1
        if call.lost <= RETRIES:
            self._again.append(call)
            return None
        error = InputError(f"its worker was lost, after {RETRIES} retries: {reason}")
        return Answer(call, number, error=error)

    def _dismiss(self, number: int, error: BaseException) -> Answer | None:
        """Go on without a worker that cannot say what it sees."""
        self._ray.kill(self._members.pop(number).actor)
        if not self._members:
            raise InputError(f"`--engine ray` must have workers, but the last was lost: {error}. Start it again.")
        return None


def load_model(place: Workplace) -> None:
    """Load the model of a place, which keeps it."""
    _ = place.backbone, place.features


def shorten(error: BaseException) -> str:
    """Return the line of an error of Ray that says what happened: the last."""
    return str(error).strip().split("\n")[-1]
