"""One clip by one method: segment, name, score. The same on every engine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...backbones.protocol import Backbone
from ...config.settings import Settings
from ...files.record import list_versions
from ...regions.labels import assign_clusters
from ...types import VOID, InputError, Progress, no_progress
from ..baselines import Start, run_method
from .dataset import BenchClip, ClipFrames
from .methods import Method
from .tally import Tally, compute_scores, tally_clip


@dataclass(frozen=True)
class Job:
    """One clip by one method, with all settings. It can be sent to another process."""

    method: Method
    clip: BenchClip
    settings: Settings

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.method.name}/{self.clip.name}"


class JobResult(NamedTuple):
    """What a job leaves.

    Attributes:
        record: plain values for the clip's JSON file.
        picture: ``(H,W)`` uint8 label map of the frame that pictures show.
    """

    record: dict[str, Any]
    picture: Tensor


def run_job(job: Job, backbone: Backbone | None, progress: Progress = no_progress) -> JobResult:
    """Segment the clip as far as its last labeled frame, name the clusters, and score.

    Args:
        job: what to do.
        backbone: the diffusion model; None if the method needs none.
        progress: called as ``(stage, done, total)``.

    Raises:
        InputError: a file is missing or damaged, or the method cannot process the clip.
    """
    clip, settings = job.clip, job.settings
    numbers = sorted(clip.masks)
    frames = ClipFrames(clip)
    truth = torch.stack([_truth(clip, number, frames.frame_size) for number in numbers])
    reference = truth[0] if numbers[0] == 0 else None
    found: dict[int, Tensor] = {}
    start, done = time.perf_counter(), 0
    for result in run_method(job.method.kind, backbone, frames, settings, Start(reference), progress):
        for number in clip.masks.keys() & set(result.frames):
            found[number] = result.labels.maps[number - result.frames.start].cpu()
        done = max(done, result.frames.stop)
        if done > numbers[-1] and settings.window.tail == "short":
            break
    seconds = time.perf_counter() - start
    prediction = torch.stack([found[number] for number in numbers])
    if reference is None:
        prediction = name_by_majority(prediction, truth[0])
    tally = tally_clip(prediction, truth, numbers, clip.classes, clip.fps)
    return JobResult(_record(job, tally, seconds, done), prediction[len(numbers) // 2])


def _truth(clip: BenchClip, number: int, frame_size: tuple[int, int]) -> Tensor:
    """Return the mask ``(H,W)`` uint8 of a labeled frame, of the size of the frames."""
    mask = clip.read_mask(number)
    if tuple(mask.shape) != frame_size:
        (height, width), path = frame_size, clip.masks[number]
        raise InputError(
            f"`ROOT` must hold masks of the size of their frames, {width}x{height}, but {path} is "
            f"{mask.shape[1]}x{mask.shape[0]}. Write it in the size of the frames."
        )
    return mask


def name_by_majority(prediction: Tensor, truth: Tensor) -> Tensor:
    """Give each cluster the class that most of its pixels have in the first labeled frame, void without a vote.

    Args:
        prediction: ``(L,H,W)`` uint8 clusters of the labeled frames.
        truth: ``(H,W)`` uint8 classes of the first of them.

    Returns:
        ``(L,H,W)`` uint8; clusters that do not occur in that frame become void.
    """
    clusters = prediction[0].long()
    labels, _ = assign_clusters(clusters, truth)
    table = torch.full((256,), VOID, dtype=torch.uint8)
    table[clusters.flatten()] = labels.flatten().to(torch.uint8)
    return table[prediction.long()]


def choose_picture_frame(clip: BenchClip) -> int:
    """Return the number of the labeled frame that pictures show: the middle one."""
    numbers = sorted(clip.masks)
    return numbers[len(numbers) // 2]


def _record(job: Job, tally: Tally, seconds: float, num_frames: int) -> dict[str, Any]:
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
