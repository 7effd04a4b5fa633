"""Naming, merging and masks of labels: Pillow, loops, golden tensors and properties."""

from __future__ import annotations

import doctest
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from vidseg.core.regions import labels
from vidseg.core.regions.labels import (
    assign_clusters,
    count_pixels,
    find_inner_point,
    list_regions,
    mask_labels,
    mask_union,
    merge_labels,
    name_anchor,
    reduce_reference,
    rename_regions,
    tabulate_regions,
)
from vidseg.core.regions.points import PointLine, find_label_under
from vidseg.core.types import AnchorLabels, InputError, LabelMaps, Region

from ...golden_data import golden_dir


def random_map(seed: int, high: int, *shape: int) -> Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(28, 52), (16, 30), (8, 16), (7, 13), (1, 1), (44, 56), (360, 480), (200, 700)])
@pytest.mark.parametrize("old", [(480, 854), (360, 480), (128, 256), (9, 31)])
def test_reducing_equals_pillow(old: tuple[int, int], size: tuple[int, int]) -> None:
    reference = random_map(0, 256, *old).to(torch.uint8)
    expected = Image.fromarray(reference.numpy()).resize((size[1], size[0]), Image.Resampling.NEAREST)
    assert np.array_equal(reduce_reference(reference, size).numpy(), np.array(expected))


def test_majority_equals_a_loop_with_ties_to_the_smallest() -> None:
    for seed in range(20):
        clusters, reference = random_map(seed, 5, 6, 7), random_map(seed + 50, 4, 6, 7) * 60
        result, regions = assign_clusters(clusters, reference.to(torch.uint8), ignore=None)
        for cluster in range(5):
            counts = Counter(reference[clusters == cluster].tolist())
            most = max(counts.values())
            expected = min(label for label, count in counts.items() if count == most)
            assert set(result[clusters == cluster].tolist()) == {expected}
        assert [region.label for region in regions] == sorted(set(result.flatten().tolist()))


def test_the_ignored_label_has_no_vote_unless_it_is_alone() -> None:
    clusters = torch.tensor([[0, 0, 0, 1, 1]])
    reference = torch.tensor([[255, 255, 8, 255, 255]], dtype=torch.uint8)
    result, regions = assign_clusters(clusters, reference)
    assert result.tolist() == [[8, 8, 8, 255, 255]]
    assert regions == (Region(8, "label 8"), Region(255, "void"))
    assert assign_clusters(clusters, reference, ignore=None)[0].tolist() == [[255] * 5]
    assert assign_clusters(clusters, reference, ignore=8)[0].tolist() == [[255] * 5]


def test_a_reference_that_is_the_cluster_map_changes_nothing() -> None:
    clusters = random_map(1, 6, 8, 9)
    assert torch.equal(assign_clusters(clusters, clusters.to(torch.uint8))[0], clusters)
    big = clusters.to(torch.uint8).repeat_interleave(16, 0).repeat_interleave(16, 1)
    assert torch.equal(assign_clusters(clusters, big)[0], clusters)


def test_renumbering_clusters_changes_nothing() -> None:
    clusters, reference = random_map(1, 6, 8, 9), random_map(2, 3, 33, 47).to(torch.uint8)
    expected, _ = assign_clusters(clusters, reference)
    assert torch.equal(assign_clusters(17 - 2 * clusters, reference)[0], expected)


def test_labels_equal_those_of_the_reference_code() -> None:
    folder = Path(golden_dir())
    tensors = np.load(folder / "sd_windows_0.npz")
    reference = torch.from_numpy(np.array(Image.open(folder / "sd_windows_gt_frame0.png")))
    clusters = torch.from_numpy(tensors["kmeans_labels_first_frame"]).long().view(8, 16)
    anchor_labels = name_anchor(AnchorLabels(0, clusters, ()), reference, ignore=None, names={12: "tree"})
    assert np.array_equal(anchor_labels.cluster_map.flatten().numpy(), tensors["knn_fit_y"])
    assert anchor_labels.regions == (Region(3, "label 3"), Region(12, "tree"))
    assert anchor_labels.anchor == 0


