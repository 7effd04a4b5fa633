"""Linear maps of values along the axes of a picture: interpolation and means, of a part or in full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy

import torch
from torch import Tensor


class Axis:
    """A linear map of values along one axis, as a matrix ``(new,old)`` with few entries around a rising diagonal.

    Products with its parts cost little while masks are small, and less than picking and mixing rows.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix.float()
        seen = (matrix != 0).int()
        self.low, self.high = seen.argmax(1), seen.shape[1] - 1 - seen.flip(1).argmax(1)

    @classmethod
    def interpolate(cls, size: int, places: Tensor) -> Axis:
        """Return the interpolation of ``size`` points at ``places``, as `torch.nn.functional.interpolate` has it."""
        places = places.clamp(0, size - 1)
        low = places.long()
        share = (places - low).float().double()
        matrix, rows = torch.zeros(len(places), size, dtype=torch.float64), torch.arange(len(places))
        matrix[rows, low] = 1 - share
        matrix[rows, (low + 1).clamp(max=size - 1)] += share
        return cls(matrix)

    @classmethod
    def between(cls, size: int, new: int) -> Axis:
        """Return the interpolation from ``size`` to ``new`` points over the same length."""
        return cls.interpolate(size, place_centers(size, new))

    def to(self, device: torch.device) -> Axis:
        """Return the map with its matrix on another device."""
        moved = copy(self)
        moved.matrix = self.matrix.to(device)
        return moved

    @property
    def share(self) -> Tensor:
        """Share of the higher of two old points, ``(new,)``, where the map is an interpolation."""
        weights = self.matrix.gather(1, self.high[:, None])[:, 0]
        return torch.where(self.high > self.low, weights, 0)

    def reached(self, part: slice) -> slice:
        """Return the new points that depend on a part of the old ones."""
        start = int(torch.searchsorted(self.high, part.start))
        return slice(start, int(torch.searchsorted(self.low, part.stop)))

    def needed(self, part: slice, known: slice) -> slice:
        """Return which of the known old points a part of the new ones depends on."""
        low, high = int(self.low[part.start]), int(self.high[part.stop - 1]) + 1
        return slice(max(low, known.start), min(high, known.stop))

    def follow(self, part: slice) -> slice:
        """Return the new points whose lower old point is in a part of the old ones."""
        start, stop = torch.searchsorted(self.low, torch.tensor([part.start, part.stop])).tolist()
        return slice(start, stop)


def list_bands(rows: slice, height: int) -> Iterator[slice]:
    """Yield parts of at most ``height`` rows."""
    for start in range(rows.start, rows.stop, height):
        yield slice(start, min(start + height, rows.stop))


def make_average(size: int, reach: int) -> Tensor:
    """Return the matrix of means over ``reach`` points to each side, mirrored at both ends, float64."""
    reach = min(reach, size - 1)
    matrix, rows = torch.zeros(size, size, dtype=torch.float64), torch.arange(size)
    for offset in range(-reach, reach + 1):
        places = (rows + offset).abs()
        matrix[rows, torch.where(places < size, places, 2 * size - 2 - places)] += 1 / (2 * reach + 1)
    return matrix


def place_centers(size: int, new: int) -> Tensor:
    """Return where the centers of ``new`` points lie among those of ``size`` points over the same length, float64."""
    return (torch.arange(new, dtype=torch.float64) + 0.5) * size / new - 0.5


def apply_axes(matrices: Sequence[Tensor], values: Tensor) -> Tensor:
    """Return ``(r,...,c)`` mapped along both axes by matrices: columns first, while rows are few."""
    rows, columns = matrices
    wide = (values.reshape(-1, values.shape[-1]) @ columns.T).view(values.shape[0], -1)
    return (rows @ wide).view(len(rows), *values.shape[1:-1], -1)


def resize(values: Tensor, axes: Sequence[Axis], source: list[slice], target: list[slice]) -> Tensor:
    """Return ``target`` of the new points along both axes, from ``(r,...,c)``, ``source`` of the old ones, else 0."""
    parts = [axis.matrix[to, since] for axis, since, to in zip(axes, source, target, strict=True)]
    return apply_axes(parts, values)
