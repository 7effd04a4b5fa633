"""UNet calls within one loading of the host's model: capture and injection through its attention patches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...config.parts import ATTENTION_BLOCKS, ModulationConfig
from ...types import InputError
from ..protocol import Layer, Prediction, StepCache, require_attention, split_replay
from .attention import (
    HostCache,
    Slot,
    add_offset,
    capture_cross,
    capture_self,
    inject_cross,
    inject_self,
)
from .calls import Call, HostCalls, Loaded
from .tail import TailCall, TailRecorder, TailState, fit_offset

logger = logging.getLogger(__name__)
MAX_TAIL_ERROR = 0.05
"""Largest difference between short and explicit call, as a share of the modulation's effect, that rounding explains."""
NEGLIGIBLE = 1e-4
"""Share of the prediction below which a difference is rounding."""


class HostDenoiser(HostCalls):
    """`Denoiser` over a model that the host has loaded; valid inside `ComfyBackbone.run` only."""

    def __init__(self, loaded: Loaded, guidance_scale: float) -> None:
        super().__init__(loaded, guidance_scale)
        self._highest_kept_sigma = 0.0
        self._short_calls: bool | None = None  # unknown until the first modulated call has checked them

    def predict(self, latents: Tensor, sigma: float, *, keep: ModulationConfig | None = None) -> Prediction:
        """Call the UNet on ``latents`` ``(T,4,H/8,W/8)``; see `Denoiser.predict`."""
        if keep is not None:
            require_attention("keep.block", (keep.block,))
        parts = self._in_parts(lambda part: self._predict(latents[part], sigma, keep), len(latents))
        cache = parts[0].cache
        for part in parts[1:]:
            cache = as_cache(cache).merged(as_cache(part.cache)) if keep else None
        return Prediction(torch.cat([part.denoised for part in parts]), cache)

    def queries(self, latents: Tensor, sigma: float, blocks: Sequence[Layer]) -> tuple[Tensor, ...]:
        """Return self-attention queries of the conditional half, the only one that runs; see `Denoiser.queries`."""
        numbers = require_attention("blocks", blocks or (None,))
        parts = self._in_parts(lambda part: self._queries(latents[part], sigma, numbers), len(latents))
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def replay(self, latents: Tensor, sigma: float, cache: StepCache, frames: Tensor, offset: Tensor | None) -> Tensor:
        """Call the UNet again with injected queries and keys; see `Denoiser.replay`."""
        stored = as_cache(cache)

        def run(part: slice) -> Tensor:
            return self._replay(latents[part], sigma, stored, frames[part], None if offset is None else offset[part])

        if self._on_cpu:
            return torch.cat([run(part) for part in split_replay(frames.tolist())])
        return torch.cat(self._in_parts(run, len(latents)))

    def _queries(self, latents: Tensor, sigma: float, blocks: Sequence[int]) -> tuple[Tensor, ...]:
        captured: dict[Slot, Tensor] = {}
        call, last = self._reading(blocks)
        for block in set(blocks):
            call.replace["attn1", block] = capture_self(
                self._attention("attn1", block), block, captured, keys=False, last=block == last
            )
        self._denoised(latents, sigma, call, guided=False)
        conditional = self._loaded.conds["positive"][0]["uuid"]
        return tuple(captured[Slot("q", block, conditional)].float() for block in blocks)

    def _predict(self, latents: Tensor, sigma: float, keep: ModulationConfig | None) -> Prediction:
        captured: dict[Slot, Tensor] = {}
        call = Call({}, {})
        for block in ATTENTION_BLOCKS if keep and keep.inject else ():
            call.replace["attn1", block] = capture_self(self._attention("attn1", block), block, captured, keys=True)
            call.replace["attn2", block] = capture_cross(self._attention("attn2", block), block, captured)
        return self._kept_call(latents, sigma, keep, call, captured)

    def _kept_call(
        self, latents: Tensor, sigma: float, keep: ModulationConfig | None, call: Call, captured: dict[Slot, Tensor]
    ) -> Prediction:
        """Call the UNet; with ``keep`` also record where a short call starts from."""
        recorder = None
        if keep and keep.block + 1 in ATTENTION_BLOCKS and sigma >= self._highest_kept_sigma:
            self._highest_kept_sigma = sigma  # the modulated step comes first: later steps need no tail
            recorder = call.patches["output_block_patch"] = TailRecorder(keep.block)
        denoised = self._denoised(latents, sigma, call)
        tail = {half: self._stored(state) for half, state in recorder.states().items()} if recorder else {}
        return Prediction(denoised, HostCache(keep, captured, tail) if keep else None)

    def _stored(self, state: TailState) -> TailState:
        """Return ``state`` where it is kept."""
        return state

    def _replay(
        self, latents: Tensor, sigma: float, cache: HostCache, frames: Tensor | slice, offset: Tensor | None
    ) -> Tensor:
        if offset is None:
            return self._denoised(latents, sigma, self._injection(cache, frames))
        if self._short_calls is None and cache.tail:
            self._short_calls = self._short_call_agrees(latents, sigma, cache, frames, offset)
        make = self._short_call if self._short_calls and cache.tail else self._explicit_call
        return self._denoised(latents, sigma, make(cache, frames, offset))

    def _injection(self, cache: HostCache, frames: Any) -> Call:
        """Return the patches of a whole call that repeats ``frames`` of the cache."""
        call = Call({}, {})
        for block in ATTENTION_BLOCKS if cache.keep.inject else ():
            call.replace["attn1", block] = inject_self(self._attention("attn1", block), block, cache, frames)
            call.replace["attn2", block] = inject_cross(block, cache, frames)
        return call

    def _explicit_call(self, cache: HostCache, frames: Any, offset: Tensor) -> Call:
        """Return the patches of a whole call that adds ``offset`` inside the modulated block (Eq. 2)."""
        call = self._injection(cache, frames)
        call.patches["attn2_output_patch"] = add_offset(cache.keep.block, offset)
        return call

    def _short_call(self, cache: HostCache, frames: Any, offset: Tensor) -> Call:
        """Return the patches of a call of the blocks after the modulated one only."""
        hidden = next(iter(cache.tail.values())).hidden
        ratio = 2 if cache.keep.block in UPSAMPLING_BLOCKS else 1
        grid = fit_offset(offset, (hidden.shape[2] // ratio, hidden.shape[3] // ratio))
        return self._injection(cache, frames)._replace(wrapper=TailCall(cache.tail, cache.keep.block, frames, grid))

    def _short_call_agrees(self, latents: Tensor, sigma: float, cache: HostCache, frames: Any, offset: Tensor) -> bool:
        """Check the short call against the explicit one, on one sample; say so if they differ."""
        if isinstance(frames, Tensor):  # else a window, which is one sample
            latents, frames, offset = latents[:1], frames[:1], offset[:1]
        calls = (
            self._injection(cache, frames),
            self._explicit_call(cache, frames, offset),
            self._short_call(cache, frames, offset),
        )
        return agree(*(self._denoised(latents, sigma, call) for call in calls))


UPSAMPLING_BLOCKS = (2, 5, 8)
"""Decoder blocks that end by doubling the grid."""


def agree(plain: Tensor, explicit: Tensor, short: Tensor) -> bool:
    """Tell whether modulated predictions differ by rounding only; ``plain`` is unmodulated. Log it if not."""
    effect, error = float((explicit - plain).abs().max()), float((explicit - short).abs().max())
    if error <= MAX_TAIL_ERROR * effect + NEGLIGIBLE * float(plain.abs().max()):
        return True
    logger.warning(
        "VidSeg: the short form of masked modulation differs from the full one by %.3g of its effect on this model; "
        "using full calls, which take about twice as long.",
        error / effect if effect else float("inf"),
    )
    return False


def as_cache(cache: StepCache | None) -> HostCache:
    """Return ``cache`` if it is one of this adapter; others are refused."""
    if not isinstance(cache, HostCache):
        raise InputError(f"`cache` must come from this denoiser, but got {type(cache).__name__}.")
    return cache
