"""Patches of the host's attention that capture queries, keys and outputs, or inject captured ones."""

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
from .tail import TailState

AttentionPatch = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]


class Slot(NamedTuple):
    """Key of a captured tensor: what, in which decoder block, of which half of guidance (the host's uuid)."""

    kind: str
    block: int
    half: Any


@dataclass(frozen=True)
class HostCache:
    """What an unmodulated step leaves: queries, keys and cross-attention outputs, and the state for `TailCall`.

    Attributes:
        keep: what the step was asked to keep.
        tensors: what attention used.
        tail: what the end of the UNet starts from.
        weights: of self-attention, of the frame that was repeated last.
    """

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


def capture_self(attention: AttentionPatch, block: int, into: dict[Slot, Tensor], *, keys: bool) -> AttentionPatch:
    """Return a patch of self-attention that captures queries, and keys if wanted, and changes nothing.

    Args:
        attention: what computes attention: `host_attention`, or the patch of another node.
        block: decoder block.
        into: where captured tensors ``(T,N,C)`` go.
        keys: whether keys are wanted too.

    Returns:
        The patch, for the host's ``attn1`` replacements.
    """

    def capture(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        _require_all_tokens(q, extra)
        for kind, tensor in (("q", q), ("k", k)) if keys else (("q", q),):
            _store(kind, block, tensor, extra, into)
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
    """Return a patch of self-attention with captured queries and keys.

    Args:
        attention: what computes attention: `host_attention`, or the patch of another node.
        block: decoder block.
        cache: of the unmodulated step.
        frames: ``(B,)`` int64, for each element the frame of the cache that it repeats.

    Returns:
        The patch, for the host's ``attn1`` replacements.
    """

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


def host_attention(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
    """Compute attention as the host does where nothing is patched.

    Args:
        q: queries ``(B,N,C)``, heads merged.
        k: keys ``(B,M,C)``.
        v: values ``(B,M,C)``.
        extra: the host's options of the block.

    Returns:
        ``(B,N,C)``, before the output projection.
    """
    precision = extra["attn_precision"]
    out: Tensor = optimized_attention(q, k, v, extra["n_heads"], attn_precision=precision, transformer_options=extra)
    return out


def cpu_attention(usual: Callable[..., Tensor], query: Tensor, *rest: Any, **options: Any) -> Tensor:
    """Compute attention on a CPU by torch's own function, as the program outside the host does; it is faster, too.

    Args:
        usual: the host's choice, which keeps numbers of half precision.
        query: first of the arguments of ``usual``.
        rest: the others.
        options: likewise.
    """
    chosen = attention_pytorch if query.dtype == torch.float32 else usual
    out: Tensor = chosen(query, *rest, **options)
    return out


def _store(kind: str, block: int, tensor: Tensor, extra: dict[str, Any], into: dict[Slot, Tensor]) -> None:
    halves = extra["uuids"]
    into.update((Slot(kind, block, half), part) for half, part in zip(halves, tensor.chunk(len(halves)), strict=True))


def _stored(kind: str, block: int, cache: HostCache, frames: Tensor, extra: dict[str, Any]) -> Tensor:
    return torch.cat([cache.tensors[Slot(kind, block, half)][frames] for half in extra["uuids"]])


def _require_all_tokens(queries: Tensor, extra: dict[str, Any]) -> None:
    height, width = extra["activations_shape"][2:]
    if queries.shape[1] != height * width:
        raise InputError(
            f"`model` must attend over all {height * width} cells of the frame, but got {queries.shape[1]}. "
            "Remove the node that merges or tiles tokens (ToMe, HyperTile) before this one."
        )
