"""Masked modulation: sampling repeated with an offset inside some cells (paper 4.3, Eq. 2 and 5).

Steps are the outer loop and jobs the inner one: only one step's queries and keys are held at a time, and of each job
and sign only its latents. What a model sees together is a unit: a frame, or a video model's window. Units are
independent, so that a call may hold any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from ..backbones.protocol import Denoiser
from ..config.settings import Settings
from ..types import InputError, require_shape
from . import published
from .modulation_jobs import ModulationJob
from .sampling import EulerStep, add_noise, list_modulated_levels, sample_euler, step_euler

CELL_LATENTS = 2
"""Latents along the side of a coarse cell."""


class UnitJob(NamedTuple):
    """A job, and the number of the first frame of its unit among those that are sampled together."""

    start: int
    job: ModulationJob


class Inversion(NamedTuple):
    """Encoded latents and their noise, both ``(T,4,H/8,W/8)`` float32, and the noise levels ``(S+1,)`` of the steps."""

    latents: Tensor
    noise: Tensor
    sigmas: Tensor


class Batching(NamedTuple):
    """Units of a UNet call, at least 1, and elements of a unit that share a call whatever that is."""

    size: int
    together: int = 1


class ModulatedPair(NamedTuple):
    """Outcome of a job: clean latents ``(F,4,H/8,W/8)`` float32 of its frames, modulated up and down."""

    plus: Tensor
    minus: Tensor


class _Call(NamedTuple):
    """Elements of one UNet call: how often each frame comes, which cells are modulated, and how strongly."""

    frames: Tensor  # (B,)
    masks: Tensor  # (B,h,w)
    offset: Tensor  # (B,h,w)


def modulate(
    denoiser: Denoiser,
    inversion: Inversion,
    jobs: Sequence[UnitJob],
    settings: Settings,
    batching: Batching,
    advance: Callable[[int], None] = lambda _done: None,
) -> list[ModulatedPair]:
    """Sample without modulation, and for each job with both signs, step by step (paper 4.3).

    On a CPU the results do not depend on the size of a batch, elsewhere not beyond float rounding. Jobs of a unit lie
    next to each other; ``advance`` is called with the number of jobs, each sign by itself, that took another step.
    """
    if batching.size < 1:
        raise InputError(f"`size` must be at least 1, but got {batching.size}. Pass 1 to use the least memory.")
    latents, noise, sigmas = inversion
    count = len(jobs[0].job.mask)
    cells = {axis: CELL_LATENTS * side for axis, side in zip("HW", jobs[0].job.mask.shape[1:], strict=True)}
    require_shape("latents", latents, "T 4 H W", **cells)
    require_shape("sigmas", sigmas, "S", S=settings.sampling.num_steps + 1)
    before = sigmas[settings.start_step : settings.modulation.step + 1].tolist()
    latents = add_noise(latents, noise, before[0])
    for step in sample_euler(denoiser.predict, latents, before):
        latents = step.latents
    calls = [_join(elements, settings) for elements in _split_calls(jobs, batching)]
    states = [latents[call.frames.to(latents.device)] for call in calls]
    levels = list_modulated_levels(sigmas, settings)
    for step in sample_euler(partial(denoiser.predict, keep=settings.modulation), latents, levels):
        for number, call in enumerate(calls):
            x = _replay(denoiser, states[number], step, call)
            if blends_after(step.number, settings):
                x = blend_latents(x, _take_outside(inversion, step, call.frames, settings), call.masks.to(x.device))
            states[number] = x
            advance(len(call.frames) // count)
        del step  # with its queries and keys, before the next one is made
    sampled = torch.split(torch.cat(states), count)
    return [ModulatedPair(*sampled[first : first + 2]) for first in range(0, len(sampled), 2)]


def _split_calls(jobs: Sequence[UnitJob], batching: Batching) -> Iterator[list[tuple[UnitJob, float]]]:
    """Yield elements, a job and a sign each, in calls of up to a batch; a group of a unit is never split."""
    size, together = batching
    call: list[tuple[UnitJob, float]] = []
    for _, same in groupby(jobs, lambda job: job.start):
        elements = [(job, sign) for job in same for sign in (1.0, -1.0)]
        for first in range(0, len(elements), together):
            group = elements[first : first + together]
            if call and len(call) + len(group) > size:
                yield call
                call = []
            call += group
    if call:
        yield call


def _join(elements: Sequence[tuple[UnitJob, float]], settings: Settings) -> _Call:
    """Return elements as one call."""
    count = len(elements[0][0].job.mask)
    frames = torch.cat([torch.arange(job.start, job.start + count) for job, _ in elements])
    masks = torch.cat([job.job.mask for job, _ in elements])
    signs = torch.tensor([sign for _, sign in elements]).repeat_interleave(count)
    return _Call(frames, masks, make_offsets(masks, signs, settings.modulation.factor))


def _replay(denoiser: Denoiser, latents: Tensor, step: EulerStep, call: _Call) -> Tensor:
    """Return latents ``(B,4,H/8,W/8)`` after a repeated step, modulated only in the first."""
    if step.cache is None:
        raise RuntimeError("a denoiser returned no cache although `keep` was given")
    device = step.latents.device
    offset = call.offset.to(device) if step.number == 0 else None
    x = latents.to(device)
    denoised = denoiser.replay(x, step.sigma, step.cache, call.frames.to(device), offset)
    return step_euler(x, denoised, step.sigma, step.next_sigma)


def _take_outside(inversion: Inversion, step: EulerStep, frames: Tensor, settings: Settings) -> Tensor:
    """Return the latents ``(B,4,H/8,W/8)`` that are kept outside the masks after a step, for the elements' frames.

    Paper: those that were sampled without modulation, which drift from the picture. With ``encoded`` (ours) they are
    those of the picture itself, brought to the step's noise level by the noise that sampling started with.
    """
    if settings.modulation.blending == "all":
        return step.latents[frames.to(step.latents.device)]
    kept = add_noise(inversion.latents[frames], inversion.noise[frames], step.next_sigma)
    return kept.to(step.latents.device)


def make_offsets(masks: Tensor, signs: Tensor, factor: float) -> Tensor:
    """Return what Eq. 2 adds to the modulated attention's output, ``(B,h,w)``: ``sign * factor`` inside the masks.

    >>> make_offsets(torch.tensor([[[True, False]]]), torch.tensor([-1.0]), 50.0).tolist()
    [[[-50.0, 0.0]]]
    """
    return torch.where(masks, (factor * signs)[:, None, None], 0.0)


def blend_latents(modulated: Tensor, plain: Tensor, masks: Tensor) -> Tensor:
    """Keep modulated latents ``(B,4,H/8,W/8)`` inside the masks ``(B,h,w)``, unmodulated ones outside (paper Eq. 5)."""
    sizes = require_shape("masks", masks, "B h w")
    shape = {"B": sizes["B"], "H": CELL_LATENTS * sizes["h"], "W": CELL_LATENTS * sizes["w"]}
    require_shape("modulated", modulated, "B 4 H W", **shape)
    require_shape("plain", plain, "B 4 H W", **shape)
    inside = masks.repeat_interleave(CELL_LATENTS, dim=1).repeat_interleave(CELL_LATENTS, dim=2)
    return torch.where(inside[:, None], modulated, plain)


def blends_after(index: int, settings: Settings) -> bool:
    """Return whether latents are blended after the ``index``-th step, counted from the modulated one."""
    if settings.variant == "published" and not published.blends_after(index, is_video=settings.video.frames > 0):
        return False
    return settings.modulation.blending != "none"
