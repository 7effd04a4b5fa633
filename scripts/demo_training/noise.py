"""SD's noise schedule: adding noise, undoing it with a predicted noise, and deterministic sampling."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

NUM_TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


def signal_levels(device: torch.device) -> Tensor:
    """Return the (1000,) share of signal variance left at each timestep (scaled-linear betas)."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, NUM_TIMESTEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float().to(device)


def add_noise(latents: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Return noisy latents of unit variance; ``level`` (B,) holds each sample's signal level."""
    level = level[:, None, None, None]
    return level.sqrt() * latents + (1 - level).sqrt() * noise


def remove_noise(noisy: Tensor, predicted: Tensor, level: Tensor) -> Tensor:
    """Return the clean latents that a predicted noise implies: one-step denoising."""
    level = level[:, None, None, None]
    return (noisy - (1 - level).sqrt() * predicted) / level.sqrt()


def sample(predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, num_steps: int) -> Tensor:
    """Return latents sampled with DDIM, eta 0; ``predict(noisy, timesteps)`` returns the noise."""
    levels = signal_levels(noise.device)
    timesteps = torch.linspace(NUM_TIMESTEPS - 1, 0, num_steps).round().long().tolist()
    latents = noise
    for position, timestep in enumerate(timesteps):
        level = levels[timestep].expand(len(noise))
        predicted = predict(latents, torch.full((len(noise),), timestep, device=noise.device))
        clean = remove_noise(latents, predicted, level)
        last = position + 1 == num_steps
        latents = clean if last else add_noise(clean, predicted, levels[timesteps[position + 1]].expand(len(noise)))
    return latents
