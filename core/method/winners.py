"""Which leaf of which label each pixel of a frame belongs to: the strongest of the filter's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .guided import Axis, GuidedFilter, Patch, shift


def find_winners(guided: GuidedFilter, masks: Mapping[int, Tensor], members: Mapping[int, list[int]]) -> Tensor:
    """Return the strongest leaf of the strongest label in each pixel of a frame, ``(H,W)`` uint8; ties: the first.

    ``masks`` ``(h,w)`` are of the leaves that the frame holds, ``members`` the leaves of each label. The answer of a
    label is the sum of those of its leaves, since the filter is linear. Labels compete tile by tile of the picture, so
    that what is computed stays in a cache, and then the leaves of those that win.
    """
    leaves = [leaf for some in members.values() for leaf in some if leaf in masks]
    owners = torch.tensor([number for number, some in enumerate(members.values()) for leaf in some if leaf in masks])
    names, found = torch.tensor(leaves, dtype=torch.uint8), torch.zeros(guided.frame_size, dtype=torch.uint8)
    fits = [guided.fit(masks[leaf]) for leaf in leaves]
    reached = guided.find_reached(torch.stack([masks[leaf] for leaf in leaves]))
    for rows, reached_there in zip(guided.tiles[0], reached, strict=True):
        near = reached_there.any(0).nonzero()[:, 0]
        band = guided.stack([fits[number] for number in near.tolist()], _extend(rows, guided.size[0]))
        for columns, inside in zip(guided.tiles[1], reached_there[:, near], strict=True):
            active = inside.nonzero()[:, 0]
            if len(active):
                some, part = near[active], list(map(_extend, (rows, columns), guided.size))
                area = list(map(Axis.follow, guided.to_frame, (rows, columns)))
                there = guided.cut(band, part[1]).index_select(1, active)
                tile = _Tile(guided, there, owners[some], names[some], part)
                found[area[0], area[1]] = tile.compete(area)
    return found


def _extend(part: slice, side: int) -> slice:
    """Return a part of a side, and one pixel behind it."""
    return slice(part.start, min(part.stop + 1, side))


class _Tile:
    """A part of a picture where some leaves answer: their fits ``(r,n,4,c)``, labels in rising order, and names."""

    def __init__(
        self, guided: GuidedFilter, fits: Tensor, owners: Tensor, names: Tensor, part: Sequence[slice]
    ) -> None:
        self._guided, self._part = guided, part
        counts = torch.unique_consecutive(owners, return_counts=True)[1].tolist()
        self._fits, self._names = torch.split(fits, counts, 1), [some.numpy() for some in torch.split(names, counts)]
        self._firsts = np.array([some[0] for some in self._names])
        self._answers: dict[int, Tensor] = {}

    def compete(self, area: Sequence[slice]) -> Tensor:
        """Return the leaf that wins in each pixel of an area of the frame.

        Between four pixels of the picture that have one winner, it wins everywhere in the frame, since bilinear
        interpolation mixes their answers alone; so only pixels between others are compared there.
        """
        sums = torch.cat([some.sum(1, keepdim=True) for some in self._fits], 1)
        answers = self._guided.answer(sums, *self._part)
        shape = answers.shape[1:]
        best = self._choose(answers.flatten(1), lambda each, some: each.flatten(1).index_select(1, some)).reshape(shape)
        places = [_Places.of(*along) for along in zip(self._guided.to_frame, area, self._part, strict=True)]
        won, decided = (
            each.take(places[1].low.numpy(), 1).take(places[0].low.numpy(), 0) for each in (best, _is_uniform(best))
        )
        between = np.flatnonzero(~decided)
        rows, columns = (
            axis.at(torch.from_numpy(place))
            for axis, place in zip(places, np.divmod(between, won.shape[1]), strict=True)
        )
        mixed = _mix(rows, columns, answers)
        won.flat[between] = self._choose(mixed, lambda each, some: _mix(rows.at(some), columns.at(some), each))
        return torch.from_numpy(won)

    def _choose(self, answers: Tensor, look: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
        """Return the strongest leaf of the strongest label, ``(P,)``, from the labels' answers ``(L,P)``.

        ``look`` gives the answers of leaves at some of those pixels, from those in the whole part ``(n,h,w)``.
        """
        strongest = _find_largest(answers)
        chosen: np.ndarray = self._firsts[strongest]
        for label in np.bincount(strongest).nonzero()[0].tolist():
            if len(self._names[label]) > 1:
                if label not in self._answers:
                    self._answers[label] = self._guided.answer(self._fits[label], *self._part)
                some = np.flatnonzero(strongest == label)
                chosen[some] = self._names[label][_find_largest(look(self._answers[label], torch.from_numpy(some)))]
        return chosen


class _Places(NamedTuple):
    """Where pixels of a frame lie along one axis of a part of the picture: behind which, before which, how far."""

    low: Tensor
    high: Tensor
    share: Tensor

    @classmethod
    def of(cls, axis: Axis, area: slice, part: slice) -> _Places:
        return cls(axis.low[area] - part.start, axis.high[area] - part.start, axis.share[area])

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


def join_patches(patches: Sequence[tuple[int, Patch]]) -> tuple[tuple[slice, slice], Tensor, Tensor]:
    """Return the area that some leaves reach, the sum of their answers there, and the strongest leaf, uint8."""
    rows, columns = _span([patch.rows for _, patch in patches]), _span([patch.columns for _, patch in patches])
    if len(patches) == 1:
        leaf, patch = patches[0]
        return (rows, columns), patch.values, torch.full(patch.values.shape, leaf, dtype=torch.uint8)
    total = torch.zeros(rows.stop - rows.start, columns.stop - columns.start)
    top, which = torch.full_like(total, -torch.inf), torch.full(total.shape, patches[0][0], dtype=torch.uint8)
    for leaf, patch in patches:
        part = (shift(patch.rows, rows.start), shift(patch.columns, columns.start))
        total[part] += patch.values
        which[part].masked_fill_(patch.values > top[part], leaf)
        torch.maximum(top[part], patch.values, out=top[part])
    return (rows, columns), total, which


def _span(parts: Sequence[slice]) -> slice:
    return slice(min(part.start for part in parts), max(part.stop for part in parts))
