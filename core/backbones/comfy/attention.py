"""Patches of the host's attention that capture queries, keys and outputs, or inject captured ones.

In Stable Video Diffusion the host calls the same patch for the spatial and the temporal layer of a block, the spatial
one first, so that calls of a block take turns; their shapes must agree with that. They alone would not do: with as many
frames as cells both have the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from torch import Tensor

from ...config.parts import ModulationConfig
from ...types import InputError
from ..attention_weights import AttentionWeights
from ..layers import AllRead
from .tail import TailState, fit_offset

AttentionPatch = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]
SPATIAL, TEMPORAL = ("q", "k"), ("temporal q", "temporal k")
"""Kinds of captured queries and keys: spatial ones ``(T,N,C)``, temporal ones ``(N,T,C)``."""
REMEDY = "Remove the node that merges or tiles tokens (ToMe, HyperTile) before this one."


class Slot(NamedTuple):
    """Key of a captured tensor: what, in which decoder block, of which half of guidance (the host's uuid)."""

    kind: str
    block: int
    half: Any


@dataclass(frozen=True)
class HostCache:
    """What an unmodulated step leaves: what attention used, the state for `TailCall`, and weights of one frame."""

    keep: ModulationConfig
    tensors: dict[Slot, Tensor] = field(default_factory=dict)
    tail: dict[Any, TailState] = field(default_factory=dict)
    weights: AttentionWeights = field(default_factory=AttentionWeights)

    def merged(self, other: HostCache) -> HostCache:
        """Return the cache of the frames of both, in order."""
        tensors = {slot: torch.cat([tensor, other.tensors[slot]]) for slot, tensor in self.tensors.items()}
        tail = {}
        for half, (hidden, skips, index) in self.tail.items():
            more = other.tail[half]
            joined = tuple(torch.cat(pair) for pair in zip(skips, more.skips, strict=True))
            tail[half] = TailState(torch.cat([hidden, more.hidden]), joined, index)
        return HostCache(self.keep, tensors, tail)


def stop_when_read(executor: Any, x: Tensor, *rest: Any, **options: Any) -> Tensor:
    """Call the UNet until `AllRead`, as a wrapper of the host; what it would predict then is of no use, and zero."""
    try:
        answer: Tensor = executor(x, *rest, **options)
    except AllRead:
        return x.new_zeros((len(x), executor.class_obj.out_channels, *x.shape[2:]))
    return answer


def capture_self(
    attention: AttentionPatch, block: int, into: dict[Slot, Tensor], *, keys: bool, last: bool = False
) -> AttentionPatch:
    """Return a patch of self-attention that captures queries ``(T,N,C)``, and keys if wanted, and changes nothing.

    The ``last`` one of a call raises `AllRead`.
    """

    def capture(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        require_all_tokens(q, extra)
        for kind, tensor in (("q", q), ("k", k)) if keys else (("q", q),):
            _store(kind, block, tensor, extra, into)
        if last:
            raise AllRead
        return attention(q, k, v, extra)

    return capture


def capture_cross(attention: AttentionPatch, block: int, into: dict[Slot, Tensor]) -> AttentionPatch:
    """Return a patch of cross-attention that captures its output and changes nothing."""

    def capture(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        out = attention(q, k, v, extra)
        _store("cross", block, out, extra, into)
        return out

    return capture


def inject_self(attention: AttentionPatch, block: int, cache: HostCache, frames: Tensor) -> AttentionPatch:
    """Return a patch of self-attention with the queries and keys that were captured of ``frames`` ``(B,)``."""

    def inject(_q: Tensor, _k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        def of_frame(frame: int) -> tuple[Tensor, Tensor]:
            one = torch.tensor([frame])
            return _stored("q", block, cache, one, extra), _stored("k", block, cache, one, extra)

        if attention is host_attention:
            layer = (block, tuple(extra["uuids"]))
            quick = cache.weights.mixed(layer, frames, v, extra["n_heads"], of_frame)
            if quick is not None:
                return quick
        queries, keys = (_stored(kind, block, cache, frames, extra) for kind in "qk")
        return attention(queries, keys, v, extra)

    return inject


def inject_cross(block: int, cache: HostCache, frames: Tensor) -> AttentionPatch:
    """Return a patch that repeats the unmodulated output: with queries and keys injected nothing in it changes."""

    def inject(_q: Tensor, _k: Tensor, _v: Tensor, extra: dict[str, Any]) -> Tensor:
        return _stored("cross", block, cache, frames, extra)

    return inject


def add_offset(block: int, offset: Tensor) -> Callable[[Tensor, dict[str, Any]], Tensor]:
    """Return a patch of attention outputs that adds ``offset`` ``(B,h,w)`` in ``block`` (Eq. 2)."""

    def add(output: Tensor, extra: dict[str, Any]) -> Tensor:
        if extra["block"] != ("output", block):
            return output
        grid = fit_offset(offset, tuple(extra["activations_shape"][2:]))
        return output + grid.to(output).flatten(1).repeat(len(extra["uuids"]), 1)[..., None]

    return add


class Turns:
    """Tells whether a call of one block's attention is that of the spatial layer; one instance per patch and call."""

    def __init__(self) -> None:
        self._next_is_spatial = True

    def is_spatial(self, tokens: Tensor, extra: dict[str, Any]) -> bool:
        """Return whether the call with ``tokens`` is the spatial one, and take turns; other shapes are refused."""
        spatial, self._next_is_spatial = self._next_is_spatial, not self._next_is_spatial
        elements, _, height, width = extra["activations_shape"]
        halves, cells = len(extra["uuids"]), height * width
        expected = (elements, cells) if spatial else (halves * cells, elements // halves)
        if tuple(tokens.shape[:2]) != expected:
            raise InputError(
                f"`model` must attend over all {cells} cells of a frame and all {elements // halves} frames of the "
                f"window, but its {'spatial' if spatial else 'temporal'} layer got {tuple(tokens.shape[:2])} tokens. "
                f"{REMEDY}"
            )
        return spatial


def capture_both(
    attention: AttentionPatch,
    block: int,
    into: dict[Slot, Tensor],
    kinds: tuple[str, ...],
    device: torch.device | None,
    *,
    last: bool = False,
) -> AttentionPatch:
    """Return a patch of SVD's self-attentions that captures ``kinds``, moved to ``device``, and changes nothing.

    The ``last`` one of a call raises `AllRead` once it has one of them.
    """
    turns = Turns()

    def capture(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        names = SPATIAL if turns.is_spatial(q, extra) else TEMPORAL
        for kind, tensor in zip(names, (q, k), strict=True):
            if kind in kinds:
                _store(kind, block, tensor, extra, into, device)
                if last:
                    raise AllRead
        return attention(q, k, v, extra)

    return capture


def inject_both(attention: AttentionPatch, block: int, stored: dict[Slot, Tensor]) -> AttentionPatch:
    """Return a patch of SVD's self-attentions with captured queries and keys, of those layers that have any."""
    turns = Turns()

    def inject(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        names, halves = SPATIAL if turns.is_spatial(q, extra) else TEMPORAL, extra["uuids"]
        if Slot(names[0], block, halves[0]) in stored:
            q, k = (torch.cat([stored[Slot(kind, block, half)].to(v) for half in halves]) for kind in names)
        return attention(q, k, v, extra)

    return inject


def add_to_both(block: int, offset: Tensor) -> Callable[[Tensor, dict[str, Any]], Tensor]:
    """Return a patch of attention outputs that adds ``offset`` ``(T,h,w)`` in both layers of ``block`` (Eq. 2)."""
    turns = Turns()

    def add(output: Tensor, extra: dict[str, Any]) -> Tensor:
        if extra["block"] != ("output", block):
            return output
        is_spatial = turns.is_spatial(output, extra)
        cells = fit_offset(offset, tuple(extra["activations_shape"][2:])).to(output).flatten(1)  # (T,N)
        return output + (cells if is_spatial else cells.T).repeat(len(extra["uuids"]), 1)[..., None]

    return add


def host_attention(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
    """Return ``(B,N,C)``, before the output projection, as the host computes it where nothing is patched."""
    precision = extra["attn_precision"]
    out: Tensor = optimized_attention(q, k, v, extra["n_heads"], attn_precision=precision, transformer_options=extra)
    return out


def cpu_attention(usual: Callable[..., Tensor], query: Tensor, *rest: Any, **options: Any) -> Tensor:
    """Compute attention on a CPU by torch's own function, as the program outside the host does; it is faster, too."""
    chosen = attention_pytorch if query.dtype == torch.float32 else usual  # the host's choice for half precision
    out: Tensor = chosen(query, *rest, **options)
    return out


_SHORT = "sage"
"""Part of the names of kernels that multiply in 8 bits, whose errors are as large as what modulation changes."""


def exact_attention(usual: Callable[..., Tensor], query: Tensor, *rest: Any, **options: Any) -> Tensor:
    """Compute attention as the host does, but not in 8 bits: difference maps are differences of two passes."""
    chosen = attention_pytorch if is_short(usual) else usual
    out: Tensor = chosen(query, *rest, **options)
    return out


def is_short(function: Callable[..., Any]) -> bool:
    """Tell whether a function computes attention in 8 bits, by its name."""
    names = (getattr(function, name, "") for name in ("__module__", "__qualname__"))
    return any(_SHORT in str(name).lower() for name in names)


def _store(
    kind: str, block: int, tensor: Tensor, extra: dict[str, Any], into: dict[Slot, Tensor],
    device: torch.device | None = None,
) -> None:  # fmt: skip
    halves = extra["uuids"]
    for half, part in zip(halves, tensor.chunk(len(halves)), strict=True):
        into[Slot(kind, block, half)] = part if device is None else part.to(device)


def _stored(kind: str, block: int, cache: HostCache, frames: Tensor, extra: dict[str, Any]) -> Tensor:
    return torch.cat([cache.tensors[Slot(kind, block, half)][frames] for half in extra["uuids"]])


def require_all_tokens(queries: Tensor, extra: dict[str, Any]) -> None:
    """Check that attention sees every cell of the frame."""
    height, width = extra["activations_shape"][2:]
    if queries.shape[1] != height * width:
        raise InputError(
            f"`model` must attend over all {height * width} cells of the frame, but got {queries.shape[1]}. {REMEDY}"
        )
