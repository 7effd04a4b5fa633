"""Merge trees over leaves: any number of regions is cut from one, and more regions only split those of fewer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

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


class MergeRule(NamedTuple):
    """What makes two clusters harder to merge than their distance says; without it, average linkage alone.

    Attributes:
        size_power: power of the harmonic mean of their sizes to multiply by: more than 0 merges small ones first.
        apart: factor for clusters that do not touch; it falls evenly to 1 for those that have ``touching`` in common.
        touching: share of the shorter one of both borders, more than 0.
    """

    size_power: float = 0.0
    apart: float = 1.0
    touching: float = 1.0


AVERAGE_LINKAGE = MergeRule()


def build_tree(
    centers: Tensor,
    sizes: Tensor,
    kinds: Tensor | None = None,
    contacts: Tensor | None = None,
    rule: MergeRule = AVERAGE_LINKAGE,
) -> tuple[MergeTree, Tensor]:
    """Merge ``(L,C)`` centers of ``(L,)`` tokens each by average linkage of their squared distances, weighted by size.

    Next merge the two clusters with the least mean squared distance between a token of one and one of the other, times
    what ``rule`` says. ``contacts`` ``(L,L)`` are the lengths of the common borders, symmetric, 0 on the diagonal;
    without them all touch. Where there are two ``kinds`` ``(L,)`` int64, all centers of a kind are merged before the
    two are.

    Returns:
        The tree, and for each center its number in the tree, ``(L,)`` int64.

    SciPy's ``linkage`` takes no sizes; with equal ones and no rule the tree is that of its method ``average``.
    """
    count = len(centers)
    kind = np.zeros(count) if kinds is None else kinds.cpu().numpy().copy()
    clusters = _Clusters(centers, sizes, kind, contacts, rule)
    return _number_leaves([clusters.merge_next() for _ in range(count - 1)], count)


class _Clusters:
    """Clusters that merge one by one; a merged one goes on under the number of its larger part."""

    def __init__(
        self, centers: Tensor, sizes: Tensor, kind: np.ndarray, contacts: Tensor | None, rule: MergeRule
    ) -> None:
        points = centers.double().cpu()
        self._distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").square().numpy()
        self._sizes, self._kind, self._rule = sizes.double().cpu().numpy().copy(), kind, rule
        self._contacts = None if contacts is None else contacts.double().cpu().numpy().copy()
        self._alive = np.ones(len(points), dtype=bool)
        self._costs = self._find_all_costs()

    def merge_next(self) -> tuple[int, int, float]:
        """Merge the two clusters that cost least; return the larger, the smaller, and the root of the cost."""
        if np.isinf(self._costs.min()):  # one cluster of each kind is left
            self._kind[:] = 0
            self._costs = self._find_all_costs()
        first, second = (int(index) for index in np.unravel_index(np.argmin(self._costs), self._costs.shape))
        large, small = (first, second) if self._sizes[first] >= self._sizes[second] else (second, first)
        height = float(np.sqrt(self._costs[large, small]))
        self._join(large, small)
        self._costs[small] = self._costs[:, small] = np.inf
        self._costs[large] = self._costs[:, large] = self._find_costs(large)
        return large, small, height

    def _join(self, large: int, small: int) -> None:
        """Give a cluster what another has."""
        distances, sizes, contacts = self._distances, self._sizes, self._contacts
        total = sizes[large] + sizes[small]
        mean = (sizes[large] * distances[large] + sizes[small] * distances[small]) / total
        distances[large], distances[:, large], sizes[large], self._alive[small] = mean, mean, total, False
        if contacts is not None:
            both = contacts[large] + contacts[small]
            contacts[large], contacts[:, large] = both, both
            contacts[small], contacts[:, small], contacts[large, large] = 0, 0, 0

    def _find_all_costs(self) -> np.ndarray:
        costs = np.stack([self._find_costs(index) for index in range(len(self._sizes))])
        costs[~self._alive] = np.inf
        return costs

    def _find_costs(self, index: int) -> np.ndarray:
        """Return what it costs to merge a cluster with each other, ``(L,)``; infinite where they must not."""
        mean = 2 * self._sizes * self._sizes[index] / (self._sizes + self._sizes[index])
        costs = self._distances[index] * mean**self._rule.size_power
        if self._contacts is not None:
            borders = self._contacts.sum(1)
            shares = self._contacts[index] / np.minimum(borders, borders[index]).clip(min=1)
            costs *= 1 + (self._rule.apart - 1) * (1 - shares / self._rule.touching).clip(min=0)
        allowed = self._alive & (self._kind == self._kind[index])
        row: np.ndarray = np.where(allowed, costs, np.inf)
        row[index] = np.inf
        return row


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
