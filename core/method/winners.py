"""Which leaf of which label each pixel of a frame belongs to: the strongest of the filter's answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .guided import Axis, Patch

Answers = Sequence[tuple[int, list[tuple[int, Patch]]]]
"""Each label that a frame holds, the smallest first, with the answers for its leaves, at the size of the picture."""


def find_winners(answers: Answers, size: tuple[int, int], to_frame: Sequence[Axis] | None) -> Tensor:
    """Return the strongest leaf of the strongest label in each pixel of a frame, ``(H,W)`` uint8; ties: the first.

    The answer of a label is the sum of those of its leaves, since the filter is linear. The picture has ``size``;
    ``to_frame`` enlarges answers from it to the frame, and is None where both have one size. Between four pixels of the
    picture that have one winner, it wins everywhere, since bilinear interpolation mixes their answers alone; so only
    pixels between others are compared.
    """
    best, found = torch.zeros(size), torch.full(size, _first_leaf(answers), dtype=torch.uint8)
    for _, patches in answers:
        area, total, which = join_patches(patches)
        wins = total > best[area]
        torch.maximum(best[area], total, out=best[area])
        torch.where(wins, which, found[area], out=found[area])
    return found if to_frame is None else _Enlarged(found, to_frame).compare(answers)


def _first_leaf(answers: Answers) -> int:
    """Return the leaf of pixels where nothing answers."""
    return answers[0][1][0][0] if answers else 0


def join_patches(patches: Sequence[tuple[int, Patch]]) -> tuple[tuple[slice, slice], Tensor, Tensor]:
    """Return the area that some leaves reach, the sum of their answers there, and the strongest leaf, uint8."""
    rows, columns = _span([patch.rows for _, patch in patches]), _span([patch.columns for _, patch in patches])
    if len(patches) == 1:
        leaf, patch = patches[0]
        return (rows, columns), patch.values, torch.full(patch.values.shape, leaf, dtype=torch.uint8)
    total = torch.zeros(rows.stop - rows.start, columns.stop - columns.start)
    top, which = torch.full_like(total, -torch.inf), torch.full(total.shape, patches[0][0], dtype=torch.uint8)
    for leaf, patch in patches:
        part = (_shift(patch.rows, rows.start), _shift(patch.columns, columns.start))
        total[part] += patch.values
        which[part].masked_fill_(patch.values > top[part], leaf)
        torch.maximum(top[part], patch.values, out=top[part])
    return (rows, columns), total, which


class _Enlarged:
    """Winners of a picture taken over to the frame, and the pixels of the frame that lie between different ones."""

    def __init__(self, found: Tensor, axes: Sequence[Axis]) -> None:
        self._axes, low = axes, [axis.low for axis in axes]
        self._found = found.index_select(0, low[0]).index_select(1, low[1])
        decided = _is_uniform(found).index_select(0, low[0]).index_select(1, low[1])
        self._open = torch.from_numpy(np.flatnonzero(~decided.numpy()))  # in the order of rows
        width = decided.shape[1]
        rows, self._columns = self._open // width, self._open % width
        self._offsets = F.pad(torch.bincount(rows, minlength=decided.shape[0]).cumsum(0), (1, 0)).tolist()
        self._rows = [each[rows] for each in (low[0], axes[0].high - low[0], axes[0].share)]
        self._across = [each[self._columns] for each in (low[1], axes[1].high - low[1], axes[1].share)]

    def compare(self, answers: Answers) -> Tensor:
        """Return the winners of the frame."""
        count = len(self._open)
        best, total, top = torch.zeros(count), torch.zeros(count), torch.empty(count)
        leaves = torch.full((count,), _first_leaf(answers), dtype=torch.uint8)
        which = torch.empty_like(leaves)
        for _, patches in answers:
            listed = [(leaf, *self._interpolate(patch)) for leaf, patch in patches]
            area = slice(min(part.start for _, part, _, _ in listed), max(part.stop for _, part, _, _ in listed))
            total[area], top[area] = 0, -torch.inf
            for leaf, part, inside, values in listed:
                total[part].index_add_(0, inside, values)
                stronger = inside[values > top[part].index_select(0, inside)]
                which[part].index_fill_(0, stronger, leaf)
                if len(listed) > 1:
                    top[part].index_copy_(0, inside, torch.maximum(top[part].index_select(0, inside), values))
            wins = total[area] > best[area]
            torch.maximum(best[area], total[area], out=best[area])
            torch.where(wins, which[area], leaves[area], out=leaves[area])
        self._found.view(-1).index_copy_(0, self._open, leaves)
        return self._found

    def _interpolate(self, patch: Patch) -> tuple[slice, Tensor, Tensor]:
        """Return the part of the open pixels in the rows of a patch, those in it that it reaches, and its answers."""
        rows, columns = (axis.reached(side) for axis, side in zip(self._axes, (patch.rows, patch.columns), strict=True))
        part = slice(self._offsets[rows.start], self._offsets[rows.stop])
        across = self._columns[part].numpy()
        inside = torch.from_numpy(np.flatnonzero((across >= columns.start) & (across < columns.stop)))
        padded = F.pad(patch.values, (1, 1, 1, 1))
        width, values = padded.shape[1], padded.flatten()
        row, down, by_row = (each[part].index_select(0, inside) for each in self._rows)
        column, right, by_column = (each[part].index_select(0, inside) for each in self._across)
        place = (row - (patch.rows.start - 1)) * width + column - (patch.columns.start - 1)
        above, below = (
            torch.lerp(values.index_select(0, corner), values.index_select(0, corner + right), by_column)
            for corner in (place, place + down * width)
        )
        return part, inside, torch.lerp(above, below, by_row)


def _is_uniform(labels: Tensor) -> Tensor:
    """Return where a pixel ``(H,W)`` has the label of those to the right, below, and both; the border continues."""
    right = F.pad(labels[None, None].float(), (0, 1, 0, 1), mode="replicate")[0, 0].to(labels.dtype)
    own = right[:-1, :-1]
    return (own == right[:-1, 1:]) & (own == right[1:, :-1]) & (own == right[1:, 1:])


def _span(parts: Sequence[slice]) -> slice:
    return slice(min(part.start for part in parts), max(part.stop for part in parts))


def _shift(part: slice, offset: int) -> slice:
    return slice(part.start - offset, part.stop - offset)
