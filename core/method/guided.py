"""Guided filter (He, Sun & Tang, TPAMI 2013; He & Sun 2015) of many small masks along the edges of one picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..config.parts import EnlargingConfig
from ..types import require_shape
from .axes import Axis, apply_axes, list_bands, make_average, place_centers, resize
from .patches import Patch, find_spans, group_boxes, join_spans, shift

_BAND, GPU_BAND = 1 << 15, 1 << 24
"""Answers that are computed at once, in rows of a picture: they stay in a cache, or take 320 MiB of a GPU's memory."""


class GuidedFilter:
    """The filter of one picture ``(H,W,3)`` uint8, for masks on its coarse grid of ``(h,w)`` cells.

    What depends on the picture alone is computed once. Masks are enlarged bilinearly, filtered, and enlarged again to
    ``frame_size``; each step sees only the part of the frame that a mask reaches, or a group of masks that lie close.
    Coefficients are computed at every `EnlargingConfig.guided_subsample`-th pixel, as in kornia's ``guided_blur``.
    """

    def __init__(
        self, picture: Tensor, grid: tuple[int, int], frame_size: tuple[int, int], config: EnlargingConfig
    ) -> None:
        require_shape("picture", picture, "H W 3")
        size = (int(picture.shape[0]), int(picture.shape[1]))
        self.device = picture.device
        self._reach = 2 * config.guided_radius // config.guided_subsample // 2  # in coarse pixels, to each side
        self._axes = [
            _find_axis(side, cells, self._reach, config.guided_subsample, self.device)
            for side, cells in zip(size, grid, strict=True)
        ]
        self._guide = (picture.float() / 255).movedim(-1, 1)  # (H,3,W)
        rows, columns = (axes.kept for axes in self._axes)
        self._small = self._guide[rows][:, :, columns].contiguous()
        exact = self._small.double()  # colors of a window may nearly lie on a line
        blur = [axes.average.double() for axes in self._axes]
        mean = apply_axes(blur, exact)
        spread = apply_axes(blur, (exact[:, :, None] * exact[:, None]).flatten(1, 2)).view(-1, 3, 3, mean.shape[2])
        spread = spread - mean[:, :, None] * mean[:, None]
        epsilon = config.guided_epsilon * torch.eye(3, dtype=torch.float64, device=self.device)
        inverse = torch.linalg.inv(spread.permute(0, 3, 1, 2) + epsilon).permute(0, 2, 3, 1)
        self._mean, self._inverse = mean.float(), inverse.float().contiguous()  # (r,3,c), (r,3,3,c)
        self.size, same = size, size == tuple(frame_size)
        sides = zip(size, frame_size, strict=True)
        self.to_frame = None if same else [_find_enlarging(*old_new, self.device) for old_new in sides]

    def filter(self, masks: Tensor) -> list[Patch]:
        """Return the filtered masks ``(n,h,w)``, each in [0, 1] and not 0 everywhere, at the size of the frame."""
        patches = self.filter_picture(masks)
        if self.to_frame is None:
            return patches
        return [_enlarge(patch, self.to_frame) for patch in patches]

    def filter_picture(self, masks: Tensor) -> list[Patch]:
        """Return what `filter` does, at the size of the picture."""
        found: dict[int, Patch] = {}
        spans = _find_cells(masks)
        for group in group_boxes(self._widen(spans)):
            cells = [slice(int(start), int(stop)) for start, stop in join_spans(spans[group])]
            found.update(zip(group, self._split(*self._filter(masks[group], cells)), strict=True))
        return [found[number] for number in range(len(masks))]

    def answer(self, masks: Tensor) -> Tensor:
        """Return the filtered masks at each pixel of the picture, ``(H,n,W)``: on a GPU less of them takes no less."""
        whole = [slice(0, axes.cells) for axes in self._axes]
        return self._weigh(*self._filter(masks.to(self.device), whole))

    def _split(self, rows: slice, columns: slice, values: Tensor) -> list[Patch]:
        """Return the answers ``(r,n,c)`` of a group, mask by mask."""
        return [Patch(rows, columns, answer) for answer in self._weigh(rows, columns, values).unbind(1)]

    def _weigh(self, rows: slice, columns: slice, answers: Tensor) -> Tensor:  # noqa: ARG002
        """Return answers ``(r,n,c)`` by what else is known of a part of the picture."""
        return answers

    def _widen(self, spans: np.ndarray) -> np.ndarray:
        """Return about which pixels of the picture answer for spans of cells ``(n,2,2)``, in float64."""
        margins = [axes.step * (2 * self._reach + 1) for axes in self._axes]
        scale = np.array([side / axes.cells for side, axes in zip(self.size, self._axes, strict=True)])
        boxes: np.ndarray = spans * scale[:, None] + np.array([[-margin, margin] for margin in margins])
        np.clip(boxes, 0, np.array(self.size)[:, None], out=boxes)
        return boxes

    def _filter(self, masks: Tensor, cells: list[slice]) -> tuple[slice, slice, Tensor]:
        """Return where masks have answers that are 0 but for some cells, and those, ``(r,n,c)``."""
        *part, slopes = self._fit(masks, cells)
        axes = [axes.to_picture for axes in self._axes]
        rows, columns = (axis.reached(span) for axis, span in zip(axes, part, strict=True))
        values = slopes.new_empty(rows.stop - rows.start, len(masks), columns.stop - columns.start)
        together = _BAND if self.device.type == "cpu" else GPU_BAND
        for band in list_bands(rows, max(1, together // values[0].numel())):
            since = axes[0].needed(band, part[0])
            some = slopes[shift(since, part[0].start)]
            fine, guide = resize(some, axes, [since, part[1]], [band, columns]), self._guide[band, :, None, columns]
            answer = torch.addcmul(fine[:, 3], fine[:, 0], guide[:, 0], out=values[shift(band, rows.start)])
            for color in (1, 2):
                answer.addcmul_(fine[:, color], guide[:, color])
        return rows, columns, values

    def _fit(self, masks: Tensor, cells: list[slice]) -> tuple[slice, slice, Tensor]:
        """Return slopes for three colors and offsets ``(r,4,n,c)`` by which the picture explains masks, and where."""
        inner = [axes.from_cells.reached(span) for axes, span in zip(self._axes, cells, strict=True)]
        middle, outer = (
            [axes.widen(span, margin) for axes, span in zip(self._axes, inner, strict=True)]
            for margin in (self._reach + 1, 2 * self._reach + 1)  # one average, two, and nothing to mirror at the end
        )
        parts = masks[:, cells[0], cells[1]].float().movedim(1, 0)
        values = resize(parts, [axes.from_cells for axes in self._axes], cells, inner)
        guide = self._small[inner[0], :, None, inner[1]]
        blurred = self._blur(torch.cat([guide * values[:, None], values[:, None]], 1), inner, middle)
        mean, inverse = self._mean[middle[0], :, None, middle[1]], self._inverse[middle[0], :, :, None, middle[1]]
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
        return apply_axes([axes.average[to, since] for axes, since, to in parts], values)


class _FilterAxes(NamedTuple):
    """What a guided filter does along one axis: it depends on sizes alone.

    Attributes:
        cells: how many.
        step: pixels that a kept one stands for.
        kept: pixels that stand for several each.
        from_cells: enlarging of cells to those.
        average: mean over the window of the filter, ``(r,r)`` float32.
        to_picture: enlarging to the picture.
    """

    cells: int
    step: int
    kept: Tensor
    from_cells: Axis
    average: Tensor
    to_picture: Axis

    def widen(self, part: slice, margin: int) -> slice:
        """Return a part of the kept pixels with a margin."""
        return slice(max(0, part.start - margin), min(len(self.kept), part.stop + margin))


@cache
def _find_axis(side: int, cells: int, reach: int, step: int, device: torch.device) -> _FilterAxes:
    kept = _list_subsampled(side, step)
    average = make_average(len(kept), reach).float().to(device)
    from_cells = Axis.interpolate(cells, place_centers(cells, side)[kept])
    return _FilterAxes(cells, step, kept, from_cells.to(device), average, Axis.between(len(kept), side).to(device))


@cache
def _find_enlarging(size: int, new: int, device: torch.device) -> Axis:
    return Axis.between(size, new).to(device)


class BilinearFilter:
    """Bilinear enlarging of masks of ``(h,w)`` cells to ``frame_size``, each where it reaches."""

    def __init__(self, grid: tuple[int, int], frame_size: tuple[int, int]) -> None:
        self._axes = [Axis.between(*sides) for sides in zip(grid, frame_size, strict=True)]

    def filter(self, masks: Tensor) -> list[Patch]:
        """Return the enlarged masks ``(n,h,w)``, each in [0, 1] and not 0 everywhere."""
        spans = [[slice(int(start), int(stop)) for start, stop in span] for span in _find_cells(masks)]
        return [
            _enlarge(Patch(rows, columns, mask[rows, columns].float()), self._axes)
            for mask, (rows, columns) in zip(masks, spans, strict=True)
        ]


def _list_subsampled(side: int, step: int) -> Tensor:
    """Return the pixels that stand for ``step`` pixels each, as kornia chooses them."""
    count = max(side // step, 1)
    number = torch.arange(count)
    return ((2 * number + 1) * side + count * (1 - step)).div(2 * count, rounding_mode="floor").clamp(0, side - 1)


def _find_cells(masks: Tensor) -> np.ndarray:
    """Return the smallest rows and columns that hold all of each mask ``(n,h,w)``, ``(n,2,2)`` int64."""
    seen: np.ndarray = (masks != 0).numpy()
    return find_spans(np.any(seen, 2), np.any(seen, 1))


def _enlarge(patch: Patch, axes: Sequence[Axis]) -> Patch:
    """Return a part of a picture enlarged to where it reaches in another."""
    rows, columns = (axis.reached(span) for axis, span in zip(axes, patch[:2], strict=True))
    values = resize(patch.values[:, None], axes, list(patch[:2]), [rows, columns])
    return Patch(rows, columns, values[:, 0])
