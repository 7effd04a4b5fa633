"""Which cells are modulated together: one region at a time (paper 4.3), or several that lie apart in one pass."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage  # a dependency of scikit-learn
from torch import Tensor

from ..config.parts import SHARED_PASS_MARGIN
from ..config.settings import Settings
from ..types import require_shape

_NEAR = np.ones((2 * SHARED_PASS_MARGIN + 1,) * 2, dtype=bool)


class ModulationJob(NamedTuple):
    """Cells that are modulated together, with both signs, in frames that the model sees together.

    Attributes:
        mask: ``(F,h,w)`` boolean, the cells.
        owner: ``(F,h,w)`` int64, the label that a response in a cell speaks for: that of the nearest modulated cell.
        scored: which of the frames need their differences.
    """

    mask: Tensor
    owner: Tensor
    scored: tuple[int, ...]


def plan_jobs(maps: Tensor, settings: Settings, num_finished: int = 0) -> tuple[ModulationJob, ...]:
    """Return the jobs of one unit, whose first frames may be finished already: in those no cell is modulated.

    A frame of one single label is that label everywhere; in the published code its differences are needed even so,
    since pixels whose difference was truncated to zero get the lowest label of all. A label that a frame lacks changes
    nothing in it with latent blending after all steps; with less blending it can, through a video model's temporal
    layers.

    >>> [job.scored for job in plan_jobs(torch.tensor([[[3, 5]], [[5, 5]]]), Settings())]
    [(0,), (0,)]

    Args:
        maps: ``(K,h,w)`` int64 labels of the frames that are not finished.
        settings: modulation settings, and the precision of differences.
        num_finished: frames before them in the unit.
    """
    require_shape("maps", maps, "K h w")
    maps = maps.cpu()
    found = [set(torch.unique(cells).tolist()) for cells in maps]
    keeps_uniform = settings.variant == "published"
    reaches_others = settings.modulation.blending != "all"
    counted = [frame for frame, labels in enumerate(found) if len(labels) > 1 or keeps_uniform]
    finished = torch.zeros((num_finished, *maps.shape[1:]), dtype=torch.bool)
    alone = []
    for label in sorted({label for frame in counted for label in found[frame]}):
        mask = torch.cat([finished, maps == label])
        scored = tuple(num_finished + frame for frame in counted if reaches_others or label in found[frame])
        alone.append(ModulationJob(mask, torch.full(mask.shape, label), scored))
    if settings.modulation.shared and counted:
        shared = _share_passes(maps[0])  # of an image model, whose unit is one frame
        alone = shared if len(shared) < len(alone) else alone
    return tuple(alone)


def _share_passes(cells: Tensor) -> list[ModulationJob]:
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
    return [ModulationJob(torch.from_numpy(m)[None], _find_nearest_label(cells, m)[None], (0,)) for m in masks]


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
