"""Where a cell lies, beside what it looks like: two more components of its token (ours)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..types import Grid, require_shape


def add_place(tokens: Tensor, grid: Grid, scale: float) -> Tensor:
    """Return tokens ``(T,N,C)`` with the place of their cells, ``(T,N,C+2)``; the longer side measures ``scale``.

    Nothing is added at a ``scale`` of 0.
    """
    require_shape("tokens", tokens, "T N C", N=grid.num_tokens)
    if not scale:
        return tokens
    rows, columns = torch.meshgrid(*(_center(count) for count in grid), indexing="ij")
    place = torch.stack([rows, columns], dim=-1).flatten(0, 1).to(tokens) * scale / max(grid)  # (N,2)
    return torch.cat([tokens, place.expand(len(tokens), -1, -1)], dim=-1)


def measure_place(tokens: Tensor, grid: Grid, share: float) -> float:
    """Return the scale with which the place has ``share`` of the variance of ``(T,N,C)`` tokens and place together."""
    if not share:
        return 0.0
    looks = float(tokens.flatten(0, 1).var(0, unbiased=False).sum())
    place = sum(float((_center(count) / max(grid)).var(unbiased=False)) for count in grid)
    return float((share / (1 - share) * looks / place) ** 0.5) if place else 0.0


def _center(count: int) -> Tensor:
    """Return the centers of ``count`` cells."""
    return torch.arange(count) + 0.5
