"""Scene cuts: where the picture changes as a whole, and how the scene context starts anew there."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .clustering import automatic_num_clusters, cluster_tokens, nearest_centre
from .config.parts import ClusterConfig, SceneConfig
from .context import SceneContext
from .labels import free_labels, spread
from .novelty import familiarity
from .types import Region, region_labels


class Restart(NamedTuple):
    """A scene context after a cut, and the regions, those of the new scene among them."""

    context: SceneContext
    regions: tuple[Region, ...]


def cut_frames(tokens: Tensor, known: Tensor | None, config: SceneConfig) -> list[int]:
    """Find the frames with which another scene begins.

    A cut is where half of the cells have nothing similar in the frame before.

    Args:
        tokens: ``(T,N,C)`` float32, of one window.
        known: ``(M,C)`` float32 of what came before the window, or None where it is the first.
        config: the similarity below which a frame begins another scene.

    Returns:
        Numbers of frames in the window, in order; 0 may be among them.
    """
    before = [known, *tokens[:-1]]
    return [
        frame
        for frame, (cells, previous) in enumerate(zip(tokens, before, strict=True))
        if previous is not None and float(familiarity(cells, previous).median()) < config.cut_similarity
    ]


def restarted(
    cells: Tensor,
    context: SceneContext,
    regions: tuple[Region, ...],
    config: SceneConfig,
    cluster: ClusterConfig,
    seed: int,
) -> Restart:
    """Start the scene context anew from the first frame after a cut; known names carry over to what looks like them.

    K-means divides the frame. A cluster whose cells resemble known ones takes the label that most of these have; the
    others become new regions. Some tokens of each label from before the cut stay, so that a scene that comes back is
    recognised.

    Args:
        cells: ``(N,C)`` float32, normalised tokens of the frame.
        context: before the cut.
        regions: the regions so far.
        config: the similarity from which on a cluster is known, and how many tokens of each label stay.
        cluster: number of clusters, at most that of cells, and restarts.
        seed: of K-means.

    Returns:
        The new context and the regions. Without a free label a cluster takes the most similar one.
    """
    number = cluster.num_clusters or automatic_num_clusters(cells, cluster.granularity, seed)
    centres = cluster_tokens(cells, ClusterConfig(min(number, len(cells)), cluster.num_restarts), seed)
    clusters = nearest_centre(cells, centres)
    predicted, known = context.predict(cells[None])[0].cpu(), familiarity(cells, context.tokens).cpu()
    labels, found = torch.empty_like(predicted), regions
    for index in torch.unique(clusters).tolist():
        inside = clusters == index
        free = free_labels(region_labels(found))
        if free and float(known[inside].median()) < config.known_similarity:
            labels[inside] = free[0]
            found = tuple(sorted((*found, Region(free[0], f"new {free[0]}"))))
        else:
            labels[inside] = int(predicted[inside].mode().values)
    kept = spread(context.labels, config.remembered_tokens)
    tokens = torch.cat([context.tokens[kept], cells.to(context.tokens.device)])
    return Restart(
        SceneContext(
            tokens, torch.cat([context.labels[kept], labels.to(context.labels.device)]), context.config, len(kept)
        ),
        found,
    )
