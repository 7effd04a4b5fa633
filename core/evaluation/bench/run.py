"""Run jobs, here or on the workers of a Ray cluster: segment a clip by a method, name, score."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ...backbones.memory import choose_device
from ...backbones.protocol import FeatureSource
from ...checkpoints.describe import ModelDescription
from ...checkpoints.vision import VisionDescription
from ...files.record import list_versions
from ...progress import Display, format_duration
from ...regions.labels import assign_clusters
from ...types import VOID, InputError, Progress, no_progress
from ..baselines import Start, run_method
from ..supervoxels import RegionScores, RegionTally, name_by_best_class
from .dataset import BenchClip, ClipFrames
from .methods import Job, JobResult
from .tally import Tally, compute_scores, tally_clip


def run_job(job: Job, backbone: FeatureSource | None, progress: Progress = no_progress) -> JobResult:
    """Segment the clip as far as its last labeled frame, name the clusters, and score."""
    clip, settings = job.clip, job.settings
    numbers = sorted(clip.masks)
    frames = ClipFrames(clip)
    truth = torch.stack(list(_read_truth(clip, numbers, frames.frame_size)))
    reference = truth[0] if numbers[0] == 0 and not job.nameless else None
    found: dict[int, Tensor] = {}
    start, done = time.perf_counter(), 0
    for result in run_method(job.method.kind, backbone, frames, settings, Start(reference), progress):
        for number in clip.masks.keys() & set(result.frames):
            found[number] = result.labels.maps[number - result.frames.start].cpu()
        done = max(done, result.frames.stop)
        if done > numbers[-1] and settings.variant == "paper":
            break
    seconds = time.perf_counter() - start
    prediction = torch.stack([found[number] for number in numbers])
    measures = None
    if job.nameless:
        measures = _measure_regions(prediction, truth, numbers)
        prediction = name_by_best_class(prediction, truth)
    elif reference is None:
        prediction = name_by_majority(prediction, truth[0])
    tally = tally_clip(prediction, truth, numbers, clip.classes, clip.fps)
    record = _make_record(job, tally, seconds, done)
    if measures:
        record["nameless"] = measures._asdict()
    return JobResult(record, prediction[numbers.index(clip.middle)])


def _measure_regions(prediction: Tensor, truth: Tensor, numbers: Sequence[int]) -> RegionScores:
    """Return the measures of regions ``(L,H,W)`` without names."""
    gathered = RegionTally()
    for number, labels, true in zip(numbers, prediction, truth, strict=True):
        gathered.update(number, labels, true)
    return gathered.compute()


def _read_truth(clip: BenchClip, numbers: Sequence[int], frame_size: tuple[int, int]) -> Iterator[Tensor]:
    """Yield the masks ``(H,W)`` uint8 of labeled frames, of the size of the frames."""
    for number, mask in zip(numbers, clip.read_masks(numbers), strict=True):
        if tuple(mask.shape) != frame_size:
            (height, width), path = frame_size, clip.masks[number]
            raise InputError(
                f"`ROOT` must hold masks of the size of their frames, {width}x{height}, but {path} is "
                f"{mask.shape[1]}x{mask.shape[0]}. Write it in the size of the frames."
            )
        yield mask


def name_by_majority(prediction: Tensor, truth: Tensor) -> Tensor:
    """Give clusters ``(L,H,W)`` the class that most of their pixels have in ``truth`` ``(H,W)`` of the first frame.

    Clusters without a vote, or that do not occur in that frame, become void.
    """
    clusters = prediction[0].long()
    labels, _ = assign_clusters(clusters, truth)
    table = torch.full((256,), VOID, dtype=torch.uint8)
    table[clusters.flatten()] = labels.flatten().to(torch.uint8)
    return table[prediction.long()]


def _make_record(job: Job, tally: Tally, seconds: float, num_frames: int) -> dict[str, Any]:
    """Return what the clip's file says beside what made it."""
    scores = compute_scores([tally])
    return {
        "clip": job.clip.name,
        "method": job.method.name,
        "frames": num_frames,
        "labeled": len(job.clip.masks),
        "seconds": seconds,
        "scores": {
            "mIoU": scores.miou,
            "consistency": dict(scores.consistency),
            "matched mIoU": scores.matched,
            "boundary F": scores.boundary,
            "label switches/s": scores.switches,
            "IoU": dict(scores.ious),
        },
        "tally": tally.to_json(),
        "versions": list_versions(),
    }


if TYPE_CHECKING:
    from ray.actor import ActorHandle
RETRIES = 3
"""Times a job is run again after its worker was lost."""
INIT_HINT = "Start one with `ray start --head`, or leave out RAY_ADDRESS to use this machine."


@dataclass(frozen=True)
class ModelSpec:
    """How a worker loads the model.

    Attributes:
        description: of the file or folder, or None.
        device: None for the best there is.
        dtype: floating-point type.
        features: of the folder of a vision model, the yardstick, or None.
        threads: of the CPU; the same on all workers, so that they add up numbers in the same order.
    """

    description: ModelDescription | VisionDescription | None
    device: str | None = None
    dtype: torch.dtype = torch.float32
    features: VisionDescription | None = None
    threads: int = field(default_factory=torch.get_num_threads)

    @property
    def kind(self) -> str:
        """``sd``, ``svd``, ``sdxl`` or ``vision``."""
        return self.description.kind if self.description else "sd"

    def load_all(self) -> dict[str, FeatureSource | None]:
        """Load what gives features, by `Method.source`; None where no row needs it."""
        return {"model": self.load(), "features": self._load(self.features)}

    def load(self) -> FeatureSource | None:
        """Load the model; None where no row needs one."""
        return self._load(self.description)

    def _load(self, description: ModelDescription | VisionDescription | None) -> FeatureSource | None:
        if description is None:
            return None
        from ...backbones.diffusers.load import load_diffusers  # noqa: PLC0415, diffusers takes seconds to import

        device = torch.device(self.device) if self.device else choose_device()
        return load_diffusers(description, dtype=self.dtype, device=device)


