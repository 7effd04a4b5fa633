"""Parts of a frame where masks have answers, and which of them are computed together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

CALL_PIXELS = 20_000
"""Pixels whose answers take as long as what a call of the filter costs besides."""


class Patch(NamedTuple):
    """The part of a frame where a mask has an answer, ``values`` ``(r,c)`` float32; elsewhere it is 0."""

    rows: slice
    columns: slice
    values: Tensor


def shift(part: slice, offset: int) -> slice:
    """Return a part whose places are counted from ``offset`` on."""
    return slice(part.start - offset, part.stop - offset)


def cut_patch(patch: Patch, span: np.ndarray) -> Patch:
    """Return some rows and columns ``(2,2)`` of a patch ``(r,...,c)``."""
    rows, columns = (slice(int(start), int(stop)) for start, stop in span)
    values = patch.values[rows][..., columns]
    return Patch(shift(rows, -patch.rows.start), shift(columns, -patch.columns.start), values)


def find_spans(*seen: np.ndarray) -> np.ndarray:
    """Return start and stop of the smallest part that holds all that is True of ``(n,size)``, for each axis.

    ``(n,A,2)`` int64; the first point where nothing is True.
    """
    stops = [np.where(each.any(1), each.shape[1] - each[:, ::-1].argmax(1), 1) for each in seen]
    return np.stack([[each.argmax(1), stop] for each, stop in zip(seen, stops, strict=True)]).transpose(2, 0, 1)


def join_spans(spans: np.ndarray) -> np.ndarray:
    """Return the span ``(...,2)`` around spans ``(n,...,2)``."""
    return np.stack([spans[..., 0].min(0), spans[..., 1].max(0)], -1)


def group_boxes(boxes: np.ndarray) -> list[list[int]]:
    """Return numbers of masks, by groups that are cheaper together, from the boxes ``(n,2,2)`` where each answers.

    All masks of a group are computed in the box around it, which is more than each of them needs, but in one call.
    """
    groups: list[list[int]] = []
    around, costs = np.empty_like(boxes), np.empty(len(boxes))  # of groups
    for number, (box, own) in enumerate(zip(boxes, _measure(boxes), strict=True)):
        old = slice(len(groups))
        joined = np.stack([np.minimum(around[old, :, 0], box[:, 0]), np.maximum(around[old, :, 1], box[:, 1])], -1)
        together = _measure(joined) * [len(group) + 1 for group in groups]
        more = together - costs[old] - own
        best = int(more.argmin()) if groups else 0
        if groups and more[best] < CALL_PIXELS:
            groups[best].append(number)
            around[best], costs[best] = joined[best], together[best]
        else:
            around[len(groups)], costs[len(groups)] = box, own
            groups.append([number])
    return groups


def _measure(boxes: np.ndarray) -> np.ndarray:
    """Return the pixels in boxes ``(n,2,2)``."""
    height, width = (boxes[:, :, 1] - boxes[:, :, 0]).T
    pixels: np.ndarray = height * width
    return pixels


def join_patches(patches: Sequence[tuple[int, Patch]]) -> tuple[tuple[slice, slice], Tensor]:
    """Return the area that some leaves reach, and the strongest leaf at each pixel of it, uint8; ties: the first."""
    rows, columns = _span([patch.rows for _, patch in patches]), _span([patch.columns for _, patch in patches])
    top = torch.full((rows.stop - rows.start, columns.stop - columns.start), -torch.inf)
    which = torch.full(top.shape, patches[0][0], dtype=torch.uint8)
    for leaf, patch in patches:
        part = (shift(patch.rows, rows.start), shift(patch.columns, columns.start))
        which[part].masked_fill_(patch.values > top[part], leaf)
        torch.maximum(top[part], patch.values, out=top[part])
    return (rows, columns), which


def _span(parts: Sequence[slice]) -> slice:
    return slice(min(part.start for part in parts), max(part.stop for part in parts))
