"""Masked modulation with a video model, whose window is one sample (paper 4.3, Eq. 2 and 5).

Steps are the outer loop and regions the inner one: only one step's queries and keys are held at a time, and of each
region and sign only its latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .backbones.protocol import Denoiser
from .config.settings import Settings
from .method.sampling import PlainStep, before_modulation, euler_step, modulated_levels, plain_step
from .modulation import blend_latents, blends_after, mask_offsets
from .types import require_shape

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
    latents = before_modulation(denoiser, latents, sigmas, settings)
    states = {(label, sign): latents.cpu() for label in masks for sign in SIGNS}

    def repeat(index: int, step: PlainStep) -> Tensor:
        for label, mask in masks.items():
            for sign in SIGNS:
                offset = mask_offsets(mask, torch.full((len(mask),), sign), config.factor) if index == 0 else None
                inside = mask if blends_after(index, config.blending) else None
                states[label, sign] = _repeated(denoiser, states[label, sign], step, offset, inside)
            advance()
        return step.latents

    for index, levels in enumerate(modulated_levels(sigmas, settings)):  # `repeat` alone holds a step, one at a time
        latents = repeat(index, plain_step(denoiser, latents, levels, config))
    return [ModulatedWindow(label, states[label, 1.0], states[label, -1.0]) for label in masks]


def _repeated(
    denoiser: Denoiser, latents: Tensor, step: PlainStep, offset: Tensor | None, inside: Tensor | None
) -> Tensor:
    """Return latents ``(T,4,H/8,W/8)`` on the CPU after a repeated step; plain ones outside the mask ``inside``."""
    x = latents.to(step.latents.device)
    denoised = denoiser.replay(x, step.sigma, step.cache, torch.arange(len(x)), offset)
    x = euler_step(x, denoised, step.sigma, step.next_sigma)
    return (x if inside is None else blend_latents(x, step.latents, inside.to(x.device))).cpu()


def region_masks(maps: Tensor, labels: Sequence[int], num_finished: int) -> dict[int, Tensor]:
    """Return the masks ``(T,h,w)`` of regions in a window whose first frames are finished already: no cells there.

    >>> region_masks(torch.tensor([[[3, 5]]]), (5,), 1)[5].tolist()
    [[[False, False]], [[False, True]]]

    Args:
        maps: ``(F,h,w)`` int64 labels of the frames that are not finished.
        labels: regions to modulate.
        num_finished: frames before them in the window.
    """
    require_shape("maps", maps, "F h w")
    finished = torch.zeros((num_finished, *maps.shape[1:]), dtype=torch.bool)
    return {label: torch.cat([finished, (maps == label).cpu()]) for label in labels}
