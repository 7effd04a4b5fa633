"""Things that the scene context has never seen, and scene cuts (failure cases of the paper, A.5)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.ndimage import label as connected  # scikit-learn brings SciPy
from torch import Tensor

from ..config.parts import ClusterConfig, SceneConfig
from ..config.settings import Settings
from ..regions.labels import list_free_labels, spread_indices
from ..types import Region, list_labels
from .clustering import choose_num_clusters, cluster_tokens, find_nearest_centers
from .context import SceneContext

_CHUNK_ELEMENTS = 2**24
"""Cosines held at once: 64 MiB in float32."""
_ALL_AROUND = np.ones((3, 3, 3))
"""Cells that touch, also at a corner and from one frame to the next, are connected."""


class Novelty(NamedTuple):
    """What `find_new_regions` found.

    Attributes:
        maps: ``(T,h,w)`` int64 labels, the new ones among them.
        regions: the regions, the new ones among them.
        unsure: ``(T,h,w)`` bool, cells that look new but not for long enough yet: not to be remembered as old.
    """

    maps: Tensor
    regions: tuple[Region, ...]
    unsure: Tensor


def measure_familiarity(tokens: Tensor, known: Tensor) -> Tensor:
    """Return the largest cosine similarity of each token ``(N,C)`` to known ones ``(M,C)``, ``(N,)``."""
    unit, other = F.normalize(tokens.float(), dim=-1), F.normalize(known.float(), dim=-1)
    chunk = max(1, _CHUNK_ELEMENTS // max(1, len(other)))
    return torch.cat([(part @ other.T).amax(1) for part in torch.split(unit, chunk)])


def find_new_regions(
    tokens: Tensor, maps: Tensor, known: Tensor, regions: tuple[Region, ...], config: SceneConfig
) -> Novelty:
    """Give connected cells of ``(T,N,C)`` that are far from everything known ``(M,C)`` a region of their own.

    A cell is compared with the known tokens and with the cells of the frame before that are surely known, so that slow
    change is followed; the mean over the cells around it decides, since single cells are noisy. What stays new in
    enough cells for enough frames becomes a region; without a free label nothing is new.
    """
    grid = tuple(maps.shape[1:])
    scores = torch.empty(maps.shape)
    before = tokens.new_empty(0, tokens.shape[2])
    for frame, cells in enumerate(tokens):
        score = measure_familiarity(cells, torch.cat([known, before])).reshape(1, 1, *grid)
        scores[frame] = F.avg_pool2d(F.pad(score, (1,) * 4, mode="replicate"), 3, stride=1)[0, 0].cpu()
        before = cells[scores[frame].flatten() >= config.sure_similarity]
    candidates = scores < config.new_similarity + config.new_margin
    groups, count = connected(candidates.numpy(), _ALL_AROUND)
    result, unsure, found = maps.clone(), torch.zeros_like(candidates), regions
    for number in range(1, count + 1):
        group = torch.from_numpy(groups == number)
        cores = (group & (scores < config.new_similarity)).flatten(1).sum(1)
        long_enough = int((cores >= config.min_cells).sum()) >= min(config.min_frames, len(maps))
        free = list_free_labels(list_labels(found))
        if long_enough and free:
            result[group.to(result.device)] = free[0]
            found = tuple(sorted((*found, Region(free[0], f"new {free[0]}"))))
        elif int(cores.max()) >= config.min_cells:
            unsure |= group
    return Novelty(result, found, unsure)


class Restart(NamedTuple):
    """A scene context after a cut, and the regions, those of the new scene among them."""

    context: SceneContext
    regions: tuple[Region, ...]


def find_cuts(tokens: Tensor, known: Tensor | None, config: SceneConfig) -> list[int]:
    """Find the frames of ``(T,N,C)`` with which another scene begins; ``known`` ``(M,C)`` came before, if anything.

    A cut is where half of the cells have nothing similar in the frame before.
    """
    before = [known, *tokens[:-1]]
    return [
        frame
        for frame, (cells, previous) in enumerate(zip(tokens, before, strict=True))
        if previous is not None and float(measure_familiarity(cells, previous).median()) < config.cut_similarity
    ]


def restart_context(
    cells: Tensor, looks: int, context: SceneContext, regions: tuple[Region, ...], settings: Settings
) -> Restart:
    """Start the scene context anew from the first frame ``(N,C)`` after a cut; what looks known keeps its name.

    The first ``looks`` components of a cell say what it looks like, the others where it lies. K-means divides the
    frame. A cluster whose cells resemble known ones takes the label that most of these have; the others become new
    regions. Some tokens of each label from before the cut stay, so that a scene that comes back is recognized. Without
    a free label a cluster takes the most similar one.
    """
    config, cluster, seed = settings.scene, settings.cluster, settings.sampling.seed
    number = cluster.num_clusters or choose_num_clusters(cells, cluster.granularity, seed)
    centers = cluster_tokens(cells, ClusterConfig(min(number, len(cells)), cluster.num_restarts), seed)
    clusters = find_nearest_centers(cells, centers)
    predicted = context.predict(cells[None])[0].cpu()
    known = measure_familiarity(cells[:, :looks], context.tokens[:, :looks]).cpu()
    labels, found = torch.empty_like(predicted), regions
    for index in torch.unique(clusters).tolist():
        inside = clusters == index
        free = list_free_labels(list_labels(found))
        if free and float(known[inside].median()) < config.known_similarity:
            labels[inside] = free[0]
            found = tuple(sorted((*found, Region(free[0], f"new {free[0]}"))))
        else:
            labels[inside] = int(predicted[inside].mode().values)
    kept = spread_indices(context.labels, config.remembered_tokens)
    tokens = torch.cat([context.tokens[kept], cells.to(context.tokens.device)])
    return Restart(
        SceneContext(
            tokens, torch.cat([context.labels[kept], labels.to(context.labels.device)]), context.config, len(kept)
        ),
        found,
    )
