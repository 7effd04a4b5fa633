"""Inversion by added noise, the Euler step, and sampling without modulation (paper 4.3, 5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..backbones.protocol import Denoiser, StepCache
from ..config.parts import ModulationConfig
from ..config.settings import Settings
from ..types import InputError, require_shape


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


def sample_plain(denoiser: Denoiser, latents: Tensor, sigmas: Tensor, settings: Settings) -> PlainPass:
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
    start = sample_before_modulation(denoiser, latents, sigmas, settings)
    steps: list[PlainStep] = []
    for levels in list_modulated_levels(sigmas, settings):
        entering = steps[-1].latents if steps else start
        steps.append(take_plain_step(denoiser, entering, levels, settings.modulation))
    return PlainPass(start.to(steps[-1].latents.device), tuple(steps))


def sample_before_modulation(denoiser: Denoiser, latents: Tensor, sigmas: Tensor, settings: Settings) -> Tensor:
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


def take_plain_step(
    denoiser: Denoiser, latents: Tensor, levels: tuple[float, float], config: ModulationConfig
) -> PlainStep:
    """Take one step without modulation and keep what its repetitions need.

    Args:
        denoiser: the model.
        latents: ``(F,4,H/8,W/8)`` float32, before the step.
        levels: noise levels before and after it, of `list_modulated_levels`.
        config: what to keep.

    Returns:
        The step; whoever holds it holds its queries and keys.
    """
    denoised, cache = denoiser.predict(latents, levels[0], keep=config)
    if cache is None:
        raise RuntimeError("a denoiser returned no cache although `keep` was given")
    return PlainStep(*levels, cache, euler_step(latents, denoised, *levels))


def list_modulated_levels(sigmas: Tensor, settings: Settings) -> list[tuple[float, float]]:
    """Return noise levels before and after each step from the modulated one on, of ``sigmas`` ``(S+1,)``.

    With ``settings.modulation.steps`` of ``first`` the modulated step goes all the way to noise level zero.
    """
    levels = sigmas[settings.modulation.step :].tolist()
    return list(pairwise(levels if settings.modulation.steps == "all" else [levels[0], 0.0]))


def add_noise(latents: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Bring clean latents to a noise level: ``latents + sigma * noise`` (the paper's inversion).

    Args:
        latents: ``(T,4,H/8,W/8)`` float32, clean.
        noise: same shape, standard normal.
        sigma: noise level, >= 0.

    Returns:
        Same shape and type as ``latents``.

    Raises:
        InputError: the shapes differ.
    """
    if latents.shape != noise.shape:
        raise InputError(f"`noise` must have the shape of `latents` {tuple(latents.shape)}, got {tuple(noise.shape)}.")
    return latents + sigma * noise


def euler_step(latents: Tensor, denoised: Tensor, sigma: float, next_sigma: float) -> Tensor:
    """Take one deterministic Euler step: ``x + (next_sigma - sigma) * (x - denoised) / sigma``.

    Args:
        latents: ``x``, any shape and device, at level ``sigma``.
        denoised: same shape, prediction of the clean latents.
        sigma: present noise level, > 0.
        next_sigma: noise level to reach, >= 0.

    Returns:
        Latents at level ``next_sigma``, on the device of ``denoised``; at 0 they are ``denoised`` up to rounding.

    Raises:
        InputError: ``sigma`` is not positive.
    """
    if sigma <= 0:
        raise InputError(f"`sigma` must be positive, but got {sigma}. Take no step after the last noise level.")
    x = latents.to(denoised.device)
    return x + (next_sigma - sigma) * ((x - denoised) / sigma)


def draw_frame_noise(seed: int, frames: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Draw noise that depends on the seed and the absolute number of each frame alone, not on windows or batches.

    Reference code: restarts the generator in each window (see `draw_window_noise`, setting ``sampling.noise``).

    Args:
        seed: >= 0.
        frames: ``T`` absolute frame numbers, each >= 0.
        shape: of one frame, ``(4,H/8,W/8)``.

    Returns:
        ``(T,4,H/8,W/8)`` float32 on the CPU, standard normal.

    Raises:
        InputError: the seed or a frame number is negative, or there is no frame.
    """
    if not frames:
        raise InputError("`frames` must hold at least one frame number, but got none. Pass the frames to process.")
    if min(seed, *frames) < 0:
        raise InputError(f"`seed` and `frames` must be >= 0, but got {seed} and {min(frames)}. Count frames from 0.")
    return torch.stack([torch.randn(tuple(shape), generator=_generator(seed, frame)) for frame in frames])


def draw_window_noise(seed: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Draw the noise of one window as the reference code does on a CPU: two draws of one restarted generator.

    Args:
        seed: >= 0.
        shape: ``(T,4,H/8,W/8)`` of the whole window.

    Returns:
        Noise of the autoencoder's posterior and noise of the inversion, both float32 of ``shape`` on the CPU.
        The same for every window of that shape.
    """
    generator = torch.Generator().manual_seed(seed)
    posterior_noise = torch.randn(tuple(shape), generator=generator)
    return posterior_noise, torch.randn(tuple(shape), generator=generator)


def draw_video_window_noise(seed: int, shape: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the noise of one window of SVD as the reference code does on a CPU: `draw_window_noise` with a draw between.

    Args:
        seed: >= 0.
        shape: ``(T,4,H/8,W/8)`` of the whole window.

    Returns:
        Noise of the posterior, of the frame that conditions the window ``(3,H,W)``, and of the inversion.
    """
    generator = torch.Generator().manual_seed(seed)
    posterior_noise = torch.randn(tuple(shape), generator=generator)
    image_noise = torch.randn((3, 8 * shape[-2], 8 * shape[-1]), generator=generator)
    return posterior_noise, image_noise, torch.randn(tuple(shape), generator=generator)


def _generator(seed: int, frame: int) -> torch.Generator:
    """Return a generator for one frame; torch's CPU generator looks at 32 bits of a seed only, so both are hashed."""
    hashed = np.random.SeedSequence([seed, frame]).generate_state(1, np.uint32)[0]
    return torch.Generator().manual_seed(int(hashed))
