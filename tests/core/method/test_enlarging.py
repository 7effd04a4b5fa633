"""Guided upsampling finds the picture's own edges, and agrees with a guided filter written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from vidseg.core.config.parts import EnlargingConfig
from vidseg.core.leaves import MergeTree
from vidseg.core.method.enlarging import add_leaves, enlarge_bilinear, enlarge_maps
from vidseg.core.regions.cutting import group_leaves
from vidseg.core.types import Features, Grid, InputError, LabelMaps, Region


def features_of(picture: Tensor, grid: Grid, size: tuple[int, int]) -> Features:
    nothing = torch.empty(1, 0)
    return Features(nothing, nothing, nothing, nothing, grid, size, picture[None])


def enlarge_guided(cells: Tensor, picture: Tensor, size: tuple[int, int], config: EnlargingConfig) -> Tensor:
    regions = tuple(Region(label, f"region {label}") for label in cells.unique().tolist())
    features = features_of(picture, Grid(*cells.shape), size)
    return enlarge_maps(LabelMaps(cells[None], regions, size), features, replace(config, method="guided")).maps[0]


def two_colors(edge: int, h: int = 96, w: int = 128) -> Tensor:
    picture = torch.full((h, w, 3), 60, dtype=torch.uint8)
    picture[:, edge:] = torch.tensor([180, 120, 200], dtype=torch.uint8)
    return picture


@pytest.mark.parametrize("edge", [59, 64, 69])
def test_labels_snap_to_the_edge_of_the_picture(edge: int) -> None:
    cells = (torch.arange(8)[None].expand(6, 8) >= 4).long() * 7 + 2  # the coarse edge is at pixel 64
    maps = enlarge_guided(cells, two_colors(edge), (96, 128), EnlargingConfig(guided_subsample=1))
    truth = torch.where(torch.arange(128) >= edge, 9, 2).to(torch.uint8).expand(96, 128)
    coarse = enlarge_bilinear(LabelMaps(cells[None], (Region(2, "a"), Region(9, "b")), (96, 128))).maps[0]
    errors = [int((found != truth).sum()) for found in (maps, coarse)]
    assert errors[0] <= 96
    assert errors[0] < errors[1] or edge == 64


def test_equals_the_filter_written_out() -> None:
    generator = torch.Generator().manual_seed(2)
    picture = torch.randint(0, 256, (32, 48, 3), generator=generator).to(torch.uint8)
    cells = torch.randint(0, 3, (4, 6), generator=generator)
    config = EnlargingConfig(guided_radius=3, guided_epsilon=1e-2, guided_subsample=1)
    scores = torch.stack([by_hand((cells == label).float(), picture, 3, 1e-2) for label in range(3)])
    top = scores.topk(2, dim=0).values
    clear = top[0] - top[1] > 1e-4
    assert clear.float().mean() > 0.95
    found = enlarge_guided(cells, picture, (32, 48), config)
    assert torch.equal(found[clear], scores.argmax(0).to(torch.uint8)[clear])


def by_hand(mask: Tensor, picture: Tensor, radius: int, epsilon: float) -> Tensor:
    """He et al. 2013, section 3.4, with mirrored borders, one window at a time."""
    target = F.interpolate(mask[None, None], picture.shape[:2], mode="bilinear")[0, 0].double()
    guide = picture.double() / 255

    def windows(image: Tensor) -> Tensor:
        padded = F.pad(image[None, None], (radius,) * 4, mode="reflect")[0, 0]
        return padded.unfold(0, 2 * radius + 1, 1).unfold(1, 2 * radius + 1, 1).flatten(2)

    colors = torch.stack([windows(guide[..., channel]) for channel in range(3)], -1)
    values = windows(target)
    mean, average = colors.mean(2), values.mean(2)
    covariance = torch.einsum("hwnc,hwnd->hwcd", colors, colors) / values.shape[2]
    covariance = covariance - mean[..., :, None] * mean[..., None, :] + epsilon * torch.eye(3)
    cross = torch.einsum("hwnc,hwn->hwc", colors, values) / values.shape[2] - mean * average[..., None]
    slope = torch.linalg.solve(covariance, cross)
    offset = average - (slope * mean).sum(-1)
    smooth = torch.stack([windows(slope[..., channel]).mean(2) for channel in range(3)], -1)
    return (smooth * guide).sum(-1) + windows(offset).mean(2)


def leaf_maps(cells: Tensor, owners: tuple[int, ...], size: tuple[int, int]) -> LabelMaps:
    tree = MergeTree(tuple(max(0, leaf - 1) for leaf in range(len(owners))), (float("inf"), *range(len(owners), 1, -1)))
    regions = tuple(Region(label, f"region {label}") for label in sorted(set(owners)))
    return group_leaves(cells[None], tree, owners, regions, size)


@pytest.mark.parametrize("method", ["guided", "bilinear"])
def test_leaves_change_no_region_and_lie_inside_theirs(method: str) -> None:
    generator = torch.Generator().manual_seed(3)
    picture = torch.randint(0, 256, (64, 96, 3), generator=generator).to(torch.uint8)
    cells = torch.randint(0, 11, (4, 6), generator=generator)
    owners = (3, 3, 3, 8, 8, 8, 8, 200, 200, 9, 9)
    coarse = leaf_maps(cells, owners, (50, 70))
    features, config = features_of(picture, Grid(4, 6), (50, 70)), EnlargingConfig(method=method, color_spread=0)
    full = enlarge_maps(coarse, features, config)
    plain = enlarge_maps(LabelMaps(coarse.maps, coarse.regions, coarse.frame_size), features, config)
    assert float((full.maps == plain.maps).float().mean()) > 0.999  # sums in another order
    assert torch.equal(torch.tensor(owners)[full.leaves.maps.long()], full.maps.long())
    assert set(full.leaves.maps.unique().tolist()) <= set(cells.unique().tolist())
    assert len(full.leaves.maps.unique()) > len(full.maps.unique())


def test_votes_move_the_border_of_a_region() -> None:
    """A cell between two regions whose votes are even lies half in each, until the picture has an edge."""
    cells, owners = torch.tensor([[0, 0, 1, 1]]).repeat(4, 1), (5, 9)
    coarse = leaf_maps(cells, owners, (64, 64))
    votes = cells[None, ..., None].repeat(1, 1, 1, 4)
    votes[0, :, 1] = torch.tensor([0, 1, 1, 1])
    voted = replace(coarse, leaves=coarse.leaves._replace(votes=votes.to(torch.uint8)))
    features = features_of(torch.full((64, 64, 3), 128, dtype=torch.uint8), Grid(4, 4), (64, 64))
    config = EnlargingConfig(method="guided", guided_radius=4)

    def border(labels: LabelMaps, config: EnlargingConfig) -> float:
        return float((enlarge_maps(labels, features, config).maps[0] == 5).sum(1).float().mean())

    alone = border(coarse, config)
    assert (
        alone == border(voted, replace(config, own_share=1.0)) == pytest.approx(32, abs=2)
    )  # kept pixels lie 1.5 beside their centers
    assert 24 < border(voted, config) < alone
    assert border(voted, replace(config, own_share=0.0)) < border(voted, config)
    assert enlarge_maps(voted, features, config).leaves.votes is None


def test_leaves_are_added_to_regions_that_modulation_found() -> None:
    cells = torch.tensor([[0, 1], [2, 2]])
    coarse = leaf_maps(cells, (4, 4, 7), (32, 32))
    labels = torch.full((1, 32, 32), 4, dtype=torch.uint8)  # the region grew over the other one
    full = add_leaves(LabelMaps(labels, coarse.regions), coarse)
    assert torch.equal(full.maps, labels)
    assert set(full.leaves.maps.unique().tolist()) == {0, 1}
    assert full.leaves.maps[0, :8, 24:].eq(1).all()


def test_one_label_alone_fills_the_frame_and_wrong_pictures_are_refused() -> None:
    cells = torch.full((4, 4), 5)
    assert enlarge_guided(cells, two_colors(9, 64, 64), (10, 20), EnlargingConfig()).unique().tolist() == [5]
    with pytest.raises(InputError, match="`picture` must have shape"):
        enlarge_guided(cells, torch.zeros(3, 64, 64), (10, 20), EnlargingConfig())