def test_bad_references_are_refused() -> None:
    clusters = torch.zeros(2, 2, dtype=torch.int64)
    with pytest.raises(InputError, match=r"must hold labels in \[0, 255\], but got \[0, 256\]"):
        assign_clusters(clusters, torch.tensor([[0, 256]]))
    with pytest.raises(InputError, match=r"must hold labels in \[0, 255\], but got \[-1, 0\]"):
        assign_clusters(clusters, torch.tensor([[0, -1]]))
    with pytest.raises(InputError, match="`reference` must have shape"):
        assign_clusters(clusters, torch.zeros(2, 2, 3, dtype=torch.uint8))
    with pytest.raises(InputError, match="must not be empty"):
        assign_clusters(clusters, torch.zeros(0, 2, dtype=torch.uint8))


def test_renaming_keeps_the_other_names() -> None:
    regions = (Region(1, "a"), Region(2, "b"))
    assert rename_regions(regions, {2: "car"}) == (Region(1, "a"), Region(2, "car"))
    with pytest.raises(InputError, match=r"must hold labels of regions \[1, 2\], but got \[3\]"):
        rename_regions(regions, {3: "car"})


def test_merging_and_exchanging() -> None:
    maps = random_map(4, 4, 3, 5, 6).to(torch.uint8)
    regions = list_regions(maps)
    result, left = merge_labels(maps, regions, {3: 1, 2: 1})
    assert torch.equal(result, torch.where(maps > 1, 1, maps))
    assert [region.label for region in left] == [0, 1]
    assert result.dtype == torch.uint8
    swapped, left = merge_labels(maps, regions, {0: 1, 1: 0})
    assert left == regions
    assert torch.equal(merge_labels(swapped, regions, {0: 1, 1: 0})[0], maps)
    assert torch.equal(swapped == 0, maps == 1)
    for targets in ({9: 1}, {1: 9}):
        with pytest.raises(InputError, match=r"but got \[9\]"):
            merge_labels(maps, regions, targets)


def test_masks_are_a_partition() -> None:
    maps = random_map(4, 4, 3, 5, 6).to(torch.uint8)
    masks = mask_labels(maps, [0, 1, 2, 3, 200])
    assert masks.shape == (5, 3, 5, 6) and masks.dtype == torch.bool
    assert torch.equal(masks.sum(0), torch.ones(3, 5, 6, dtype=torch.int64))
    assert torch.equal(masks[2], maps == 2) and not masks[4].any()
    assert mask_labels(maps, []).shape == (0, 3, 5, 6)


def test_doctests() -> None:
    assert doctest.testmod(labels).failed == 0


def test_the_union_equals_that_of_the_masks() -> None:
    maps = torch.randint(0, 6, (3, 4, 5), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    for chosen in ((), (2,), (0, 3, 5, 255)):
        assert torch.equal(mask_union(maps, chosen), mask_labels(maps, chosen).any(0))


def blobs(seed: int, frames: int = 4, size: tuple[int, int] = (45, 77)) -> torch.Tensor:
    coarse = torch.randint(0, 6, (frames, 5, 7), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    return coarse.repeat_interleave(9, 1).repeat_interleave(11, 2)[:, : size[0], : size[1]]


@pytest.mark.parametrize("seed", range(4))
def test_rows_equal_a_loop(seed: int) -> None:
    maps = blobs(seed)
    labels = LabelMaps(maps, (*list_regions(maps), Region(200, "never")))
    for row in tabulate_regions(labels)[:-1]:
        inside = [int((frame == row.label).sum()) for frame in maps]
        seen = [number for number, count in enumerate(inside) if count]
        assert (row.first, row.last, row.frame) == (seen[0], seen[-1], inside.index(max(inside)))
        assert row.share == pytest.approx(sum(inside) / maps.numel())
        assert find_label_under(maps, PointLine("pick", row.frame, row.x, row.y)) == row.label
    assert tabulate_regions(labels)[-1] == (200, "never", 0.0, None, None, None, 0.0, 0.0)
    assert torch.equal(count_pixels(maps).sum(1), torch.full((len(maps),), maps[0].numel()))


def test_the_point_is_far_from_the_border() -> None:
    mask = torch.zeros(60, 100, dtype=torch.bool)
    mask[10:51, 20:61] = True
    mask[30, :] = True
    x, y = find_inner_point(mask)
    assert abs(x * 100 - 40.5) <= 1
    assert abs(y * 60 - 30.5) <= 1


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (700, 900)])
def test_the_point_lies_in_a_mask_of_one_pixel(size: tuple[int, int]) -> None:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[size[0] // 2, size[1] // 3] = True
    x, y = find_inner_point(mask)
    assert mask[int(y * size[0]), int(x * size[1])]