class Finished(NamedTuple):
    """A job that ended: its result, or what was wrong with its input."""

    job: Job
    result: JobResult | None
    problem: str | None


class BenchProgress:
    """Shows how many of ``total`` jobs are done, and the time left."""

    def __init__(self, display: Display, total: int) -> None:
        self._display, self._total, self._done = display, total, 0
        self._begin = time.monotonic()

    def stage(self, job: Job) -> Progress:
        """Return the ``progress`` of one job."""

        def report(stage: str, done: int, total: int) -> None:
            self._show(f"{job.name}: {stage} {done} of {total}", last=False)

        return report

    def finished(self, job: Job) -> None:
        """Count a job."""
        self._done += 1
        self._show(f"{job.name} done", last=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._display.close()

    def _show(self, text: str, *, last: bool) -> None:
        left = "?"
        if self._done:
            left = format_duration((time.monotonic() - self._begin) / self._done * (self._total - self._done))
        counts = f"{self._done} of {self._total} clips, {left} left"
        self._display.show(self._done / max(self._total, 1), f"{counts}; {text}", last=last)


Engine = Callable[[Sequence[Job], ModelSpec, BenchProgress], Iterator[Finished]]
"""Runs jobs and yields each as it ends, in any order."""


def run_local(jobs: Sequence[Job], model: ModelSpec, progress: BenchProgress) -> Iterator[Finished]:
    """Run jobs one after another in this process."""
    sources = model.load_all()
    for job in jobs:
        yield attempt(job, sources[job.method.source], progress.stage(job))


def attempt(job: Job, backbone: FeatureSource | None, progress: Progress = no_progress) -> Finished:
    """Run a job; input that cannot be processed, or a lack of memory, ends this job, not the others."""
    try:
        return Finished(job, run_job(job, backbone, progress), None)
    except (InputError, OSError, MemoryError, RuntimeError) as error:
        return Finished(job, None, str(error) or type(error).__name__)


class _Worker:
    """Holds one model for as long as it lives."""

    def __init__(self, model: ModelSpec) -> None:
        torch.set_num_threads(model.threads)
        self._sources = model.load_all()

    def run(self, job: Job) -> Finished:
        """Run one job."""
        return attempt(job, self._sources[job.method.source])


def run_on_ray(
    jobs: Sequence[Job], model: ModelSpec, progress: BenchProgress, *, workers: int = 0
) -> Iterator[Finished]:
    """Run jobs on actors of a Ray cluster, each with its own model; the job of a lost worker is run again.

    The cluster is the one of ``RAY_ADDRESS``, or one that is started on this machine. Data set and model must lie
    under the same paths on all machines. No number of workers is one per GPU, or one where there is none.
    """
    ray = _connect_ray()
    gpus = int(ray.cluster_resources().get("GPU", 0))
    has_model = model.description is not None or model.features is not None
    uses_gpu = gpus > 0 and (model.device or "cuda").startswith("cuda") and has_model
    if uses_gpu and workers > gpus:
        raise InputError(f"`--workers` must be at most the cluster's GPUs, {gpus}, but got {workers}. Leave it out.")
    count = min(workers or max(gpus, 1), max(len(jobs), 1))
    actor = ray.remote(num_gpus=1 if uses_gpu else 0, max_restarts=-1, max_task_retries=RETRIES)(_Worker)
    idle: list[ActorHandle[Any]] = [actor.remote(model) for _ in range(count)]
    busy: dict[Any, tuple[ActorHandle[Any], Job]] = {}
    waiting = list(reversed(jobs))
    while waiting or busy:
        while waiting and idle:
            worker, job = idle.pop(), waiting.pop()
            progress.stage(job)("started", 0, 1)
            busy[worker.run.remote(job)] = worker, job
        (ready,), _ = ray.wait(list(busy), num_returns=1)
        worker, job = busy.pop(ready)
        idle.append(worker)
        try:
            yield ray.get(ready)
        except ray.exceptions.RayActorError as error:
            reason = str(error).strip().split("\n")[-1]
            yield Finished(job, None, f"its worker was lost, after {RETRIES} retries or at its start: {reason}")


def _connect_ray() -> Any:  # noqa: ANN401, an optional package
    """Return the module ``ray`` with a cluster at hand."""
    try:
        import ray  # noqa: PLC0415, an optional package
    except ImportError as error:
        raise InputError("`--engine ray` must find Ray, but it is not installed. pip install 'ray>=2.40'.") from error
    if not ray.is_initialized():
        joins = bool(os.environ.get("RAY_ADDRESS"))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of our own reports nothing to anyone
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=None if joins else False)
        except (ConnectionError, RuntimeError) as error:
            raise InputError(f"`--engine ray` must reach a cluster, but: {error}. {INIT_HINT}") from error
    return ray
