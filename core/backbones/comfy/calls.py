"""UNet calls within one loading of the host's model, with patches that hold for one call alone."""

from __future__ import annotations

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

from ..protocol import halve_on_out_of_memory
from .attention import AttentionPatch, cpu_attention, exact_attention, host_attention, is_short, stop_when_read
from .patches import Witness

AROUND_UNET = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
"""Kind of the wrappers around the UNet."""


class Call(NamedTuple):
    """Patches of one UNet call: replacements of attention, other patches, and a wrapper.

    Attention is named by ``(name, block)``, or with the number of the transformer block behind them.
    """

    replace: dict[tuple[str, int] | tuple[str, int, int], AttentionPatch]
    patches: dict[str, Callable[..., Any]]
    wrapper: Callable[..., Tensor] | None = None


@dataclass(frozen=True)
class Loaded:
    """What the host's sampler hands over while the model is loaded."""

    base: Any
    conds: dict[str, list[dict[str, Any]]]
    options: dict[str, Any]
    device: torch.device


class HostCalls:
    """What all denoisers over a model that the host has loaded have in common."""

    def __init__(self, loaded: Loaded, guidance_scale: float) -> None:
        self._loaded = loaded
        self._guidance_scale = guidance_scale
        self._compute_batch = 1 if self._on_cpu else sys.maxsize  # 1 is as fast there, and results cannot depend on it

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

    def _reading(self, blocks: Sequence[int]) -> tuple[Call, int | None]:
        """Return an empty call that ends behind the last of ``blocks``, and that block, or None where it is whole."""
        return (Call({}, {}, stop_when_read), max(blocks)) if self._may_stop else (Call({}, {}), None)

    @property
    def _may_stop(self) -> bool:
        """Whether a call need not be whole: no other node looks at what the UNet answers."""
        options = self._loaded.options
        wrappers = options.get("transformer_options", {}).get("wrappers", {}).get(AROUND_UNET, {})
        return not (any(wrappers.values()) or "model_function_wrapper" in options)

    def _denoised(self, latents: Tensor, sigma: float, call: Call, *, guided: bool = True) -> Tensor:
        """Return the prediction of the clean latents, float32 on the device of ``latents``."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        loaded = self._loaded
        x = latents.to(loaded.device, torch.float32)
        sigmas = x.new_full((len(x),), sigma)
        negative = loaded.conds["negative"] if guided and self._guidance_scale != 1 else None
        witness = Witness(x, len(loaded.base.diffusion_model.output_blocks))
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
        for (name, *place), patch in call.replace.items():
            block, depth = (*place, 0)[:2]
            replaced.setdefault(name, {})["output", block, depth] = patch
        others = inner.setdefault("patches", {})
        for name, other in (*call.patches.items(), ("output_block_patch", witness)):
            others.setdefault(name, []).insert(0, other)
        if call.wrapper is not None:
            comfy.patcher_extension.add_wrapper_with_key(
                AROUND_UNET,
                "vidseg",
                call.wrapper,
                options,
                is_model_options=True,
            )
        return options

    def _attention(self, name: str, block: int, depth: int = 0) -> AttentionPatch:
        """Return what computes attention: the host's function, or the patch of another node."""
        patches = self._loaded.options.get("transformer_options", {}).get("patches_replace", {}).get(name, {})
        foreign: AttentionPatch | None = patches.get(("output", block, depth)) or patches.get(("output", block))
        return foreign or host_attention


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the host counts ``error`` as memory that ran out."""
    host = comfy.model_management
    return bool(host.is_oom(error)) if hasattr(host, "is_oom") else isinstance(error, host.OOM_EXCEPTION)
