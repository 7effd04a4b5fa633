"""Guided filter (He, Sun & Tang, TPAMI 2013; He & Sun 2015) of many small masks along the edges of one picture."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..config.parts import EnlargingConfig
from ..types import require_shape


class Patch(NamedTuple):
    """The part of a frame where a mask has an answer, ``values`` ``(r,c)`` float32; elsewhere it is 0."""

    rows: slice
    columns: slice
    values: Tensor


class _Axis:
    """Bilinear interpolation from ``size`` points to others along one axis, as `torch.nn.functional.interpolate`."""

    def __init__(self, size: int, places: Tensor) -> None:
        places = places.clamp(0, size - 1)
        self.low = places.long()
        self.high = (self.low + 1).clamp(max=size - 1)
        self.share = (places - self.low).float()

    @classmethod
    def between(cls, size: int, new: int) -> _Axis:
        """Return the interpolation from ``size`` to ``new`` points over the same length."""
        return cls(size, _place_centers(size, new))

    def reached(self, part: slice) -> slice:
        """Return the new points that depend on a part of the old ones."""
        start = int(torch.searchsorted(self.high, part.start))
        return slice(start, int(torch.searchsorted(self.low, part.stop)))

    def apply(self, values: Tensor, dim: int, source: slice, target: slice) -> Tensor:
        """Return ``target`` of the new points, from ``values``, which are ``source`` of the old ones and else 0."""
        low, high = (index[target] - source.start for index in (self.low, self.high))
        shape = [1] * values.ndim
        shape[dim] = -1
        share = self.share[target].view(shape)
        first, second = (_take(values, index, dim) for index in (low, high))
        return torch.lerp(first, second, share)


def _take(values: Tensor, index: Tensor, dim: int) -> Tensor:
    """Return rows or columns by index; those outside are 0."""
    size = values.shape[dim]
    if int(index[0]) >= 0 and int(index[-1]) < size:  # they never fall
        return values.index_select(dim, index)
    outside = ((index < 0) | (index >= size)).nonzero()[:, 0]
    return values.index_select(dim, index.clamp(0, size - 1)).index_fill_(dim, outside, 0.0)


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
        step = config.guided_subsample
        kept = [_list_subsampled(side, step) for side in size]
        self._guide = picture.movedim(-1, 0).float() / 255
        self._small = self._guide[:, kept[0]][:, :, kept[1]]
        self._reach = 2 * config.guided_radius // step // 2  # in coarse pixels, to each side
        exact = self._small.double()  # colors of a window may nearly lie on a line
        mean = self._blur(exact)
        products = self._blur((exact[:, None] * exact[None]).flatten(0, 1))  # (9,r,c)
        spread = products.reshape(3, 3, *mean.shape[1:]) - mean[:, None] * mean[None]
        epsilon = config.guided_epsilon * torch.eye(3, dtype=torch.float64)
        inverse = torch.linalg.inv(spread.permute(2, 3, 0, 1) + epsilon).permute(2, 3, 0, 1)
        self._mean, self._inverse = mean.float(), inverse.float().contiguous()
        self._from_cells = [
            _Axis(cells, _place_centers(cells, side)[rows]) for cells, side, rows in zip(grid, size, kept, strict=True)
        ]
        self._to_picture = [_Axis.between(len(rows), side) for rows, side in zip(kept, size, strict=True)]
        same = size == tuple(frame_size)
        self._to_frame = None if same else [_Axis.between(*sides) for sides in zip(size, frame_size, strict=True)]

    def filter(self, mask: Tensor) -> Patch:
        """Return the filtered mask ``(h,w)``, in [0, 1] and not 0 everywhere, at the size of the frame."""
        cells = [_find_span(mask.any(1)), _find_span(mask.any(0))]
        inner = [axis.reached(span) for axis, span in zip(self._from_cells, cells, strict=True)]
        small, margin = self._small.shape[1:], 2 * self._reach + 1  # two averages, and nothing to mirror at the end
        part = [
            slice(max(0, span.start - margin), min(side, span.stop + margin))
            for span, side in zip(inner, small, strict=True)
        ]
        values = mask[cells[0], cells[1]].float()
        values = _resize(values, self._from_cells, cells, part)
        coefficients = self._fit(values, part)
        reached = [axis.reached(span) for axis, span in zip(self._to_picture, part, strict=True)]
        slopes = _resize(coefficients, self._to_picture, part, reached)
        guide = self._guide[:, reached[0], reached[1]]
        answer = (slopes[:3] * guide).sum(0) + slopes[3]
        if self._to_frame is None:
            return Patch(reached[0], reached[1], answer)
        target = [axis.reached(span) for axis, span in zip(self._to_frame, reached, strict=True)]
        return Patch(target[0], target[1], _resize(answer, self._to_frame, reached, target))

    def _fit(self, values: Tensor, part: list[slice]) -> Tensor:
        """Return slopes for three colors and offsets ``(4,r,c)`` by which the picture explains ``(r,c)`` values."""
        guide, mean, inverse = (each[..., part[0], part[1]] for each in (self._small, self._mean, self._inverse))
        blurred = self._blur(torch.cat([values[None], guide * values]))
        covariance = blurred[1:] - mean * blurred[0]
        slopes = (inverse * covariance).sum(1)
        offsets = blurred[0] - (slopes * mean).sum(0)
        return self._blur(torch.cat([slopes, offsets[None]]))

    def _blur(self, values: Tensor) -> Tensor:
        """Return ``(C,r,c)`` averaged over a square, mirrored at the borders."""
        width, height = (min(self._reach, side - 1) for side in (values.shape[2], values.shape[1]))
        padded = F.pad(values[None], (width, width, height, height), mode="reflect")
        rows = F.avg_pool2d(padded, (2 * height + 1, 1), stride=1)
        return F.avg_pool2d(rows, (1, 2 * width + 1), stride=1)[0]


class BilinearFilter:
    """Bilinear enlarging of masks of ``(h,w)`` cells to ``frame_size``, each where it reaches."""

    def __init__(self, grid: tuple[int, int], frame_size: tuple[int, int]) -> None:
        self._axes = [_Axis.between(*sides) for sides in zip(grid, frame_size, strict=True)]

    def filter(self, mask: Tensor) -> Patch:
        """Return the enlarged mask ``(h,w)``, in [0, 1] and not 0 everywhere."""
        cells = [_find_span(mask.any(1)), _find_span(mask.any(0))]
        reached = [axis.reached(span) for axis, span in zip(self._axes, cells, strict=True)]
        return Patch(reached[0], reached[1], _resize(mask[cells[0], cells[1]].float(), self._axes, cells, reached))


def _list_subsampled(side: int, step: int) -> Tensor:
    """Return the pixels that stand for ``step`` pixels each, as kornia chooses them."""
    count = max(side // step, 1)
    number = torch.arange(count)
    return ((2 * number + 1) * side + count * (1 - step)).div(2 * count, rounding_mode="floor").clamp(0, side - 1)


def _find_span(inside: Tensor) -> slice:
    """Return the smallest slice that holds all that is True of ``(n,)``."""
    places = inside.nonzero()[:, 0]
    return slice(int(places[0]), int(places[-1]) + 1)


def _resize(values: Tensor, axes: list[_Axis], source: list[slice], target: list[slice]) -> Tensor:
    """Return ``(...,r,c)`` values of a part of a frame interpolated along both axes: columns while rows are few."""
    for dim in (-1, -2):  # rows are whole when they are taken, columns are picked one by one
        values = axes[dim].apply(values, values.ndim + dim, source[dim], target[dim])
    return values
