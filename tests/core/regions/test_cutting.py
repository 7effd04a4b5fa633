"""Regions cut anew, split and merged: names stay where regions do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from vidseg.core.leaves import MergeTree
from vidseg.core.regions.cutting import (
    count_most_regions,
    cut_regions,
    describe_leaves,
    group_leaves,
    join_maps,
    merge_owners,
    restore_leaves,
    split_region,
)
from vidseg.core.regions.labels import rename_regions
from vidseg.core.regions.points import parse_points, resolve_points
from vidseg.core.regions.tree import cut_tree
from vidseg.core.types import InputError, LabelMaps, Region

TREE = MergeTree((0, 0, 1, 0, 2), (float("inf"), 5.0, 4.0, 3.0, 2.0))
MAPS = torch.tensor([[[0, 1, 2], [3, 4, 4]]], dtype=torch.uint8)


def cut(num_regions: int, maps: torch.Tensor = MAPS) -> LabelMaps:
    owners = cut_tree(TREE, num_regions)
    return group_leaves(maps, TREE, owners, tuple(Region(x, f"region {x}") for x in sorted(set(owners))), (2, 3))


def test_cutting_equals_a_run_with_that_number() -> None:
    for count in range(1, 7):
        again = cut_regions(cut(3), count)
        assert torch.equal(again.maps, cut(count).maps)
        assert again.maps.dtype == torch.uint8
        assert again.regions == cut(count).regions
        assert torch.equal(again.leaves.maps, MAPS)
    assert count_most_regions(cut(3)) == 5
    assert cut_regions(cut(3), 2).maps.tolist() == [[[0, 1, 1], [0, 1, 1]]]


def test_names_stay_where_the_region_does() -> None:
    named = cut(3)
    named = replace(named, regions=rename_regions(named.regions, {0: "rabbit", 1: "grass", 2: "sky"}))
    assert cut_regions(named, 4).regions == (
        Region(0, "region 0"),
        Region(1, "grass"),
        Region(2, "sky"),
        Region(3, "region 3"),
    )
    assert [region.name for region in cut_regions(named, 2).regions] == ["rabbit", "region 1"]


def test_a_region_found_later_is_beyond_the_number() -> None:
    found = group_leaves(
        torch.tensor([[[0, 5, 1]]]),
        TREE,
        (*cut_tree(TREE, 2), 9),
        (Region(0, "a"), Region(1, "b"), Region(9, "ball")),
        (1, 3),
    )
    again = cut_regions(found, 1)
    assert again.maps.tolist() == [[[0, 5, 0]]]
    assert again.regions == (Region(0, "region 0"), Region(5, "ball"))


def test_splitting_is_the_next_cut_of_the_tree() -> None:
    parts = split_region(cut(2), 1)
    assert torch.equal(parts.maps, cut(3).maps)
    assert split_region(cut(5), 4) == cut(5) or torch.equal(split_region(cut(5), 4).maps, cut(5).maps)
    with pytest.raises(InputError, match="`label` must be one of"):
        split_region(cut(2), 7)


def test_points_split_regions_before_all_else() -> None:
    points = parse_points("0 0.8,0.1 dog\nsplit 0 0.5,0.1\nsplit 0 0.5,0.1")
    picks = resolve_points(points, cut(2))
    assert picks.splits == (1,)  # a single leaf stays whole
    assert picks.labels.maps.tolist() == [[[0, 1, 2], [0, 2, 2]]]
    assert picks.names == {2: "dog"}
    assert picks.picked == (2,)
    assert not picks.problems
    without = resolve_points(points, replace(cut(2), leaves=None))
    assert without.picked == (1,)
    assert len(without.problems) == 2
    assert "only regions of the method tree can be split" in without.problems[0]


def test_merged_regions_split_again_into_what_they_were() -> None:
    merged = merge_owners(cut(3).leaves, {1: 0})
    whole = group_leaves(MAPS, TREE, merged.owners, (Region(0, "both"), Region(2, "region 2")), (2, 3))
    assert torch.equal(split_region(whole, 0).maps, cut(3).maps)
    assert merge_owners(None, {1: 0}) is None


def test_parts_of_a_clip_are_joined() -> None:
    whole = join_maps([cut(3), cut(3)])
    assert whole.maps.shape == whole.leaves.maps.shape == (2, 2, 3)
    assert join_maps([replace(cut(3), leaves=None)]).leaves is None


def test_leaves_come_back_from_a_record_and_damaged_ones_are_refused() -> None:
    leaves = cut(3).leaves
    record = describe_leaves(leaves)
    again = restore_leaves(MAPS, record)
    assert (again.tree, again.owners) == (leaves.tree, leaves.owners)
    with pytest.raises(InputError, match="`owners` must name a region for each leaf"):
        restore_leaves(MAPS, {**record, "owners": [0, 1]})
    with pytest.raises(InputError, match="`owners` must name a region for each leaf"):
        restore_leaves(MAPS + 1, record)
    with pytest.raises(InputError, match="must know the small clusters"):
        cut_regions(replace(cut(3), leaves=None), 4)
