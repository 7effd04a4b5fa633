"""Features of several layers of a model joined to one token for each coarse cell (ours)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..types import Grid, InputError


def join_layers(layers: Sequence[Tensor], grid: Grid) -> Tensor:
    """Return tokens ``(T,N,C)`` of layers ``(T,M,c)`` one behind the other, ``C`` being the sum of all ``c``.

    A layer with coarser cells is enlarged bilinearly. Tokens of a layer become vectors of length one, so that none
    counts more than another because its numbers are larger.
    """
    return torch.cat([F.normalize(_enlarge(layer, grid), dim=-1) for layer in layers], dim=-1)


def _enlarge(layer: Tensor, grid: Grid) -> Tensor:
    """Return a layer ``(T,M,c)`` on the coarse grid."""
    if layer.shape[1] == grid.num_tokens:
        return layer
    ratio = round((grid.num_tokens / layer.shape[1]) ** 0.5)
    height, width = grid.h // ratio, grid.w // ratio
    if ratio < 1 or height * width != layer.shape[1]:
        raise InputError(f"`layers` must lie on the coarse grid of {grid.h}x{grid.w} cells or on a coarser one.")
    maps = torch.unflatten(layer.transpose(1, 2), 2, (height, width))
    return F.interpolate(maps, tuple(grid), mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
