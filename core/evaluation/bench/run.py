"""Run a job: segment a clip by a method, name, score."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ...backbones.protocol import FeatureSource
from ...engine.jobs import report_to
from ...engine.model import Workplace
from ...files.record import list_versions
from ...progress import Display
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


def run_at(job: Job, place: Workplace, display: Display) -> JobResult:
    """Run a job with the model of a place."""
    return run_job(job, place.features if job.method.source == "features" else place.backbone, report_to(display))
