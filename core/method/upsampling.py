"""From coarse maps to full resolution: modulate, decode, compare, choose (paper 4.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..backbones.protocol import REPLAYED_TOGETHER, Backbone, Denoiser, FeatureSource, require_modulation
from ..config.settings import Settings
from ..types import Features, LabelMaps, Progress, SeenWindow, no_progress, require_shape
from . import published
from .differences import RunningArgmax, make_initial_maps, score_labels
from .enlarging import add_leaves, enlarge_maps, enlarge_nearest
from .features import require_same_kind
from .modulation import Batching, Inversion, ModulatedPair, UnitJob, modulate
from .modulation_jobs import ModulationJob, plan_jobs
from .sampling import list_modulated_levels, list_sigmas


def upsample(
    source: FeatureSource,
    features: Features,
    coarse: LabelMaps,
    settings: Settings,
    *,
    progress: Progress = no_progress,
) -> LabelMaps:
    """Return label maps in the size of the input frames (paper 4.3, Eq. 2, 5, 6).

    Units (frames, or a video model's windows) are processed in chunks; the result does not depend on them. In a window
    that is shifted back, frames that are finished take part as they are: no region is modulated in them. A label absent
    from a frame's coarse map has an empty difference map there and is skipped, which changes nothing. ``progress`` has
    stages ``modulation`` in steps and ``decoding`` in frames of jobs, or ``upsampling`` in frames.
    """
    require_shape("coarse.maps", coarse.maps, "T h w", T=features.num_kept, h=features.grid.h, w=features.grid.w)
    if not settings.modulation.enabled:
        return enlarge_maps(coarse, features.kept(), settings.enlarging, progress)
    require_same_kind(features, settings)
    backbone = require_modulation(source)
    batch, units = backbone.batch_size(tuple(features.latents.shape[1:])), features.units
    chunks, first = [], 0
    for start in range(0, len(units), batch):
        chunk = _Chunk(backbone, features, units[start : start + batch], settings, batch)
        count = chunk.num_kept
        chunk.plan(coarse, first)
        chunks.append(chunk)
        first += count
    report = _Report(progress, {stage: sum(chunk.work[stage] for chunk in chunks) for stage in _Chunk.STAGES})
    maps = torch.cat([chunk.label_maps(report) for chunk in chunks])
    full = LabelMaps(maps, coarse.regions, coarse.frame_size)
    return add_leaves(full, coarse, features.kept(), settings.enlarging)


def _count_together(device: torch.device) -> int:
    """Return how many pairs are decoded in one call, as far as memory goes; a CPU is no faster with several."""
    return 1 if device.type == "cpu" else 4


class _Scored(NamedTuple):
    """A frame of a job whose pixels are scored: its number there and among the kept ones, and both its latents."""

    job: ModulationJob
    frame: int
    number: int
    latents: Tensor


@dataclass
class _Report:
    """Progress of all chunks together."""

    progress: Progress
    totals: dict[str, int]
    done: Counter[str] = field(default_factory=Counter)

    def advance(self, stage: str, count: int) -> None:
        """Report that ``count`` more units of ``stage`` are done."""
        self.done[stage] += count
        self.progress(stage, self.done[stage], self.totals[stage])


class _Chunk:
    """Units that are modulated together."""

    STAGES = ("modulation", "decoding")

    def __init__(
        self, backbone: Backbone, features: Features, units: Sequence[SeenWindow], settings: Settings, batch: int
    ) -> None:
        self.settings, self.units, self.batch = settings, units, batch
        self.backbone = backbone.conditioned(units[0].conditioning, settings.video, settings.variant)
        self.start = units[0].start
        frames = slice(units[0].start, units[-1].stop)
        self.latents, self.noise = features.latents[frames], features.noise[frames]
        self.num_kept = sum(unit.stop - unit.first_kept for unit in units)
        self.sigmas = list_sigmas(backbone, settings)

    def plan(self, coarse: LabelMaps, first: int) -> None:
        """Plan the jobs for the coarse maps from number ``first`` on."""
        self.coarse = LabelMaps(coarse.maps[first : first + self.num_kept], coarse.regions, coarse.frame_size)
        self.jobs: list[UnitJob] = []
        self.kept: list[int] = []  # by job: number among the kept frames of the first frame of its unit
        offset = 0
        for unit in self.units:
            finished, count = unit.first_kept - unit.start, unit.stop - unit.first_kept
            jobs = plan_jobs(self.coarse.maps[offset : offset + count], self.settings, finished)
            self.jobs += [UnitJob(unit.start - self.start, job) for job in jobs]
            self.kept += [offset - finished] * len(jobs)
            offset += count
        steps = len(list_modulated_levels(self.sigmas, self.settings)) - 1
        scored = sum(len(job.job.scored) for job in self.jobs)
        self.work = {"modulation": 2 * steps * len(self.jobs), "decoding": scored}

    def label_maps(self, report: _Report) -> Tensor:
        """Return ``(T,H,W)`` uint8 of the frames that are kept; decoding waits until the UNet is no longer needed."""
        size = self.coarse.frame_size
        make_initial = published.make_initial_maps if self.settings.variant == "published" else make_initial_maps
        best = RunningArgmax(make_initial(self.coarse, size))
        pairs = self._modulate(report) if self.jobs else []
        scored = [
            _Scored(job, frame, kept + frame, torch.stack([pair.plus[frame], pair.minus[frame]]))
            for (_, job), kept, pair in zip(self.jobs, self.kept, pairs, strict=True)
            for frame in job.scored
        ]
        together = _count_together(self.backbone.device)
        for first in range(0, len(scored), together):
            some = scored[first : first + together]
            decoded = torch.split(self.backbone.decode(torch.cat([each.latents for each in some])), 2)
            for each, pictures in zip(some, decoded, strict=True):
                owners = each.job.owner[each.frame]
                alone = int(owners[0, 0]) if bool((owners == owners[0, 0]).all()) else None
                scores = self._score(each.job, each.frame, pictures, owners if alone is None else None)
                best.update(each.number, enlarge_nearest(owners, size) if alone is None else alone, scores)
                report.advance("decoding", 1)
        return best.maps

    def _score(self, job: ModulationJob, frame: int, pictures: Tensor, owners: Tensor | None) -> Tensor:
        """Return the scores ``(H,W)`` of a frame of a job; ``owners`` of cells where several labels share it."""
        plus, minus = pictures[:, None]
        mask, size, difference = job.mask[frame][None], self.coarse.frame_size, self.settings.difference
        if self.settings.variant == "published":
            return published.score_labels(plus, minus, mask, size, difference)[0]
        return score_labels(plus, minus, mask, size, difference, owners=None if owners is None else owners[None])[0]

    def _modulate(self, report: _Report) -> list[ModulatedPair]:
        """Run all modulated passes."""
        inversion = Inversion(self.latents, self.noise, self.sigmas)
        batching = Batching(self.batch, 1 if self.settings.video.frames else REPLAYED_TOGETHER)
        advance = partial(report.advance, "modulation")

        def job(denoiser: Denoiser) -> list[ModulatedPair]:
            return modulate(denoiser, inversion, self.jobs, self.settings, batching, advance)

        unit = self.units[0]
        shape = (self.batch * (unit.stop - unit.start), *self.latents.shape[1:])
        return self.backbone.run(job, self.settings.sampling.guidance_scale, shape)
