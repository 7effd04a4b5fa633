"""Patches of other nodes on the host's model: which are left out of our calls, and what all others must leave as it is.

The method reads what the UNet makes of noise that it chose itself, at noise levels that it chose itself. Speed-ups that
answer from an earlier call, or that show the UNet fewer tokens or frames, would make nonsense of that, or crash. Those
of the host are left out, since they are no part of what a model knows; each call is checked for any others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...types import InputError

logger = logging.getLogger(__name__)
CACHES = {"easycache": "EasyCache", "lazycache": "LazyCache"}
"""Keys of the wrappers that answer calls from earlier ones, and what people call them."""
WINDOWS = "context windows"
"""What people call the host's windows over frames; ours take their place."""
TOKEN_MERGERS = {"nodes_tomesd": "ToMe", "nodes_hypertile": "HyperTile"}
"""Files of the host whose patches of attention merge or tile tokens."""
_WINDOW_KEYS = ("ContextWindows_prepare_sampling", "ContextWindows_sampler_sample")
"""Keys of the wrappers of the host's context windows."""
_BLOCKS_PER_LEVEL = 3
"""Decoder blocks on each grid; from level to level it has twice as many cells along a side, up to the latents'."""
_CHECKED_STEPS = (0, 119, 500, 999)
"""Steps of the training schedule whose noise levels are compared."""


def leave_out_patches(model: Any) -> Any:
    """Return a clone of the host's MODEL without what would answer for the UNet, and say what was left out."""
    model = model.clone()
    options = model.model_options
    inner = options["transformer_options"] = dict(options.get("transformer_options", {}))
    found = {CACHES[key] for wrappers in model.wrappers.values() for key in CACHES if wrappers.pop(key, None)}
    inner.pop("easycache", None)
    if options.pop("context_handler", None) is not None:
        found.add(WINDOWS)
    for wrappers in model.wrappers.values():
        for key in _WINDOW_KEYS:
            wrappers.pop(key, None)
    patches = inner["patches"] = dict(inner.get("patches", {}))
    for name in ("attn1_patch", "attn1_output_patch"):
        kept = [patch for patch in patches.get(name, ()) if _merger(patch) is None]
        found |= {str(_merger(patch)) for patch in patches.get(name, ()) if _merger(patch)}
        patches[name] = kept
    if found:
        logger.warning(
            "VidSeg: %s left out of segmentation, where the model must see every frame, cell and step itself. Sampling "
            "with the model is as before.",
            " and ".join(sorted(found)),
        )
    return model


def _merger(patch: Callable[..., Any]) -> str | None:
    """Return what people call the node that a patch of attention comes from, if it changes tokens."""
    return TOKEN_MERGERS.get(str(getattr(patch, "__module__", "")).rpartition(".")[2])


def require_noise_levels(sampling: Any) -> None:
    """Check that the host tells the UNet each noise level as the step of the training schedule that it is."""
    levels = sampling.sigmas
    for step in _CHECKED_STEPS:
        told = sampling.timestep(levels[step : step + 1].float())
        if abs(float(torch.as_tensor(told).flatten()[0]) - step) > 1:
            raise InputError(
                f"`model` must be told noise levels as steps of its training, but step {step} is told as "
                f"{float(torch.as_tensor(told).flatten()[0]):.3g}. Remove the node that changes the model's sampling "
                "(such as ModelSamplingContinuousEDM) before this one."
            )


class Witness:
    """Patch on the entry of decoder blocks that sees whether the UNet answers a call on the grid of ``latents``."""

    def __init__(self, latents: Tensor, num_blocks: int) -> None:
        self._num_blocks = num_blocks
        self._size = (int(latents.shape[-2]), int(latents.shape[-1]))
        self._seen = False

    def __call__(self, hidden: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Check and change nothing."""
        self._seen = True
        ratio = 2 ** ((self._num_blocks - 1 - options["block"][1]) // _BLOCKS_PER_LEVEL)
        expected = (self._size[0] // ratio, self._size[1] // ratio)
        for grid in (tuple(hidden.shape[2:]), tuple(skip.shape[2:])):
            if grid != expected:
                raise InputError(
                    f"`model` must work on {expected[1]}x{expected[0]} cells in decoder block {options['block'][1]}, "
                    f"but does on {grid[1]}x{grid[0]}. Remove the node that shrinks them (such as "
                    "PatchModelAddDownscale, Deep Shrink) before this one, or end it earlier."
                )
        return hidden, skip

    def require_answer(self) -> None:
        """Check that the UNet was called at all."""
        if not self._seen:
            raise InputError(
                "`model` must answer each call itself, but a call was answered without it. Remove the node that "
                "reuses earlier answers (a cache such as TeaCache) before this one."
            )
