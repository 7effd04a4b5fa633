"""Attention weights that are computed once for all repetitions of a frame.

With queries and keys injected, the weights of self-attention are the same for every region and sign (paper 4.3); only
values differ. Keeping them saves half of the attention on a CPU. A GPU computes them faster than it could read them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

MAX_BYTES = 2**26
"""Weights of a layer, guidance halves included, that are kept at most; larger ones are computed each time."""


class AttentionWeights:
    """The weights of one step for the frame that was repeated last."""

    def __init__(self) -> None:
        self._frame = -1
        self._layers: dict[Hashable, Tensor] = {}

    def mixed(
        self,
        layer: Hashable,
        frames: Tensor,
        value: Tensor,
        heads: int,
        recorded: Callable[[int], tuple[Tensor, Tensor]],
    ) -> Tensor | None:
        """Return the attention's output ``(G*B,N,C)`` before its projection, or None where keeping does not pay.

        ``frames`` ``(B,)`` are those repeated by ``value`` ``(G*B,N,C)``, heads merged, in ``G`` halves of guidance;
        ``recorded`` gives queries and keys ``(G,N,C)`` of a frame. It pays on a CPU, for one frame and small layers.
        """
        groups, tokens = len(value) // len(frames), value.shape[1]
        fits = groups * heads * tokens**2 * value.element_size() <= MAX_BYTES
        if not fits or value.device.type != "cpu" or value.dtype != torch.float32 or bool((frames != frames[0]).any()):
            return None
        frame = int(frames[0])
        if frame != self._frame:
            self._frame = frame
            self._layers.clear()
        if layer not in self._layers:
            self._layers[layer] = compute_attention_weights(*recorded(frame), heads)
        return mix_values(self._layers[layer], value)


def compute_attention_weights(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """Return ``softmax(q k' / sqrt(d))``, ``(G,heads,N,N)``, of queries and keys ``(G,N,C)``, heads merged."""
    q, k = (torch.unflatten(x, -1, (heads, -1)).transpose(1, 2) for x in (query, key))
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(2, 3))
    return scores.softmax(-1)


def mix_values(weights: Tensor, value: Tensor) -> Tensor:
    """Return the values ``(G*B,N,C)`` mixed by the weights ``(G,heads,N,N)`` of their group, in one product."""
    groups, heads = weights.shape[:2]
    parts = torch.unflatten(torch.unflatten(value, 0, (groups, -1)), -1, (heads, -1))  # G B N heads d
    side_by_side = parts.permute(0, 3, 2, 1, 4).flatten(3)
    mixed = torch.unflatten(torch.matmul(weights, side_by_side), -1, (parts.shape[1], -1))  # G heads N B d
    return mixed.permute(0, 3, 2, 1, 4).flatten(3).flatten(0, 1)
