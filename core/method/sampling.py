"""Inversion by added noise, and deterministic Euler sampling (paper 4.3, 5.1).

Latents live in "sigma space": ``x = clean + sigma * noise``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..backbones.protocol import FeatureBackbone, Prediction, StepCache
from ..backbones.schedule import make_edm_sigmas, make_sigmas
from ..config.settings import Settings
from ..types import InputError


class EulerStep(NamedTuple):
    """An unmodulated step: its number, noise levels before and after, ``(T,4,H/8,W/8)`` latents after, for a replay."""

    number: int
    sigma: float
    next_sigma: float
    latents: Tensor
    cache: StepCache | None


def sample_euler(
    predict: Callable[[Tensor, float], Prediction], latents: Tensor, levels: Sequence[float]
) -> Iterator[EulerStep]:
    """Sample ``(T,4,H/8,W/8)`` latents from each noise level to the next, without modulation; yield each step.

    ``predict`` is a denoiser's. Where it keeps the queries and keys that a replay needs, they take the most memory of
    all: whoever drops a step before the next one has those of one step at a time.
    """
    for index, pair in enumerate(pairwise(levels)):
        denoised, cache = predict(latents, pair[0])
        step = EulerStep(index, *pair, step_euler(latents, denoised, *pair), cache)
        del cache
        latents = step.latents
        yield step
        del step  # before the next one is made


def list_sigmas(backbone: FeatureBackbone, settings: Settings) -> Tensor:
    """Return the noise level before each sampling step and the final 0, ``(S+1,)`` float64, of the model's schedule."""
    if settings.video.frames:
        return make_edm_sigmas(settings.sampling.num_steps)
    return make_sigmas(backbone.training_sigmas, settings.sampling.num_steps)


def list_modulated_levels(sigmas: Tensor, settings: Settings) -> list[float]:
    """Return the noise levels from the modulated step to the end.

    With ``settings.modulation.steps`` of ``first`` that step goes all the way to zero, that is to the UNet's prediction
    of the clean latents.
    """
    levels: list[float] = sigmas[settings.modulation.step :].tolist()
    return levels if settings.modulation.steps == "all" else [levels[0], 0.0]


def add_noise(latents: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Bring clean latents to a noise level by standard normal noise of their shape (the paper's inversion)."""
    if latents.shape != noise.shape:
        raise InputError(f"`noise` must have the shape of `latents` {tuple(latents.shape)}, got {tuple(noise.shape)}.")
    return latents + sigma * noise


def scale_clean(latents: Tensor, sigma: float) -> Tensor:
    """Return latents that a denoiser, which divides by ``sqrt(1 + sigma**2)``, hands to the UNet as they were."""
    return latents * math.hypot(1, sigma)


def step_euler(latents: Tensor, denoised: Tensor, sigma: float, next_sigma: float) -> Tensor:
    """Take one deterministic Euler step: ``x + (next_sigma - sigma) * (x - denoised) / sigma``.

    The result is on the device of ``denoised``, the prediction of the clean latents; at level 0 it equals that up to
    rounding.
    """
    if sigma <= 0:
        raise InputError(f"`sigma` must be positive, but got {sigma}. Take no step after the last noise level.")
    x = latents.to(denoised.device)
    return x + (next_sigma - sigma) * ((x - denoised) / sigma)


def draw_frame_noise(seed: int, frames: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Draw ``(T,*shape)`` float32 noise on the CPU by seed and frame numbers alone, not by windows or batches."""
    if not frames:
        raise InputError("`frames` must hold at least one frame number, but got none. Pass the frames to process.")
    if min(seed, *frames) < 0:
        raise InputError(f"`seed` and `frames` must be >= 0, but got {seed} and {min(frames)}. Count frames from 0.")
    return torch.stack([torch.randn(tuple(shape), generator=_seed_generator(seed, frame)) for frame in frames])


def _seed_generator(seed: int, frame: int) -> torch.Generator:
    """Return a generator for one frame; torch's CPU generator looks at 32 bits of a seed only, so both are hashed."""
    hashed = np.random.SeedSequence([seed, frame]).generate_state(1, np.uint32)[0]
    return torch.Generator().manual_seed(int(hashed))
