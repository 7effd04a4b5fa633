"""Masked modulation: sampling repeated with an offset inside some cells (paper 4.3, Eq. 2 and 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..backbones.protocol import REPLAYED_TOGETHER, Denoiser
from ..config.parts import ModulationConfig
from ..config.settings import Settings
from ..types import CoarseMaps, InputError, require_shape
from .modulation_jobs import ModulationJob, plan_jobs
from .sampling import PlainPass, PlainStep, euler_step, list_modulated_levels, sample_before_modulation, take_plain_step

Blending = Literal["all", "first", "none"]
CELL_LATENTS = 2
"""Latents along the side of a coarse cell."""


class ModulatedPairs(NamedTuple):
    """Outcome of some jobs: clean latents ``plus`` and ``minus``, ``(B,4,H/8,W/8)`` float32, one of each per job."""

    jobs: tuple[ModulationJob, ...]
    plus: Tensor
    minus: Tensor


def modulate(
    denoiser: Denoiser, plain: PlainPass, coarse: CoarseMaps, settings: Settings, batch_size: int
) -> Iterator[ModulatedPairs]:
    """Modulate every region of every frame with both signs (paper 4.3).

    The jobs are those of `list_jobs`, in its order. On a CPU their results do not depend on ``batch_size``,
    elsewhere not beyond float rounding.

    Args:
        denoiser: the model.
        plain: unmodulated steps of ``F`` frames.
        coarse: maps ``(F,h,w)`` of the same frames.
        settings: modulation settings, and the precision of differences.
        batch_size: latents of one UNet call, at least 1; two jobs of a frame share a call even so.

    Yields:
        One compute batch at a time.

    Raises:
        InputError: the maps do not fit the latents, or ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise InputError(f"`batch_size` must be at least 1, but got {batch_size}. Pass 1 to use the least memory.")
    frames, _, height, width = plain.start.shape
    require_shape("coarse.maps", coarse.maps, "F h w", F=frames, h=height // CELL_LATENTS, w=width // CELL_LATENTS)
    jobs = list_jobs(coarse, settings)
    replays = _Replays(denoiser, plain, settings.modulation)
    for batch in _batches(jobs, batch_size // 2):
        yield replays.pairs(batch)


def _batches(jobs: Sequence[ModulationJob], count: int) -> Iterator[list[ModulationJob]]:
    """Yield jobs in batches of up to ``count``, or of one group: as many of one frame as a CPU repeats in a call.

    Groups start anew with each frame and are never split, whatever the size of a batch.
    """
    batch: list[ModulationJob] = []
    for _, same in groupby(jobs, attrgetter("frame")):
        frame_jobs = list(same)
        for first in range(0, len(frame_jobs), REPLAYED_TOGETHER // 2):
            group = frame_jobs[first : first + REPLAYED_TOGETHER // 2]
            if batch and len(batch) + len(group) > count:
                yield batch
                batch = []
            batch += group
    if batch:
        yield batch


def list_jobs(coarse: CoarseMaps, settings: Settings) -> tuple[ModulationJob, ...]:
    """Return what is modulated.

    With exact differences a frame of one single label is that label everywhere. With 8-bit differences pixels whose
    difference was truncated to zero get the lowest label of all, so its differences are needed.

    Args:
        coarse: maps ``(F,h,w)`` int64.
        settings: modulation settings, and the precision of differences.
    """
    return plan_jobs(coarse, settings.modulation, keep_uniform=settings.difference.precision == "8bit")


def make_offsets(masks: Tensor, signs: Tensor, factor: float) -> Tensor:
    """Return what Eq. 2 adds to the modulated attention's output: ``sign * factor`` inside the masks, zero outside.

    >>> make_offsets(torch.tensor([[[True, False]]]), torch.tensor([-1.0]), 50.0).tolist()
    [[[-50.0, 0.0]]]

    Args:
        masks: ``(B,h,w)`` boolean.
        signs: ``(B,)`` float32, 1 or -1.
        factor: modulation factor, lambda.

    Returns:
        ``(B,h,w)`` float32.
    """
    return torch.where(masks, (factor * signs)[:, None, None], 0.0)


def blend_latents(modulated: Tensor, plain: Tensor, masks: Tensor) -> Tensor:
    """Keep modulated latents inside the masks and put plain ones outside (paper Eq. 5).

    Args:
        modulated: ``(B,4,H/8,W/8)``.
        plain: ``(B,4,H/8,W/8)``, latents of the unmodulated pass after the same step.
        masks: ``(B,h,w)`` boolean; each cell covers two by two latents.

    Raises:
        InputError: shapes do not fit.
    """
    sizes = require_shape("masks", masks, "B h w")
    shape = {"B": sizes["B"], "H": CELL_LATENTS * sizes["h"], "W": CELL_LATENTS * sizes["w"]}
    require_shape("modulated", modulated, "B 4 H W", **shape)
    require_shape("plain", plain, "B 4 H W", **shape)
    inside = masks.repeat_interleave(CELL_LATENTS, dim=1).repeat_interleave(CELL_LATENTS, dim=2)
    return torch.where(inside[:, None], modulated, plain)


def blends_after(index: int, blending: Blending) -> bool:
    """Return whether latents are blended after the ``index``-th step, counted from the modulated one.

    Paper: after every step. Reference code: after the first two only (``first``).
    """
    return blending == "all" or (blending == "first" and index < 2)


@dataclass(frozen=True)
class _Replays:
    """Repetitions of a plain pass over ``F`` frames."""

    denoiser: Denoiser
    plain: PlainPass
    config: ModulationConfig

    def pairs(self, jobs: Sequence[ModulationJob]) -> ModulatedPairs:
        """Do the jobs with both signs, plus and minus of a job next to each other."""
        device = self.plain.start.device
        frames = torch.tensor([job.frame for job in jobs], device=device).repeat_interleave(2)
        masks = torch.stack([job.mask for job in jobs]).to(device).repeat_interleave(2, dim=0)
        signs = torch.tensor([1.0, -1.0], device=device).repeat(len(jobs))
        sampled = self._sampled(frames, masks, signs)
        return ModulatedPairs(tuple(jobs), sampled[::2], sampled[1::2])

    def _sampled(self, frames: Tensor, masks: Tensor, signs: Tensor) -> Tensor:
        """Return clean latents ``(B,4,H/8,W/8)``, modulated in the first step alone, for elements ``(B,)``."""
        offset: Tensor | None = make_offsets(masks, signs, self.config.factor)
        latents = self.plain.start[frames]
        for index, step in enumerate(self.plain.steps):
            denoised = self.denoiser.replay(latents, step.sigma, step.cache, frames, offset)
            latents = euler_step(latents, denoised, step.sigma, step.next_sigma)
            if blends_after(index, self.config.blending):
                latents = blend_latents(latents, step.latents[frames], masks)
            offset = None
        return latents


SIGNS = (1.0, -1.0)


class ModulatedWindow(NamedTuple):
    """Clean latents ``(T,4,H/8,W/8)`` of a window, modulated up and down in the region of ``label``."""

    label: int
    plus: Tensor
    minus: Tensor


def modulate_window(
    denoiser: Denoiser,
    latents: Tensor,
    sigmas: Tensor,
    masks: dict[int, Tensor],
    settings: Settings,
    advance: Callable[[], None],
) -> list[ModulatedWindow]:
    """Sample a window without modulation, and with it for each region and both signs, step by step.

    Args:
        denoiser: the model, conditioned on the window.
        latents: ``(T,4,H/8,W/8)`` float32, with noise of ``sigmas[settings.start_step]`` added.
        sigmas: ``(S+1,)`` noise levels, falling to zero.
        masks: ``(T,h,w)`` boolean by label, the cells to modulate.
        settings: sampling and modulation settings.
        advance: called after each step of each region, with both signs.

    Returns:
        One result for each of ``masks``, in their order, on the CPU.

    Raises:
        InputError: shapes do not fit.
    """
    config = settings.modulation
    latents = sample_before_modulation(denoiser, latents, sigmas, settings)
    states = {(label, sign): latents.cpu() for label in masks for sign in SIGNS}

    def repeat(index: int, step: PlainStep) -> Tensor:
        for label, mask in masks.items():
            for sign in SIGNS:
                offset = make_offsets(mask, torch.full((len(mask),), sign), config.factor) if index == 0 else None
                inside = mask if blends_after(index, config.blending) else None
                states[label, sign] = _repeated(denoiser, states[label, sign], step, offset, inside)
            advance()
        return step.latents

    for index, levels in enumerate(
        list_modulated_levels(sigmas, settings)
    ):  # `repeat` alone holds a step, one at a time
        latents = repeat(index, take_plain_step(denoiser, latents, levels, config))
    return [ModulatedWindow(label, states[label, 1.0], states[label, -1.0]) for label in masks]


def _repeated(
    denoiser: Denoiser, latents: Tensor, step: PlainStep, offset: Tensor | None, inside: Tensor | None
) -> Tensor:
    """Return latents ``(T,4,H/8,W/8)`` on the CPU after a repeated step; plain ones outside the mask ``inside``."""
    x = latents.to(step.latents.device)
    denoised = denoiser.replay(x, step.sigma, step.cache, torch.arange(len(x)), offset)
    x = euler_step(x, denoised, step.sigma, step.next_sigma)
    return (x if inside is None else blend_latents(x, step.latents, inside.to(x.device))).cpu()


def mask_regions(maps: Tensor, labels: Sequence[int], num_finished: int) -> dict[int, Tensor]:
    """Return the masks ``(T,h,w)`` of regions in a window whose first frames are finished already: no cells there.

    >>> mask_regions(torch.tensor([[[3, 5]]]), (5,), 1)[5].tolist()
    [[[False, False]], [[False, True]]]

    Args:
        maps: ``(F,h,w)`` int64 labels of the frames that are not finished.
        labels: regions to modulate.
        num_finished: frames before them in the window.
    """
    require_shape("maps", maps, "F h w")
    finished = torch.zeros((num_finished, *maps.shape[1:]), dtype=torch.bool)
    return {label: torch.cat([finished, (maps == label).cpu()]) for label in labels}
