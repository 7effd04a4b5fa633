"""Which cells are modulated together: one region at a time (paper 4.3), or several that lie apart in one pass."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage  # a dependency of scikit-learn
from torch import Tensor

from ..config.parts import SHARED_PASS_MARGIN, ModulationConfig
from ..types import CoarseMaps, require_shape

_NEAR = np.ones((2 * SHARED_PASS_MARGIN + 1,) * 2, dtype=bool)


class ModulationJob(NamedTuple):
    """Cells of a frame that are modulated together, with both signs.

    Attributes:
        frame: index of the frame.
        mask: ``(h,w)`` boolean, the cells.
        owner: ``(h,w)`` int64, the label that a response in a cell speaks for: that of the nearest modulated cell.
    """

    frame: int
    mask: Tensor
    owner: Tensor

    @property
    def labels(self) -> tuple[int, ...]:
        """Return the labels it speaks for, rising."""
        return tuple(torch.unique(self.owner).tolist())


def plan_jobs(coarse: CoarseMaps, config: ModulationConfig, *, keep_uniform: bool) -> tuple[ModulationJob, ...]:
    """Return the jobs of all frames in order.

    A label that a frame lacks has none: modulation with an empty mask changes nothing, so the difference is zero.

    >>> coarse = CoarseMaps(torch.tensor([[[3, 5]], [[5, 5]]]), ())
    >>> [(job.frame, job.labels) for job in plan_jobs(coarse, ModulationConfig(), keep_uniform=False)]
    [(0, (3,)), (0, (5,))]

    Args:
        coarse: maps ``(F,h,w)`` int64.
        config: whether regions share passes.
        keep_uniform: whether to keep frames that hold one label only.
    """
    require_shape("coarse.maps", coarse.maps, "F h w")
    jobs: list[ModulationJob] = []
    for frame, cells in enumerate(coarse.maps.cpu()):
        labels = torch.unique(cells).tolist()
        if len(labels) == 1 and not keep_uniform:
            continue
        alone = [ModulationJob(frame, cells == label, torch.full_like(cells, label)) for label in labels]
        shared = _share_passes(frame, cells) if config.shared else alone
        jobs += shared if len(shared) < len(alone) else alone
    return tuple(jobs)


def _share_passes(frame: int, cells: Tensor) -> list[ModulationJob]:
    """Color the connected parts of all regions greedily, the largest first: parts of one color lie apart.

    Ours; the paper modulates each region by itself.
    """
    masks: list[np.ndarray] = []
    for part in _find_parts(cells.numpy()):
        near = ndimage.binary_dilation(part, _NEAR)
        free = next((mask for mask in masks if not (mask & near).any()), None)
        if free is None:
            masks.append(part)
        else:
            free |= part
    return [ModulationJob(frame, torch.from_numpy(mask), _find_nearest_label(cells, mask)) for mask in masks]


def _find_parts(cells: np.ndarray) -> list[np.ndarray]:
    """Return the connected parts of all regions as masks, the largest first, ties in raster order."""
    parts = []
    for label in np.unique(cells):
        numbered, count = ndimage.label(cells == label)
        parts += [numbered == number for number in range(1, count + 1)]
    return sorted(parts, key=lambda part: (-int(part.sum()), int(part.argmax())))


def _find_nearest_label(cells: Tensor, mask: np.ndarray) -> Tensor:
    """Return for each cell the label of the nearest cell of ``mask``."""
    rows, columns = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    return cells[torch.from_numpy(rows).long(), torch.from_numpy(columns).long()]
