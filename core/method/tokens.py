"""What a cell is known by: what it looks like, and beside it (ours) how it moves and where it lies."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config.parts import ClusterConfig
from ..leaves import TokenScales
from ..types import Features, Grid, require_finite, require_shape
from .flow import measure_flow
from .motion import measure_motion

MOTION_VARIANCE = 0.1
"""Variance of motion, over cells, in clips in which things move: mean of eight with ground truth (measured)."""


def normalize_tokens(tokens: Tensor) -> Tensor:
    """Divide each token ``(...,C)`` by its largest absolute component; a token of zeros stays as it is.

    Reference code: the same, with NaN for a token of zeros. Applied before K-means and the nearest neighbors.

    >>> normalize_tokens(torch.tensor([[1.0, -4.0], [0.0, 0.0]])).tolist()
    [[0.25, -1.0], [0.0, 0.0]]
    """
    require_finite("tokens", tokens)
    largest = torch.linalg.vector_norm(tokens, ord=torch.inf, dim=-1, keepdim=True)
    return tokens / torch.where(largest == 0, torch.ones_like(largest), largest)


def make_tokens(features: Features, scales: TokenScales) -> Tensor:
    """Return the tokens of a window, ``(T,N,C)``: looks, then motion and place with the scales given.

    Nothing moves where the motion of some cells is unknown.
    """
    tokens = normalize_tokens(features.queries)
    if scales.motion:
        motion = _measure(features) * scales.motion
        tokens = torch.cat([tokens, motion.to(tokens)[..., None]], dim=-1)
    return add_place(tokens, features.grid, scales.place)


def with_flow(features: Features) -> Features:
    """Return features with the flow of their pictures, if they have any."""
    if features.flow is not None or features.pictures is None:
        return features
    return features._replace(flow=measure_flow(features.pictures, features.grid, features.device))


def without_flow(features: Features) -> Features:
    """Return features in which nothing moves."""
    return features._replace(flow=None, pictures=None)


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


def measure_scales(tokens: Tensor, grid: Grid, config: ClusterConfig) -> TokenScales:
    """Return the scales with which motion and place have their shares of the variance, beside ``(T,N,C)`` tokens.

    The share of motion is that in a clip in which things move, so that noise does not grow where nothing does.
    """
    looks = float(tokens.flatten(0, 1).var(0, unbiased=False).sum())
    place = sum(float((_center(count) / max(grid)).var(unbiased=False)) for count in grid)
    return TokenScales(_scale(config.place, looks, place), _scale(config.motion, looks, MOTION_VARIANCE))


def _scale(share: float, looks: float, variance: float) -> float:
    """Return by what to multiply values of a variance, so that they have a share beside looks."""
    return float((share / (1 - share) * looks / variance) ** 0.5) if variance else 0.0


def _measure(features: Features) -> Tensor:
    """Return the motion ``(T,N)`` of a window, 0 where that of some cells is unknown."""
    flow = with_flow(features).flow
    motion = None if flow is None else measure_motion(flow, features.grid)
    if motion is None or motion.isnan().any():
        return torch.zeros(features.num_frames, features.grid.num_tokens)
    return motion


def _center(count: int) -> Tensor:
    """Return the centers of ``count`` cells."""
    return torch.arange(count) + 0.5
