"""Guided filter (He, Sun & Tang, TPAMI 2013; He & Sun 2015) of many small masks along the edges of one picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..config.parts import EnlargingConfig
from ..types import require_shape

_BAND = 64
"""Rows of a picture that are computed at once: they depend on few coarse rows, and stay in a cache."""


class Patch(NamedTuple):
    """The part of a frame where a mask has an answer, ``values`` ``(r,c)`` float32; elsewhere it is 0."""

    rows: slice
    columns: slice
    values: Tensor


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
        return cls.interpolate(size, _place_centers(size, new))

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


def _average(size: int, reach: int) -> Tensor:
    """Return the matrix of means over ``reach`` points to each side, mirrored at both ends, float64."""
    reach = min(reach, size - 1)
    matrix, rows = torch.zeros(size, size, dtype=torch.float64), torch.arange(size)
    for offset in range(-reach, reach + 1):
        places = (rows + offset).abs()
        matrix[rows, torch.where(places < size, places, 2 * size - 2 - places)] += 1 / (2 * reach + 1)
    return matrix


def _place_centers(size: int, new: int) -> Tensor:
    """Return where the centers of ``new`` points lie among those of ``size`` points over the same length, float64."""
    return (torch.arange(new, dtype=torch.float64) + 0.5) * size / new - 0.5


class GuidedFilter:
    """The filter of one picture ``(H,W,3)`` uint8, for masks on its coarse grid of ``(h,w)`` cells.

    What depends on the picture alone is computed once. A mask is enlarged bilinearly, filtered, and enlarged again to
    ``frame_size``; each step sees only the part of the frame that the mask reaches. Coefficients are computed at every
    `EnlargingConfig.guided_subsample`-th pixel, as in kornia's ``guided_blur``.
    """

    def __init__(
        self, picture: Tensor, grid: tuple[int, int], frame_size: tuple[int, int], config: EnlargingConfig
    ) -> None:
        require_shape("picture", picture, "H W 3")
        size = (int(picture.shape[0]), int(picture.shape[1]))
        self._reach = 2 * config.guided_radius // config.guided_subsample // 2  # in coarse pixels, to each side
        self._axes = _find_axes(size, grid, self._reach, config.guided_subsample)
        self._guide = (picture.float() / 255).movedim(-1, 1)  # (H,3,W)
        rows, columns = (axes.kept for axes in self._axes)
        self._small = self._guide[rows][:, :, columns].contiguous()
        exact = self._small.double()  # colors of a window may nearly lie on a line
        blur = [axes.average.double() for axes in self._axes]
        mean = _apply(blur, exact)
        spread = _apply(blur, (exact[:, :, None] * exact[:, None]).flatten(1, 2)).view(-1, 3, 3, mean.shape[2])
        spread = spread - mean[:, :, None] * mean[:, None]
        epsilon = config.guided_epsilon * torch.eye(3, dtype=torch.float64)
        inverse = torch.linalg.inv(spread.permute(0, 3, 1, 2) + epsilon).permute(0, 2, 3, 1)
        self._mean, self._inverse = mean.float(), inverse.float().contiguous()  # (r,3,c), (r,3,3,c)
        self.size, same = size, size == tuple(frame_size)
        self.to_frame = None if same else [_find_enlarging(*sides) for sides in zip(size, frame_size, strict=True)]

    def filter(self, mask: Tensor) -> Patch:
        """Return the filtered mask ``(h,w)``, in [0, 1] and not 0 everywhere, at the size of the frame."""
        rows, columns, answer = self.filter_picture(mask)
        if self.to_frame is None:
            return Patch(rows, columns, answer)
        target = [axis.reached(span) for axis, span in zip(self.to_frame, (rows, columns), strict=True)]
        return Patch(target[0], target[1], _resize(answer[:, None], self.to_frame, [rows, columns], target)[:, 0])

    def filter_picture(self, mask: Tensor) -> Patch:
        """Return what `filter` does, at the size of the picture."""
        *part, slopes = self._fit(mask)
        axes = [axes.to_picture for axes in self._axes]
        rows, columns = (axis.reached(span) for axis, span in zip(axes, part, strict=True))
        values = torch.empty(rows.stop - rows.start, columns.stop - columns.start)
        for start in range(rows.start, rows.stop, _BAND):
            band = slice(start, min(start + _BAND, rows.stop))
            since = axes[0].needed(band, part[0])
            some = slopes[shift(since, part[0].start)]
            fine, guide = _resize(some, axes, [since, part[1]], [band, columns]), self._guide[band, :, columns]
            answer = torch.addcmul(fine[:, 3], fine[:, 0], guide[:, 0], out=values[shift(band, rows.start)])
            for color in (1, 2):
                answer.addcmul_(fine[:, color], guide[:, color])
        return Patch(rows, columns, values)

    def _fit(self, mask: Tensor) -> tuple[slice, slice, Tensor]:
        """Return slopes for three colors and offsets ``(r,4,c)`` by which the picture explains a mask, and where."""
        cells = [_find_span(mask.any(1)), _find_span(mask.any(0))]
        inner = [axes.from_cells.reached(span) for axes, span in zip(self._axes, cells, strict=True)]
        middle, outer = (
            [axes.widen(span, margin) for axes, span in zip(self._axes, inner, strict=True)]
            for margin in (self._reach + 1, 2 * self._reach + 1)  # one average, two, and nothing to mirror at the end
        )
        values = _resize(mask[cells[0], None, cells[1]].float(), [axes.from_cells for axes in self._axes], cells, inner)
        guide = self._small[inner[0], :, inner[1]]
        blurred = self._blur(torch.cat([guide * values, values], 1), inner, middle)
        mean, inverse = self._mean[middle[0], :, middle[1]], self._inverse[middle[0], :, :, middle[1]]
        answer, covariance = blurred[:, 3], blurred[:, :3].addcmul_(mean, blurred[:, 3:], value=-1)
        slopes = inverse[:, :, 0] * covariance[:, :1]
        for color in (1, 2):
            slopes.addcmul_(inverse[:, :, color], covariance[:, color, None])
        covariance.copy_(slopes)  # in its place, before the offsets
        answer -= (slopes * mean).sum(1)
        return outer[0], outer[1], self._blur(blurred, middle, outer)

    def _blur(self, values: Tensor, source: list[slice], target: list[slice]) -> Tensor:
        """Return means over the window of the filter around ``target``, of values at ``source``, else 0."""
        parts = zip(self._axes, source, target, strict=True)
        return _apply([axes.average[to, since] for axes, since, to in parts], values)


class _FilterAxes(NamedTuple):
    """What a guided filter does along one axis: it depends on sizes alone.

    Attributes:
        kept: pixels that stand for several each.
        from_cells: enlarging of cells to those.
        average: mean over the window of the filter, ``(r,r)`` float32.
        to_picture: enlarging to the picture.
    """

    kept: Tensor
    from_cells: Axis
    average: Tensor
    to_picture: Axis

    def widen(self, part: slice, margin: int) -> slice:
        """Return a part of the kept pixels with a margin."""
        return slice(max(0, part.start - margin), min(len(self.kept), part.stop + margin))


@cache
def _find_axis(side: int, cells: int, reach: int, step: int) -> _FilterAxes:
    kept = _list_subsampled(side, step)
    average = _average(len(kept), reach)
    from_cells = Axis.interpolate(cells, _place_centers(cells, side)[kept])
    return _FilterAxes(kept, from_cells, average.float(), Axis.between(len(kept), side))


@cache
def _find_enlarging(size: int, new: int) -> Axis:
    return Axis.between(size, new)


def _find_axes(size: tuple[int, int], grid: tuple[int, int], reach: int, step: int) -> list[_FilterAxes]:
    return [_find_axis(side, cells, reach, step) for side, cells in zip(size, grid, strict=True)]


def _apply(matrices: Sequence[Tensor], values: Tensor) -> Tensor:
    """Return ``(r,C,c)`` mapped along both axes by matrices: columns first, while rows are few."""
    rows, columns = matrices
    wide = (values.reshape(-1, values.shape[2]) @ columns.T).view(values.shape[0], -1)
    return (rows @ wide).view(len(rows), values.shape[1], -1)


class BilinearFilter:
    """Bilinear enlarging of masks of ``(h,w)`` cells to ``frame_size``, each where it reaches."""

    def __init__(self, grid: tuple[int, int], frame_size: tuple[int, int]) -> None:
        self._axes = [Axis.between(*sides) for sides in zip(grid, frame_size, strict=True)]

    def filter(self, mask: Tensor) -> Patch:
        """Return the enlarged mask ``(h,w)``, in [0, 1] and not 0 everywhere."""
        cells = [_find_span(mask.any(1)), _find_span(mask.any(0))]
        reached = [axis.reached(span) for axis, span in zip(self._axes, cells, strict=True)]
        values = _resize(mask[cells[0], None, cells[1]].float(), self._axes, cells, reached)
        return Patch(reached[0], reached[1], values[:, 0])


def _list_subsampled(side: int, step: int) -> Tensor:
    """Return the pixels that stand for ``step`` pixels each, as kornia chooses them."""
    count = max(side // step, 1)
    number = torch.arange(count)
    return ((2 * number + 1) * side + count * (1 - step)).div(2 * count, rounding_mode="floor").clamp(0, side - 1)


def shift(part: slice, offset: int) -> slice:
    """Return a part whose places are counted from ``offset`` on."""
    return slice(part.start - offset, part.stop - offset)


def _find_span(inside: Tensor) -> slice:
    """Return the smallest slice that holds all that is True of ``(n,)``."""
    places = inside.nonzero()[:, 0]
    return slice(int(places[0]), int(places[-1]) + 1)


def _resize(values: Tensor, axes: Sequence[Axis], source: list[slice], target: list[slice]) -> Tensor:
    """Return ``target`` of the new points along both axes, from ``(r,C,c)``, ``source`` of the old ones, else 0."""
    parts = [axis.matrix[to, since] for axis, since, to in zip(axes, source, target, strict=True)]
    return _apply(parts, values)
