"""UNet calls within one loading of the host's model: capture and injection through its attention patches."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers
import torch
from torch import Tensor

from ...config.parts import ATTENTION_BLOCKS, ModulationConfig
from ...types import InputError
from ..protocol import Layer, Prediction, StepCache, halve_on_out_of_memory, require_attention, split_replay
from .attention import (
    AttentionPatch,
    HostCache,
    Slot,
    add_offset,
    capture_cross,
    capture_self,
    cpu_attention,
    exact_attention,
    host_attention,
    inject_cross,
    inject_self,
    is_short,
    stop_when_read,
)
from .patches import Witness
from .tail import TailCall, TailRecorder, TailState, fit_offset

logger = logging.getLogger(__name__)
_AROUND_UNET = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
"""Kind of the wrappers around the UNet."""
MAX_TAIL_ERROR = 0.05
"""Largest difference between short and explicit call, as a share of the modulation's effect, that rounding explains."""
NEGLIGIBLE = 1e-4
"""Share of the prediction below which a difference is rounding."""


class Call(NamedTuple):
    """Patches of one UNet call: replacements of attention by (name, block), other patches, and a wrapper."""

    replace: dict[tuple[str, int], AttentionPatch]
    patches: dict[str, Callable[..., Any]]
    wrapper: Callable[..., Tensor] | None = None


@dataclass(frozen=True)
class Loaded:
    """What the host's sampler hands over while the model is loaded."""

    base: Any
    conds: dict[str, list[dict[str, Any]]]
    options: dict[str, Any]
    device: torch.device


class HostDenoiser:
    """`Denoiser` over a model that the host has loaded; valid inside `ComfyBackbone.run` only."""

    def __init__(self, loaded: Loaded, guidance_scale: float) -> None:
        self._loaded = loaded
        self._guidance_scale = guidance_scale
        self._compute_batch = 1 if self._on_cpu else sys.maxsize  # 1 is as fast there, and results cannot depend on it
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

    @property
    def _on_cpu(self) -> bool:
        return bool(comfy.model_management.is_device_cpu(self._loaded.device))

    def _in_parts(self, run: Callable[[slice], Any], count: int) -> list[Any]:
        """Return ``run`` of all elements, on a CPU one by one, else in one part or, once memory ran out, in several."""
        largest = min(count, self._compute_batch)

        def attempt(size: int) -> list[Any]:
            if size < largest:
                self._compute_batch = size
            return [run(slice(start, start + size)) for start in range(0, count, size)]

        return halve_on_out_of_memory(attempt, largest, is_out_of_memory)

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

    def _reading(self, blocks: Sequence[int]) -> tuple[Call, int | None]:
        """Return an empty call that ends behind the last of ``blocks``, and that block.

        The call is whole, and None is returned, where other nodes look at what the UNet answers.
        """
        options = self._loaded.options
        wrappers = options.get("transformer_options", {}).get("wrappers", {}).get(_AROUND_UNET, {})
        if any(wrappers.values()) or "model_function_wrapper" in options:
            return Call({}, {}), None
        return Call({}, {}, stop_when_read), max(blocks)

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

    def _denoised(self, latents: Tensor, sigma: float, call: Call, *, guided: bool = True) -> Tensor:
        """Return the prediction of the clean latents, float32 on the device of ``latents``."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        loaded = self._loaded
        x = latents.to(loaded.device, torch.float32)
        sigmas = x.new_full((len(x),), sigma)
        negative = loaded.conds["negative"] if guided and self._guidance_scale != 1 else None
        witness = Witness(x)
        options = self._options(call, witness)
        conds = [loaded.conds["positive"], negative]
        conditional, unconditional = comfy.samplers.calc_cond_batch(loaded.base, conds, x, sigmas, options)
        witness.require_answer()
        if negative is not None:
            conditional = unconditional + self._guidance(conditional) * (conditional - unconditional)
        result: Tensor = conditional.float().to(latents.device)
        return result

    def _guidance(self, _like: Tensor) -> float | Tensor:
        """Return the scale of guidance, for predictions as ``_like``."""
        return self._guidance_scale

    def _options(self, call: Call, witness: Witness) -> dict[str, Any]:
        """Return the host's options with the patches of ``call`` and a witness before them, for one UNet call."""
        options: dict[str, Any] = comfy.model_patcher.create_model_options_clone(self._loaded.options)
        inner = options.setdefault("transformer_options", {})
        if self._on_cpu:
            inner.setdefault("optimized_attention_override", cpu_attention)
        elif (other := inner.get("optimized_attention_override")) is None or is_short(other):
            inner["optimized_attention_override"] = exact_attention
        replaced = inner.setdefault("patches_replace", {})
        for (name, block), patch in call.replace.items():
            replaced.setdefault(name, {})["output", block, 0] = patch
        others = inner.setdefault("patches", {})
        for name, other in (*call.patches.items(), ("output_block_patch", witness)):
            others.setdefault(name, []).insert(0, other)
        if call.wrapper is not None:
            comfy.patcher_extension.add_wrapper_with_key(
                _AROUND_UNET,
                "vidseg",
                call.wrapper,
                options,
                is_model_options=True,
            )
        return options

    def _attention(self, name: str, block: int) -> AttentionPatch:
        """Return what computes attention: the host's function, or the patch of another node."""
        patches = self._loaded.options.get("transformer_options", {}).get("patches_replace", {}).get(name, {})
        foreign: AttentionPatch | None = patches.get(("output", block, 0)) or patches.get(("output", block))
        return foreign or host_attention


UPSAMPLING_BLOCKS = (2, 5, 8)
"""Decoder blocks that end by doubling the grid."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the host counts ``error`` as memory that ran out."""
    host = comfy.model_management
    return bool(host.is_oom(error)) if hasattr(host, "is_oom") else isinstance(error, host.OOM_EXCEPTION)


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
