"""Noise levels of the models' schedules (reference: Euler on DDPM sigmas; EDM for Stable Video Diffusion)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..types import InputError, require_shape

NUM_TRAINING_STEPS = 1000
"""Steps of the schedule that SD 1.x and 2.x were trained with."""
EDM_SIGMA_MIN, EDM_SIGMA_MAX = 0.002, 700.0
"""Noise levels between which SVD is sampled."""
_FIRST_BETA, _LAST_BETA = 0.00085, 0.012
_LAST_ACP = 4.8973451890853435e-08
"""What stands for zero, by which nothing can be divided (ComfyUI)."""
_EDM_RHO = 7.0


def make_training_sigmas(*, zero_snr: bool = False) -> Tensor:
    """Return the noise levels ``sqrt((1 - acp) / acp)``, ``(1000,)`` float64, rising, of SD 1.x, 2.x and SDXL.

    ``acp`` is the running product of ``1 - beta``, and the square root of ``beta`` rises linearly. With ``zero_snr``
    the roots of ``acp`` are shifted and scaled so that the last is nearly zero and the first stays (Lin et al. 2024).

    >>> round(float(make_training_sigmas()[-1]), 4), round(float(make_training_sigmas(zero_snr=True)[-1]), 1)
    (14.6146, 4518.8)
    """
    betas = torch.linspace(_FIRST_BETA**0.5, _LAST_BETA**0.5, NUM_TRAINING_STEPS, dtype=torch.float64) ** 2
    acp = torch.cumprod(1 - betas, dim=0)
    if zero_snr:
        root = acp.sqrt()
        acp = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        acp[-1] = _LAST_ACP
    return torch.sqrt((1 - acp) / acp)


def make_timesteps(num_steps: int, num_training_steps: int = NUM_TRAINING_STEPS) -> tuple[int, ...]:
    """Return the training step of each sampling step ``k``, falling: ``floor(last * (1 - k/S))``.

    >>> make_timesteps(25)[22:]
    (119, 79, 39)
    """
    if not 1 <= num_steps <= num_training_steps:
        raise InputError(
            f"`num_steps` must lie in [1, {num_training_steps}], but got {num_steps}. Choose a number in that range."
        )
    last = num_training_steps - 1
    return tuple(last * (num_steps - step) // num_steps for step in range(num_steps))


def make_sigmas(training_sigmas: Tensor, num_steps: int) -> Tensor:
    """Return the noise level before each sampling step, and the final 0: ``(S+1,)`` float64, falling.

    ``training_sigmas`` ``(n,)`` float64 rise. Latents have level ``k`` before step ``k`` and level ``k+1`` after it.

    >>> [round(float(sigma), 4) for sigma in make_sigmas(make_training_sigmas(), 25)[22:]]
    [0.3866, 0.2959, 0.1963, 0.0]
    """
    size = require_shape("training_sigmas", training_sigmas, "n")["n"]
    levels = training_sigmas[list(make_timesteps(num_steps, size))]
    return torch.cat([levels, levels.new_zeros(1)])


def make_edm_sigmas(num_steps: int) -> Tensor:
    """Return the ``(S+1,)`` float64 noise levels of SVD: Karras' schedule from 700 to 0.002 with rho 7, and 0 (code).

    >>> [round(float(sigma), 3) for sigma in make_edm_sigmas(25)[17:]]
    [1.273, 0.678, 0.339, 0.157, 0.066, 0.025, 0.008, 0.002, 0.0]
    """
    if num_steps < 1:
        raise InputError(f"`num_steps` must be at least 1, but got {num_steps}. Choose 25 as the paper does.")
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    high, low = EDM_SIGMA_MAX ** (1 / _EDM_RHO), EDM_SIGMA_MIN ** (1 / _EDM_RHO)
    levels = (high + ramp * (low - high)) ** _EDM_RHO
    return torch.cat([levels, levels.new_zeros(1)])


def make_edm_training_sigmas() -> Tensor:
    """Return noise levels over the range that SVD is sampled in, ``(1000,)`` float64, rising, even in logarithm."""
    low, high = (float(torch.tensor(level, dtype=torch.float64).log()) for level in (EDM_SIGMA_MIN, EDM_SIGMA_MAX))
    return torch.linspace(low, high, NUM_TRAINING_STEPS, dtype=torch.float64).exp()
