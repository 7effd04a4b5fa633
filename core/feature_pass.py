"""Denoise to the feature step and read the self-attention queries there (paper 4.1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .backbones.protocol import Denoiser
from .config.settings import Settings
from .method.sampling import add_noise, euler_step


def read_queries(
    denoiser: Denoiser,
    latents: Tensor,
    noise: Tensor,
    sigmas: Tensor,
    settings: Settings,
    after_step: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[Tensor, Tensor]:
    """Return aggregated and matching queries ``(T,N,C)`` of one compute batch, on the CPU.

    Args:
        denoiser: the model.
        latents: ``(T,4,H/8,W/8)``, clean.
        noise: same shape.
        sigmas: ``(S+1,)`` noise levels, falling to zero.
        settings: start step, and where features are read.
        after_step: called with the number of steps done, and of all steps.
    """
    feature = settings.feature
    total = feature.step - settings.start_step + 1
    x = add_noise(latents, noise, float(sigmas[settings.start_step]))
    for step in range(settings.start_step, feature.step):
        denoised = denoiser.predict(x, float(sigmas[step])).denoised
        x = euler_step(x, denoised, float(sigmas[step]), float(sigmas[step + 1]))
        after_step(step - settings.start_step + 1, total)
    blocks = (*feature.blocks, feature.matching_block)
    queries = denoiser.queries(x, float(sigmas[feature.step]), blocks)
    after_step(total, total)
    return torch.stack(queries[:-1]).mean(0).cpu(), queries[-1].cpu()
