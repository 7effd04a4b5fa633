"""Regions for what the scene context has never seen (a failure case of the paper, A.5)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.ndimage import label as connected  # scikit-learn brings SciPy
from torch import Tensor

from .config.parts import SceneConfig
from .labels import free_labels
from .types import Region, region_labels

_CHUNK_ELEMENTS = 2**24
"""Cosines held at once: 64 MiB in float32."""
_ALL_AROUND = np.ones((3, 3, 3))
"""Cells that touch, also at a corner and from one frame to the next, are connected."""


class Novelty(NamedTuple):
    """What `with_new_regions` found.

    Attributes:
        maps: ``(T,h,w)`` int64 labels, the new ones among them.
        regions: the regions, the new ones among them.
        unsure: ``(T,h,w)`` bool, cells that look new but not for long enough yet: not to be remembered as old.
    """

    maps: Tensor
    regions: tuple[Region, ...]
    unsure: Tensor


def familiarity(tokens: Tensor, known: Tensor) -> Tensor:
    """Return the largest cosine similarity of each token ``(N,C)`` to known ones ``(M,C)``, ``(N,)``."""
    unit, other = F.normalize(tokens.float(), dim=-1), F.normalize(known.float(), dim=-1)
    chunk = max(1, _CHUNK_ELEMENTS // max(1, len(other)))
    return torch.cat([(part @ other.T).amax(1) for part in torch.split(unit, chunk)])


def with_new_regions(
    tokens: Tensor, maps: Tensor, known: Tensor, regions: tuple[Region, ...], config: SceneConfig
) -> Novelty:
    """Give connected cells that are far from everything known a region of their own.

    A cell is compared with the known tokens and with the cells of the frame before that are surely known, so that slow
    change is followed; the mean over the cells around it decides, since single cells are noisy. What stays new in
    enough cells for enough frames becomes a region.

    Args:
        tokens: ``(T,N,C)`` float32, of one window.
        maps: ``(T,h,w)`` int64 labels that the scene context predicts.
        known: ``(M,C)`` float32, the tokens of the scene context.
        regions: the regions so far.
        config: thresholds and sizes.

    Returns:
        Labels, regions, and the cells that are not sure yet. Without a free label nothing is new.
    """
    grid = tuple(maps.shape[1:])
    scores = torch.empty(maps.shape)
    before = tokens.new_empty(0, tokens.shape[2])
    for frame, cells in enumerate(tokens):
        score = familiarity(cells, torch.cat([known, before])).reshape(1, 1, *grid)
        scores[frame] = F.avg_pool2d(F.pad(score, (1,) * 4, mode="replicate"), 3, stride=1)[0, 0].cpu()
        before = cells[scores[frame].flatten() >= config.sure_similarity]
    candidates = scores < config.new_similarity + config.new_margin
    groups, count = connected(candidates.numpy(), _ALL_AROUND)
    result, unsure, found = maps.clone(), torch.zeros_like(candidates), regions
    for number in range(1, count + 1):
        group = torch.from_numpy(groups == number)
        cores = (group & (scores < config.new_similarity)).flatten(1).sum(1)
        long_enough = int((cores >= config.min_cells).sum()) >= min(config.min_frames, len(maps))
        free = free_labels(region_labels(found))
        if long_enough and free:
            result[group.to(result.device)] = free[0]
            found = tuple(sorted((*found, Region(free[0], f"new {free[0]}"))))
        elif int(cores.max()) >= config.min_cells:
            unsure |= group
    return Novelty(result, found, unsure)
