"""Sampling without modulation, which modulated passes repeat from the modulated step on (paper 4.3)."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from .backbones import Denoiser, StepCache
from .config.parts import ModulationConfig
from .config.settings import Settings
from .schedule import euler_step
from .types import require_shape


class PlainStep(NamedTuple):
    """An unmodulated step: its noise level and the next, what a replay needs, and ``(F,4,H/8,W/8)`` latents after."""

    sigma: float
    next_sigma: float
    cache: StepCache
    latents: Tensor


class PlainPass(NamedTuple):
    """Unmodulated steps from the modulated one to the last.

    Attributes:
        start: ``(F,4,H/8,W/8)`` float32, latents that enter the modulated step.
        steps: the steps, the modulated one first.
    """

    start: Tensor
    steps: tuple[PlainStep, ...]


def plain_pass(denoiser: Denoiser, latents: Tensor, sigmas: Tensor, settings: Settings) -> PlainPass:
    """Sample without modulation from ``settings.start_step`` to the end, keeping what the replays need.

    With ``settings.modulation.steps`` of ``first`` the modulated step is the last one: it goes all the way to noise
    level zero, that is to the UNet's prediction of the clean latents.

    Args:
        denoiser: the model.
        latents: ``(F,4,H/8,W/8)`` float32, with noise of ``sigmas[settings.start_step]`` added.
        sigmas: ``(S+1,)`` noise levels, falling to zero.
        settings: sampling and modulation settings.

    Returns:
        The steps from the modulated one to the last.

    Raises:
        InputError: shapes do not fit.
    """
    start = before_modulation(denoiser, latents, sigmas, settings)
    steps: list[PlainStep] = []
    for levels in modulated_levels(sigmas, settings):
        entering = steps[-1].latents if steps else start
        steps.append(plain_step(denoiser, entering, levels, settings.modulation))
    return PlainPass(start.to(steps[-1].latents.device), tuple(steps))


def before_modulation(denoiser: Denoiser, latents: Tensor, sigmas: Tensor, settings: Settings) -> Tensor:
    """Sample without modulation from ``settings.start_step`` to the modulated step; return what enters it.

    Args:
        denoiser: the model.
        latents: ``(F,4,H/8,W/8)`` float32, with noise of ``sigmas[settings.start_step]`` added.
        sigmas: ``(S+1,)`` noise levels, falling to zero.
        settings: sampling and modulation settings.

    Raises:
        InputError: shapes do not fit.
    """
    require_shape("latents", latents, "F 4 H W")
    require_shape("sigmas", sigmas, "S", S=settings.sampling.num_steps + 1)
    for sigma, next_sigma in pairwise(sigmas[settings.start_step : settings.modulation.step + 1].tolist()):
        latents = euler_step(latents, denoiser.predict(latents, sigma).denoised, sigma, next_sigma)
    return latents


def plain_step(denoiser: Denoiser, latents: Tensor, levels: tuple[float, float], config: ModulationConfig) -> PlainStep:
    """Take one step without modulation and keep what its repetitions need.

    Args:
        denoiser: the model.
        latents: ``(F,4,H/8,W/8)`` float32, before the step.
        levels: noise levels before and after it, of `modulated_levels`.
        config: what to keep.

    Returns:
        The step; whoever holds it holds its queries and keys.
    """
    denoised, cache = denoiser.predict(latents, levels[0], keep=config)
    if cache is None:
        raise RuntimeError("a denoiser returned no cache although `keep` was given")
    return PlainStep(*levels, cache, euler_step(latents, denoised, *levels))


def modulated_levels(sigmas: Tensor, settings: Settings) -> list[tuple[float, float]]:
    """Return noise levels before and after each step from the modulated one on, of ``sigmas`` ``(S+1,)``.

    With ``settings.modulation.steps`` of ``first`` the modulated step goes all the way to noise level zero.
    """
    levels = sigmas[settings.modulation.step :].tolist()
    return list(pairwise(levels if settings.modulation.steps == "all" else [levels[0], 0.0]))
