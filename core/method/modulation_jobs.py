"""Which cells are modulated together: a region at a time (paper), or parts of several that lie apart (ours)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage  # a dependency of scikit-learn
from torch import Tensor

from ..config.parts import SHARED_PASS_MARGIN
from ..config.settings import Settings
from ..types import require_shape


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
    """Return the jobs of one unit for the labels ``(K,h,w)`` of its frames that are not finished.

    In the ``num_finished`` frames before them no cell is modulated.

    A frame of one single label is that label everywhere; in the published code its differences are needed even so,
    since pixels whose difference was truncated to zero get the lowest label of all. A label that a frame lacks changes
    nothing in it with latent blending after all steps; with less blending it can, through a video model's temporal
    layers.

    >>> [job.scored for job in plan_jobs(torch.tensor([[[3, 5]], [[5, 5]]]), Settings())]
    [(0,), (0,)]
    """
    require_shape("maps", maps, "K h w")
    maps = maps.cpu()
    found = [set(torch.unique(cells).tolist()) for cells in maps]
    keeps_uniform = settings.variant == "published"
    reaches_others = settings.modulation.blending == "none"
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
    """Modulate connected parts of all regions in few passes, in which those of different regions lie apart.

    Ours; the paper modulates each region by itself.
    """
    labels = cells.numpy()
    parts = _number_parts(labels)
    passes = _color_graph(_find_conflicts(labels, parts))[parts]  # of each cell
    masks = [passes == number for number in range(passes.max() + 1)]
    return [ModulationJob(torch.from_numpy(m)[None], _find_nearest_label(cells, m)[None], (0,)) for m in masks]


def _number_parts(labels: np.ndarray) -> np.ndarray:
    """Return for each cell ``(h,w)`` the number of its connected part, counted over all regions."""
    numbers, count = np.zeros(labels.shape, dtype=np.int64), 0
    for label in np.unique(labels):
        found, more = ndimage.label(labels == label)
        numbers += np.where(found, found + (count - 1), 0)
        count += more
    return numbers


def _find_conflicts(labels: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return which parts cannot share a pass, ``(n,n)``: near ones of different regions, and a part with itself."""
    around, near = (_show_surroundings(cells) for cells in (labels, parts))
    differ = around != labels[..., None, None]
    conflicts = np.eye(parts.max() + 1, dtype=bool)
    conflicts[np.broadcast_to(parts[..., None, None], near.shape)[differ], near[differ]] = True
    return conflicts


def _show_surroundings(cells: np.ndarray) -> np.ndarray:
    """Return the cells ``(h,w,s,s)`` that are too near to each; past a border stands the last one before it."""
    side = 2 * SHARED_PASS_MARGIN + 1
    return sliding_window_view(np.pad(cells, SHARED_PASS_MARGIN, mode="edge"), (side, side))


def _color_graph(conflicts: np.ndarray) -> np.ndarray:
    """Return a number for each part ``(n,)``, of which those in conflict have different ones: few, if not the fewest.

    DSATUR (Brelaz, Communications of the ACM 1979): next is the part to which most numbers are closed, of several the
    one with most conflicts, of these the first. It gets the lowest number that is open.
    """
    size, degrees = len(conflicts), conflicts.sum(1)
    numbers, closed, counts = np.full(size, -1), np.zeros(conflicts.shape, dtype=bool), np.zeros(size, dtype=np.int64)
    for _ in range(size):
        part = np.where(numbers < 0, counts * (size + 1) + degrees, -1).argmax()
        numbers[part] = closed[part].argmin()
        newly = conflicts[part] & ~closed[:, numbers[part]]
        closed[newly, numbers[part]] = True
        counts += newly
    return numbers


def _find_nearest_label(cells: Tensor, mask: np.ndarray) -> Tensor:
    """Return for each cell the label of the nearest cell of ``mask``."""
    rows, columns = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    return cells[torch.from_numpy(rows).long(), torch.from_numpy(columns).long()]
