"""Merge trees over leaves: any number of regions is cut from one, and more regions only split those of fewer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..leaves import MergeTree
from ..types import InputError, SettingError

Linkage = Sequence[Sequence[float]]
"""Rows of SciPy's linkage format: two nodes, the height at which they merge, the number of leaves below."""


def cut_tree(tree: MergeTree, num_regions: int) -> list[int]:
    """Return for each leaf the label, 0 to ``num_regions`` - 1, of the region that it belongs to.

    >>> cut_tree(MergeTree((0, 0, 1), (float("inf"), 2.0, 1.0)), 2)
    [0, 1, 1]
    """
    if num_regions < 1:
        raise SettingError("num_regions", "be at least 1", num_regions, "Choose a larger number")
    labels: list[int] = []
    for leaf, parent in enumerate(tree.parents):
        labels.append(leaf if leaf < num_regions else labels[parent])
    return labels


def find_split(tree: MergeTree, leaves: Iterable[int]) -> list[int]:
    """Return those of ``leaves`` that the tree's next cut splits off from the others; none of a single one.

    >>> find_split(MergeTree((0, 0, 0, 1), (float("inf"), 3.0, 2.0, 1.0)), [1, 2, 3])
    [2]
    """
    ordered = sorted(leaves)
    second = ordered[1:2]
    return [leaf for leaf in ordered if cut_tree(tree, second[0] + 1)[leaf] == second[0]] if second else []


def find_nearest_leaves(tree: MergeTree, known: Collection[int]) -> list[int]:
    """Return for each leaf the one of some ``known`` leaves that the tree merges it with first; itself if known.

    Of several that it merges with at once, the first to split off.

    >>> find_nearest_leaves(MergeTree((0, 0, 0, 1), (float("inf"), 3.0, 2.0, 1.0)), [1, 2])
    [2, 1, 2, 1]
    """
    found: dict[int, int] = {}
    for number in range(len(tree.parents), 0, -1):
        labels = cut_tree(tree, number)
        first: dict[int, int] = {}
        for leaf in sorted(known):
            first.setdefault(labels[leaf], leaf)
        for leaf, label in enumerate(labels):
            if label in first:
                found.setdefault(leaf, first[label])
    return [found[leaf] for leaf in range(len(tree.parents))]


def to_linkage(tree: MergeTree) -> list[list[float]]:
    """Return a tree in SciPy's linkage format, for files and other tools."""
    size = len(tree.parents)
    number, count = list(range(size)), [1] * size
    rows: list[list[float]] = []
    for leaf in range(size - 1, 0, -1):
        parent = tree.parents[leaf]
        count[parent] += count[leaf]
        rows.append([float(number[parent]), float(number[leaf]), tree.heights[leaf], float(count[parent])])
        number[parent] = size + len(rows) - 1
    return rows


def from_linkage(rows: Linkage) -> MergeTree:
    """Read what `to_linkage` wrote; other trees, whose leaves are numbered in another order, are refused."""
    from scipy.cluster.hierarchy import is_valid_linkage  # noqa: PLC0415, no host brings it, unlike the rest of SciPy

    size = len(rows) + 1
    whole = all(len(row) == 4 and float(row[0]).is_integer() and float(row[1]).is_integer() for row in rows)
    table = np.asarray(rows, dtype=np.float64).reshape(-1, 4) if whole else np.empty((0, 4))
    if size > 1 and not (whole and is_valid_linkage(table)):
        raise InputError("`linkage` must be a tree in SciPy's format, but is not. Segment the clip again.")
    smallest = list(range(size))
    parents, heights = [0] * size, [float("inf")] * size
    for first, second, height in zip(table[:, 0], table[:, 1], table[:, 2].tolist(), strict=True):
        parent, leaf = sorted((smallest[int(first)], smallest[int(second)]))
        parents[leaf], heights[leaf] = parent, height
        smallest.append(parent)
    if heights != sorted(heights, reverse=True):
        raise InputError("`linkage` must number leaves in the order of splits. Segment the clip again.")
    return MergeTree(tuple(parents), tuple(heights))


def build_tree(
    centers: Tensor, sizes: Tensor, kinds: Tensor | None = None, *, size_power: float = 0.0
) -> tuple[MergeTree, Tensor]:
    """Merge ``(L,C)`` centers of ``(L,)`` tokens each by average linkage of their squared distances, weighted by size.

    Next merge the two clusters with the least mean squared distance between a token of one and one of the other, times
    a power of the harmonic mean of their sizes: more than 0 makes it easier to merge small ones. Where there are two
    ``kinds`` ``(L,)`` int64, all centers of a kind are merged before the two are.

    Returns:
        The tree, and for each center its number in the tree, ``(L,)`` int64.

    SciPy's ``linkage`` takes no sizes; with equal ones and a power of 0 the tree is that of its method ``average``.
    """
    points, weights = centers.double().cpu(), sizes.double().cpu().numpy().copy()
    apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").square().numpy()
    alive, everyone = np.ones(len(points), dtype=bool), range(len(points))
    kind = np.zeros(len(points)) if kinds is None else kinds.cpu().numpy().copy()

    def find_costs(index: int) -> np.ndarray:
        mean = 2 * weights * weights[index] / (weights + weights[index])
        row: np.ndarray = np.where(alive & (kind == kind[index]), apart[index] * mean**size_power, np.inf)
        row[index] = np.inf
        return row

    costs = np.stack([find_costs(index) for index in everyone])
    merges: list[tuple[int, int, float]] = []
    while len(merges) < len(points) - 1:
        if np.isinf(costs.min()):  # one cluster of each kind is left
            kind[:] = 0
            costs = np.stack([find_costs(index) for index in everyone])
            costs[~alive] = np.inf
        first, second = np.unravel_index(np.argmin(costs), costs.shape)
        large, small = (first, second) if weights[first] >= weights[second] else (second, first)
        merges.append((int(large), int(small), float(np.sqrt(costs[first, second]))))
        total, alive[small] = weights[large] + weights[small], False
        row = (weights[large] * apart[large] + weights[small] * apart[small]) / total
        apart[large], apart[:, large], weights[large] = row, row, total
        costs[small], costs[:, small] = np.inf, np.inf
        costs[large] = costs[:, large] = find_costs(int(large))
    return _number_leaves(merges, len(points))


def _number_leaves(merges: Sequence[tuple[int, int, float]], count: int) -> tuple[MergeTree, Tensor]:
    """Number centers by the order in which they split off: the last merge is undone first."""
    root = merges[-1][0] if merges else 0
    order = [root, *(small for _, small, _ in reversed(merges))]
    number = torch.empty(count, dtype=torch.int64)
    number[torch.tensor(order)] = torch.arange(count)
    parents = (0, *(int(number[large]) for large, _, _ in reversed(merges)))
    rising = np.maximum.accumulate([height for _, _, height in merges]).tolist()  # against rounding
    heights = (float("inf"), *reversed(rising))
    return MergeTree(parents, heights), number
