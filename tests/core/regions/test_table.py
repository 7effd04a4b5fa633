"""Shares, first and last frames and inner points of regions, against loops."""

from __future__ import annotations

import pytest
import torch
from vidseg.core.regions.labels import list_regions
from vidseg.core.regions.points import PointLine, find_label_under
from vidseg.core.regions.table import count_pixels, find_inner_point, tabulate_regions
from vidseg.core.types import LabelMaps, Region


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
