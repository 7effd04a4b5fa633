"""Merge trees: SciPy's where clusters weigh the same, nested cuts, and a file format that other tools read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, is_monotonic, is_valid_linkage, linkage
from scipy.spatial.distance import pdist
from sklearn.metrics import adjusted_rand_score
from vidseg.core.leaves import MergeTree
from vidseg.core.regions.tree import MergeRule, build_tree, cut_tree, find_split, from_linkage, to_linkage
from vidseg.core.types import InputError


def random_tree(count: int, seed: int = 0) -> tuple[MergeTree, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(count, 5, generator=generator)
    return build_tree(centers, torch.randint(1, 50, (count,), generator=generator))


def test_equal_weights_give_the_tree_of_scipy() -> None:
    centers = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
    tree, number = build_tree(centers, torch.ones(40))
    expected = linkage(pdist(centers.double().numpy(), "sqeuclidean"), "average")
    np.testing.assert_allclose(sorted(tree.heights[1:]), sorted(np.sqrt(expected[:, 2])), rtol=1e-9)
    for count in (2, 5, 13, 40):
        ours = np.array(cut_tree(tree, count))[number]
        assert adjusted_rand_score(ours, fcluster(expected, count, "maxclust")) == 1


def test_a_weight_counts_as_that_many_equal_points() -> None:
    points = torch.tensor([[0.0], [1.0], [2.4]])
    tree, number = build_tree(points, torch.tensor([1, 9, 1]))
    apart, _ = build_tree(torch.cat([points, points[1:2].repeat(8, 1)]), torch.ones(11))
    assert tree.heights[1:] == pytest.approx(apart.heights[1:3])
    assert int(number[1]) == 0  # the heaviest keeps its label


def test_a_power_of_sizes_merges_small_clusters_first() -> None:
    points, sizes = torch.tensor([[0.0], [1.0], [5.0], [6.5]]), torch.tensor([9, 9, 1, 1])
    even, weighed = build_tree(points, sizes)[0], build_tree(points, sizes, rule=MergeRule(size_power=1))[0]
    assert even.heights[3] == pytest.approx(1)
    assert weighed.heights[3] == pytest.approx(1.5)
    assert weighed.heights[2] == pytest.approx(3)  # square root of 1 times the harmonic mean of 9 and 9


def test_clusters_merge_rather_with_those_that_they_touch() -> None:
    points, sizes = torch.tensor([[0.0], [1.0], [-1.2]]), torch.tensor([3, 2, 1])
    contacts, rule = torch.tensor([[0, 0, 4], [0, 0, 0], [4, 0, 0]]), MergeRule(apart=3)
    alone, touching = build_tree(points, sizes), build_tree(points, sizes, contacts=contacts, rule=rule)
    assert cut_tree(alone[0], 2)[alone[1][1]] == 0, "the nearest"
    assert cut_tree(touching[0], 2)[touching[1][2]] == 0, "the one that it shares its border with"
    assert touching[0].heights[2] == pytest.approx(1.2)
    assert touching[0].heights[1] == pytest.approx((3 * (3 * 1 + 2.2**2) / 4) ** 0.5)


def test_a_common_border_longer_than_enough_changes_nothing() -> None:
    points, contacts = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0, 2, 8], [2, 0, 8], [8, 8, 0]])
    costs = [
        build_tree(points, torch.ones(3), None, contacts, MergeRule(0, 3, share))[0].heights[2] for share in (0.2, 0.4)
    ]
    assert costs == pytest.approx([1, 2**0.5])  # a fifth of the border of ten is common


def test_borders_add_up_when_clusters_merge() -> None:
    """What merged is as what was one from the start: heights, and so the rest of the tree."""
    generator = torch.Generator().manual_seed(3)
    centers, sizes = torch.randn(8, 4, generator=generator), torch.randint(1, 9, (8,), generator=generator)
    contacts = torch.randint(0, 9, (8, 8), generator=generator).triu(1)
    contacts += contacts.T.clone()
    rule = MergeRule(size_power=0.2, apart=3, touching=0.3)
    expected = build_tree(centers, sizes, contacts=contacts, rule=rule)[0].heights
    parts = torch.tensor([0, 0, *range(1, 8)])  # the first is in two halves
    halves = sizes[parts].double()
    halves[:2] /= 2
    split = contacts[parts][:, parts].double()
    split[:2], split[:, :2] = split[:2] / 2, split[:, :2] / 2
    heights = build_tree(centers[parts], halves, contacts=split, rule=rule)[0].heights
    assert heights[:-1] == pytest.approx(expected)
    assert heights[-1] == 0


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 30), seed=st.integers(0, 99))
def test_cuts_are_nested_and_hold_as_many_regions_as_asked_for(count: int, seed: int) -> None:
    tree, number = random_tree(count, seed)
    assert sorted(number.tolist()) == list(range(count))
    before = cut_tree(tree, 1)
    for regions in range(2, count + 2):
        now = cut_tree(tree, regions)
        assert set(now) == set(range(min(regions, count)))
        assert len({(old, new) for old, new in zip(before, now, strict=True)}) == len(set(now))
        before = now
    rows = to_linkage(tree)
    if rows:
        assert is_valid_linkage(np.array(rows))
        assert is_monotonic(np.array(rows))
    assert from_linkage(rows) == tree


def test_a_region_splits_where_the_tree_does() -> None:
    tree, _ = random_tree(20)
    for count in range(1, 20):
        now, then = cut_tree(tree, count), cut_tree(tree, count + 1)
        split = {old for old, new in zip(now, then, strict=True) if new == count}
        inside = [leaf for leaf, label in enumerate(now) if label in split]
        assert find_split(tree, inside) == [leaf for leaf in inside if then[leaf] == count]
    assert find_split(tree, [7]) == []


def test_foreign_trees_are_refused() -> None:
    rows = to_linkage(random_tree(6)[0])
    with pytest.raises(InputError, match="in the order of splits"):
        from_linkage(
            [[5 - row[0] if row[0] < 6 else row[0], *row[1:]] for row in linkage([[0], [1], [5], [9], [9.5], [30]])]
        )
    with pytest.raises(InputError, match="SciPy's format"):
        from_linkage([[0, 0, 1, 2], *rows[1:]])
    with pytest.raises(InputError, match="`num_regions` must be at least 1, but got 0"):
        cut_tree(random_tree(3)[0], 0)


def test_kinds_are_merged_last() -> None:
    generator = torch.Generator().manual_seed(2)
    centers, sizes = torch.randn(9, 3, generator=generator), torch.arange(1, 10)
    kinds = (torch.arange(9) % 2).long()
    tree, number = build_tree(centers, sizes, kinds)
    parts = torch.tensor(cut_tree(tree, 2))[number]
    assert torch.equal(parts == parts[0], kinds == 0)
    assert is_valid_linkage(np.asarray(to_linkage(tree)))
    for chosen in kinds == 0, kinds == 1:
        alone, own = build_tree(centers[chosen], sizes[chosen])
        assert sorted(alone.heights[1:])[-1] in tree.heights
        assert len(own) == int(chosen.sum())
    assert build_tree(centers, sizes)[0] == build_tree(centers, sizes, torch.zeros(9).long())[0]
