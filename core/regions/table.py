"""What people want to know of each region: how much of the clip it covers, from when to when, and a point on it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import distance_transform_cdt
from torch import Tensor

from ..types import MAX_LABEL, LabelMaps, Progress, no_progress, require_shape
from .labels import reduce_reference

_DEPTH_SIDE = 128
"""Pixels of the longer side at which the point deepest inside a region is looked for."""


class RegionRow(NamedTuple):
    """A region in numbers.

    Attributes:
        label: its id.
        name: its name.
        share: fraction of all pixels of the clip, in [0, 1].
        first: number of the first frame that shows it; None if none does.
        last: number of the last one.
        frame: number of the frame that shows most of it, the earliest of them.
        x: of a point on it in that frame, far from its border, as a fraction of the width.
        y: of that point, as a fraction of the height.
    """

    label: int
    name: str
    share: float
    first: int | None
    last: int | None
    frame: int | None
    x: float
    y: float


def count_pixels(maps: Tensor, progress: Progress = no_progress) -> Tensor:
    """Return how many pixels of each frame have each label, ``(T,256)`` int64, of label maps ``(T,H,W)``.

    ``progress`` is called with stage ``areas`` in frames.
    """
    require_shape("maps", maps, "T H W")
    counts = torch.empty(len(maps), MAX_LABEL + 1, dtype=torch.int64, device=maps.device)
    for number, frame in enumerate(maps):
        counts[number] = torch.bincount(frame.flatten(), minlength=MAX_LABEL + 1)
        progress("areas", number + 1, len(maps))
    return counts


def tabulate_regions(labels: LabelMaps, progress: Progress = no_progress) -> tuple[RegionRow, ...]:
    """Return a row for each region, in their order; those that no frame shows have None and 0 in it.

    ``progress`` is called with stage ``areas`` in frames.
    """
    counts = count_pixels(labels.maps, progress).cpu()
    num_pixels = max(1, labels.maps.numel())
    rows = []
    for label, name in labels.regions:
        column = counts[:, label]
        frames = column.nonzero().flatten().tolist()
        if not frames:
            rows.append(RegionRow(label, name, 0.0, None, None, None, 0.0, 0.0))
            continue
        most = int(column.argmax())
        x, y = find_inner_point(labels.maps[most] == label)
        share = int(column.sum()) / num_pixels
        rows.append(RegionRow(label, name, share, frames[0], frames[-1], most, x, y))
    return tuple(rows)


def find_inner_point(mask: Tensor) -> tuple[float, float]:
    """Return a point of a mask ``(H,W)`` far from its border, (x, y) as fractions of width and height.

    It is the center of a pixel; of equally deep ones the middle one in raster order.

    Raises:
        InputError: the mask has not two axes.
    """
    sizes = require_shape("mask", mask, "H W")
    height, width = sizes["H"], sizes["W"]
    stride = -(-max(height, width) // _DEPTH_SIDE)
    small = reduce_reference(mask, (-(-height // stride), -(-width // stride)))
    if not bool(small.any()):
        small = mask
    depth = distance_transform_cdt(np.pad(small.cpu().numpy(), 1), "taxicab")[1:-1, 1:-1]
    deepest = np.flatnonzero(depth == depth.max())
    row, column = divmod(int(deepest[len(deepest) // 2]), small.shape[1])
    return (column + 0.5) / small.shape[1], (row + 0.5) / small.shape[0]
