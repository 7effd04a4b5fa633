"""Which leaf of which label each pixel of a frame belongs to: the strongest of the filter's answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .axes import Axis
from .patches import Patch

Answers = Sequence[tuple[int, list[tuple[int, Patch]]]]
"""Each label that a frame holds, the smallest first, with the answers for its leaves, at the size of the picture."""
_TILE = 128
"""Pixels of a picture along one axis that are looked at together, so that what is computed of them stays in a cache."""


def find_winners(answers: Answers, size: tuple[int, int], to_frame: Sequence[Axis] | None) -> Tensor:
    """Return the strongest leaf of the strongest label in each pixel of a frame, ``(H,W)`` uint8; ties: the first.

    The answer of a label is the sum of those of its leaves. The picture has ``size``; ``to_frame`` enlarges answers
    from it to the frame, and is None where both have one size. Between four pixels of the picture that have one winner,
    it wins everywhere, since bilinear interpolation mixes their answers alone; so only pixels between others are
    compared in the frame. Labels compete tile by tile, leaves only within those that win.
    """
    axes = to_frame or [Axis.between(side, side) for side in size]
    listed = [(number, leaf, patch) for number, (_, patches) in enumerate(answers) for leaf, patch in patches]
    found = torch.full([len(axis.low) for axis in axes], listed[0][1] if listed else 0, dtype=torch.uint8)
    spans = np.array([[(span.start, span.stop) for span in patch[:2]] for _, _, patch in listed]).reshape(-1, 2, 2)
    tiles = [[slice(start, min(side, start + _TILE)) for start in range(0, side, _TILE)] for side in size]
    for tile in itertools.product(*tiles):
        part = np.array([(span.start, min(span.stop + 1, side)) for span, side in zip(tile, size, strict=True)])
        reached = (spans[:, :, 0] < part[:, 1]) & (spans[:, :, 1] > part[:, 0])
        near = [listed[number] for number in np.flatnonzero(reached.all(1))]
        area = tuple(axis.follow(span) for axis, span in zip(axes, tile, strict=True))
        if near:
            found[area] = torch.from_numpy(_Tile(near, part).compete(axes, area))
    return found


class _Tile:
    """A part of a picture, its start and stop along both axes ``(2,2)``, and the leaves that answer there."""

    def __init__(self, leaves: Sequence[tuple[int, int, Patch]], part: np.ndarray) -> None:
        self._starts = part[:, 0].tolist()
        values = torch.zeros(len(leaves), *(part[:, 1] - part[:, 0]).tolist())
        for own, (_, _, patch) in zip(values, leaves, strict=True):
            (top, bottom), (left, right) = (
                (max(low, span.start), min(high, span.stop))
                for (low, high), span in zip(part.tolist(), patch[:2], strict=True)
            )
            seen = patch.values[top - patch.rows.start : bottom - patch.rows.start]
            there = own[
                top - self._starts[0] : bottom - self._starts[0], left - self._starts[1] : right - self._starts[1]
            ]
            there.copy_(seen[:, left - patch.columns.start : right - patch.columns.start])
        counts = np.unique([label for label, _, _ in leaves], return_counts=True)[1].tolist()
        self._answers = torch.split(values, counts)  # of each label, its leaves one after the other
        self._names = np.split(np.array([leaf for _, leaf, _ in leaves], np.uint8), np.cumsum(counts)[:-1])
        self._firsts = np.array([names[0] for names in self._names])

    def compete(self, axes: Sequence[Axis], area: Sequence[slice]) -> np.ndarray:
        """Return the leaf that wins in each pixel of an area of the frame."""
        sums = torch.stack([answers.sum(0) for answers in self._answers])
        best = self._choose(sums.flatten(1), lambda each, some: each.flatten(1).index_select(1, some))
        best = best.reshape(sums.shape[1:])
        places = [_Places.of(*along) for along in zip(axes, area, self._starts, strict=True)]
        won, decided = (
            each.take(places[1].low.numpy(), 1).take(places[0].low.numpy(), 0) for each in (best, _is_uniform(best))
        )
        between = np.flatnonzero(~decided)
        rows, columns = (
            axis.at(torch.from_numpy(place))
            for axis, place in zip(places, np.divmod(between, won.shape[1]), strict=True)
        )
        mixed = _mix(rows, columns, sums)
        won.flat[between] = self._choose(mixed, lambda each, some: _mix(rows.at(some), columns.at(some), each))
        return won

    def _choose(self, sums: Tensor, look: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
        """Return the strongest leaf of the strongest label, ``(P,)``, from the labels' answers ``(L,P)``.

        ``look`` gives the answers of leaves at some of those pixels, from those in the whole part ``(n,h,w)``.
        """
        strongest = _find_largest(sums)
        chosen: np.ndarray = self._firsts[strongest]
        for label in np.bincount(strongest).nonzero()[0].tolist():
            if len(self._names[label]) > 1:
                some = np.flatnonzero(strongest == label)
                chosen[some] = self._names[label][_find_largest(look(self._answers[label], torch.from_numpy(some)))]
        return chosen


class _Places(NamedTuple):
    """Where pixels of a frame lie along one axis of a part of the picture: behind which, before which, how far."""

    low: Tensor
    high: Tensor
    share: Tensor

    @classmethod
    def of(cls, axis: Axis, area: slice, start: int) -> _Places:
        return cls(axis.low[area] - start, axis.high[area] - start, axis.share[area])

    def at(self, some: Tensor) -> _Places:
        return _Places(*(each.index_select(0, some) for each in self))


def _mix(rows: _Places, columns: _Places, values: Tensor) -> Tensor:
    """Return values ``(n,h,w)`` at some places, interpolated, ``(n,P)``."""
    flat, width = values.flatten(1), values.shape[2]
    above, below = (
        torch.lerp(flat.index_select(1, at + columns.low), flat.index_select(1, at + columns.high), columns.share)
        for at in (rows.low * width, rows.high * width)
    )
    return torch.lerp(above, below, rows.share)


def _find_largest(values: Tensor) -> np.ndarray:
    """Return which of ``(n,P)`` is the largest, ``(P,)`` uint8: the first of equals; NumPy compares quicker."""
    rank = torch.arange(len(values), 0, -1, dtype=torch.uint8)[:, None]
    largest = values.numpy() == values.amax(0).numpy()
    first: np.ndarray = len(values) - (torch.from_numpy(largest.view(np.uint8)) * rank).amax(0).numpy()
    return first


def _is_uniform(labels: np.ndarray) -> np.ndarray:
    """Return where a pixel ``(H,W)`` has the label of those to the right, below, and both; the border continues."""
    padded = np.pad(labels, (0, 1), "edge")
    own = padded[:-1, :-1]
    same: np.ndarray = (own == padded[:-1, 1:]) & (own == padded[1:, :-1]) & (own == padded[1:, 1:])
    return same
