"""Frames cut into overlapping tiles, for a model that sees less than a frame at once; their features averaged (ours).

Tiles are of one size, so that they go through the model together, and begin at multiples of 64 pixels, where the grids
of all of the UNet's levels do. The autoencoder sees whole frames: it is convolutional, and seams stay out of latents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..backbones.protocol import PIXELS_PER_CELL, PIXELS_PER_LATENT, SIDE_MULTIPLE
from ..types import Grid

LATENTS_PER_CELL = PIXELS_PER_CELL // PIXELS_PER_LATENT
CELLS_PER_MULTIPLE = SIDE_MULTIPLE // PIXELS_PER_CELL
MIN_OVERLAP = 0.25
"""Share of a tile's side that the next tile has, too, at least."""


class Tiling(NamedTuple):
    """Coarse grids of a frame and of each tile in it, and the first row and column of each tile, in cells.

    Tiles of several frames are numbered frame by frame.
    """

    grid: Grid
    tile: Grid
    corners: tuple[tuple[int, int], ...]

    def cut(self, latents: Tensor, numbers: Sequence[int]) -> Tensor:
        """Return the tiles ``(E,4,h,w)`` of latents ``(T,4,H/8,W/8)`` that have ``numbers``."""
        rows, columns = (LATENTS_PER_CELL * side for side in self.tile)
        parts = []
        for number in numbers:
            frame, tile = divmod(number, len(self.corners))
            top, left = (LATENTS_PER_CELL * place for place in self.corners[tile])
            parts.append(latents[frame, :, top : top + rows, left : left + columns])
        return torch.stack(parts)

    def weigh(self) -> Tensor:
        """Return the weights ``(E,h,w)`` float32 of the cells of each tile: one in all for each cell of the frame.

        They fall off as a Hann window does, never to zero.
        """
        rows, columns = (torch.sin(math.pi * (torch.arange(side) + 0.5) / side) ** 2 for side in self.tile)
        window = rows[:, None] * columns
        total = torch.zeros(tuple(self.grid))
        for place in self.places:
            total[place] += window
        return torch.stack([window / total[place] for place in self.places])

    @property
    def places(self) -> tuple[tuple[slice, slice], ...]:
        """Rows and columns of each tile on the coarse grid."""
        return tuple((slice(top, top + self.tile.h), slice(left, left + self.tile.w)) for top, left in self.corners)


def split_tiles(grid: Grid, longest: int) -> Tiling:
    """Return the tiles of a frame of ``grid`` cells whose sides have ``longest`` pixels at most; 0: one tile.

    ``longest`` is rounded down to a multiple of 64. Tiles are placed evenly.

    >>> split_tiles(Grid(28, 52), 448)
    Tiling(grid=Grid(h=28, w=52), tile=Grid(h=28, w=28), corners=((0, 0), (0, 12), (0, 24)))
    """
    side = longest // SIDE_MULTIPLE * CELLS_PER_MULTIPLE or max(grid)
    tile = Grid(min(grid.h, side), min(grid.w, side))
    rows, columns = (_place(whole, part) for whole, part in zip(grid, tile, strict=True))
    return Tiling(grid, tile, tuple((top, left) for top in rows for left in columns))


def _place(whole: int, part: int) -> list[int]:
    """Return where tiles of ``part`` cells begin on a side of ``whole`` cells, all multiples of 64 pixels."""
    room, step = ((whole - part) // CELLS_PER_MULTIPLE, int((1 - MIN_OVERLAP) * part / CELLS_PER_MULTIPLE))
    if not room:
        return [0]
    gaps = math.ceil(room / step)
    return [CELLS_PER_MULTIPLE * (room * index // gaps) for index in range(gaps + 1)]


class TileMean:
    """The weighted mean ``(T,N,C)`` of what tiles say of the cells of frames, which are added one after the other."""

    def __init__(self, tiling: Tiling, num_frames: int) -> None:
        self._tiling, self._num_frames = tiling, num_frames
        self._weights = tiling.weigh()[..., None]
        self._sum: Tensor | None = None

    def add(self, numbers: Sequence[int], tokens: Tensor) -> None:
        """Add the tokens ``(E,n,C)`` of tiles with ``numbers``."""
        if self._sum is None:
            self._sum = tokens.new_zeros(self._num_frames, *self._tiling.grid, tokens.shape[-1])
        for number, cells in zip(numbers, tokens.reshape(len(tokens), *self._tiling.tile, -1), strict=True):
            frame, tile = divmod(number, len(self._tiling.corners))
            self._sum[(frame, *self._tiling.places[tile])] += self._weights[tile] * cells

    def result(self) -> Tensor:
        """Return the mean, after all tiles."""
        if self._sum is None:
            raise RuntimeError("no tile was added")
        return self._sum.flatten(1, 2)
