"""Leaves of the anchor frame: many small clusters, and the tree by which they merge into regions (ours)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..config.parts import MAX_AUTOMATIC_CLUSTERS, ClusterConfig
from ..leaves import LaterCells, MergeTree
from ..regions.cutting import group_leaves
from ..regions.tree import MergeRule, build_tree, cut_tree
from ..types import AnchorLabels, Grid, Progress, Region, no_progress
from .clustering import AnchorTokens, cluster_tokens, find_nearest_centers
from .frames import require_tokens_for
from .scene_changes import measure_familiarity

LEAF_RESTARTS = 2
"""Runs of K-means for leaves: more give no better regions (measured), since the tree merges what was cut too fine."""
MERGE_RULE = MergeRule(size_power=0.2, apart=2.0, touching=0.2)
"""Large leaves, and leaves apart, are harder to merge (measured: powers of 0.1 to 0.3, factors of 1.5 to 3, shares of
0.15 to 0.25 are about as good). A hole and the thing before it share a long border: more than so much says nothing."""
MERGE_PLACE = 0.5
"""Factor on the place of cells when leaves are merged: leaves are compact, things may be long (measured)."""


def grow_leaves(
    tokens: AnchorTokens,
    grid: Grid,
    config: ClusterConfig,
    seed: int,
    *,
    familiar: float = -1.0,
    progress: Progress = no_progress,
) -> AnchorLabels:
    """Divide the anchor frame, ``(h,w)``, into leaves and merge them to ``config.num_clusters`` regions.

    K-means makes the leaves; those that do not occur in the anchor frame are dropped, unless they are fitted on frames
    of the whole clip: then some cells stand for them. Leaves merge by average linkage, weighted by the number of
    cells in all frames that K-means saw, and rather with those that they touch in the anchor frame, or in those of the
    whole clip. Leaves that look like nothing in the anchor frame, by a similarity below ``familiar``, merge with each
    other first, so that a thing that comes later does not end in a region of others.
    """
    require_tokens_for(config.num_clusters, len(tokens.seen))
    count = min(max(config.num_leaves, config.num_clusters), len(tokens.seen))
    fine = replace(config, num_clusters=count, num_restarts=LEAF_RESTARTS)
    centers = cluster_tokens(tokens.seen, fine, seed, device=tokens.device, progress=progress)
    nearest, cells = find_nearest_centers(tokens.seen, centers), find_nearest_centers(tokens.shown, centers)
    whole = config.fit_frames == "clip"
    shown, found = (tokens.seen, nearest) if whole else (tokens.shown, cells)
    present, found = torch.unique(found, return_inverse=True)
    sizes, contacts = torch.bincount(nearest, minlength=count)[present], count_contacts(found.reshape(-1, *grid))
    strange = find_strange(centers, present, cells, tokens, familiar) if whole else None
    points = centers[present].clone()
    if tokens.scales.place:
        points[:, -2:] *= MERGE_PLACE
    tree, number = build_tree(points, sizes, strange, contacts, MERGE_RULE)
    leaves, all_leaves = number[torch.searchsorted(present, cells)], number[found]
    num_regions = config.num_clusters or choose_cut(tree, all_leaves, shown, config.granularity)
    owners = cut_tree(tree, num_regions)
    regions = tuple(Region(label, f"region {label}") for label in sorted(set(owners)))
    cut = group_leaves(leaves.reshape(grid), tree, owners, regions, (0, 0))
    later = choose_later(tokens.seen, all_leaves, leaves) if whole else None
    return AnchorLabels(0, cut.maps, regions, cut.leaves, later=later)


def count_contacts(maps: Tensor) -> Tensor:
    """Return how many sides of cells each two of L leaves have in common in ``(T,h,w)``, ``(L,L)`` int64.

    >>> count_contacts(torch.tensor([[[0, 0, 1], [0, 2, 1]]])).tolist()
    [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
    """
    count = int(maps.max()) + 1
    sides = ((maps[:, 1:], maps[:, :-1]), (maps[:, :, 1:], maps[:, :, :-1]))
    pairs = torch.cat([(first * count + second).flatten() for first, second in sides])
    contacts = torch.bincount(pairs, minlength=count * count).reshape(count, count)
    return (contacts + contacts.T).fill_diagonal_(0)


def find_strange(centers: Tensor, present: Tensor, cells: Tensor, tokens: AnchorTokens, familiar: float) -> Tensor:
    """Tell which of the ``present`` centers the anchor frame lacks and has nothing like, 1 or 0, ``(L,)`` int64."""
    looks = tokens.num_looks
    strange = measure_familiarity(centers[present, :looks], tokens.shown[:, :looks]) < familiar
    return (strange & ~torch.isin(present, cells)).long()


def choose_later(tokens: Tensor, leaves: Tensor, shown: Tensor) -> LaterCells | None:
    """Return the cells ``(M,C)`` whose leaves are none of those ``shown`` in the anchor frame, or None."""
    later = (~torch.isin(leaves, shown)).nonzero()[:, 0]
    return LaterCells(tokens[later], leaves[later]) if len(later) else None


def choose_cut(tree: MergeTree, leaves: Tensor, tokens: Tensor, granularity: float) -> int:
    """Choose the least number of regions, 2 to 64, that explain a share of the variance of ``(N,C)`` tokens.

    ``leaves`` ``(N,)`` are those of the tokens; see `clustering.choose_num_clusters`. Cuts are nested, so the share
    grows with the number, which is found by bisection.
    """
    total = _sum_squares(tokens, torch.zeros_like(leaves))
    low, high = min(2, len(tree.parents)), min(MAX_AUTOMATIC_CLUSTERS, len(tree.parents))
    while low < high:
        middle = (low + high) // 2
        left = _sum_squares(tokens, torch.tensor(cut_tree(tree, middle))[leaves])
        low, high = (low, middle) if left <= (1 - granularity) * total else (middle + 1, high)
    return low


def _sum_squares(tokens: Tensor, labels: Tensor) -> float:
    """Return the summed squared distances of ``(N,C)`` tokens to the means of their labels."""
    counts = torch.bincount(labels).clamp(min=1)
    means = tokens.new_zeros(len(counts), tokens.shape[1]).index_add_(0, labels, tokens) / counts[:, None]
    return float((tokens - means[labels]).square().sum())
