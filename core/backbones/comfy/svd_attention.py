"""Patches of the host's attention in Stable Video Diffusion, which tell its spatial from its temporal layers.

The host calls the same patch for both, the spatial layer of a block first, so that calls of a block take turns; their
shapes must agree with that. They alone would not do: with as many frames as cells both have the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...types import InputError
from .attention import AttentionPatch, Slot
from .tail import fit_offset

SPATIAL, TEMPORAL = ("q", "k"), ("temporal q", "temporal k")
"""Kinds of captured queries and keys: spatial ones ``(T,N,C)``, temporal ones ``(N,T,C)``."""


class Turns:
    """Tells whether a call of one block's attention is that of the spatial layer; one instance per patch and call."""

    def __init__(self) -> None:
        self._next_is_spatial = True

    def is_spatial(self, tokens: Tensor, extra: dict[str, Any]) -> bool:
        """Return whether the call with ``tokens`` is the spatial one, and take turns.

        Raises:
            InputError: the shape of ``tokens`` is not that of the layer whose turn it is.
        """
        spatial, self._next_is_spatial = self._next_is_spatial, not self._next_is_spatial
        elements, _, height, width = extra["activations_shape"]
        halves, cells = len(extra["uuids"]), height * width
        expected = (elements, cells) if spatial else (halves * cells, elements // halves)
        if tuple(tokens.shape[:2]) != expected:
            raise InputError(
                f"`model` must attend over all {cells} cells of a frame and all {elements // halves} frames of the "
                f"window, but its {'spatial' if spatial else 'temporal'} layer got {tuple(tokens.shape[:2])} tokens. "
                "Remove the node that merges or tiles tokens (ToMe, HyperTile) before this one."
            )
        return spatial


def capture_both(
    attention: AttentionPatch, block: int, into: dict[Slot, Tensor], kinds: tuple[str, ...], device: torch.device | None
) -> AttentionPatch:
    """Return a patch of self-attention that captures queries and keys and changes nothing.

    Args:
        attention: what computes attention: the host's function, or the patch of another node.
        block: decoder block.
        into: where captured tensors go.
        kinds: of `SPATIAL` and `TEMPORAL`, those that are wanted.
        device: where captured tensors lie; None: where they are.

    Returns:
        The patch, for the host's ``attn1`` replacements.
    """
    turns = Turns()

    def capture(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        names, halves = SPATIAL if turns.is_spatial(q, extra) else TEMPORAL, extra["uuids"]
        for kind, tensor in zip(names, (q, k), strict=True):
            if kind in kinds:
                for half, part in zip(halves, tensor.chunk(len(halves)), strict=True):
                    into[Slot(kind, block, half)] = part if device is None else part.to(device)
        return attention(q, k, v, extra)

    return capture


def inject_both(attention: AttentionPatch, block: int, stored: dict[Slot, Tensor]) -> AttentionPatch:
    """Return a patch of self-attention with captured queries and keys, of those layers for which there are any."""
    turns = Turns()

    def inject(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        names, halves = SPATIAL if turns.is_spatial(q, extra) else TEMPORAL, extra["uuids"]
        if Slot(names[0], block, halves[0]) in stored:
            q, k = (torch.cat([stored[Slot(kind, block, half)].to(v) for half in halves]) for kind in names)
        return attention(q, k, v, extra)

    return inject


def add_to_both(block: int, offset: Tensor) -> Any:
    """Return a patch of attention outputs that adds ``offset`` ``(T,h,w)`` in both layers of ``block`` (Eq. 2)."""
    turns = Turns()

    def add(output: Tensor, extra: dict[str, Any]) -> Tensor:
        if extra["block"] != ("output", block):
            return output
        is_spatial = turns.is_spatial(output, extra)
        cells = fit_offset(offset, tuple(extra["activations_shape"][2:])).to(output).flatten(1)  # (T,N)
        return output + (cells if is_spatial else cells.T).repeat(len(extra["uuids"]), 1)[..., None]

    return add
