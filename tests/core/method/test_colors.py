"""Answers of the guided filter are weighed by a normal distribution of the leaf's colors, written out here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from vidseg.core.config.parts import EnlargingConfig
from vidseg.core.leaves import MergeTree
from vidseg.core.method.colors import FARTHEST, LEAST_ANSWER, ColorGuidedFilter
from vidseg.core.method.enlarging import enlarge_maps
from vidseg.core.method.guided import GuidedFilter
from vidseg.core.method.patches import Patch
from vidseg.core.regions.cutting import group_leaves
from vidseg.core.types import Features, Grid, LabelMaps, Region

CONFIG = EnlargingConfig(method="guided", guided_radius=8, guided_subsample=1)


def whole(patch: Patch, size: tuple[int, int] = (64, 96)) -> Tensor:
    values = torch.zeros(size)
    values[patch.rows, patch.columns] = patch.values
    return values


def noisy(colors: Tensor, seed: int = 1) -> Tensor:
    noise = torch.randn(colors.shape, generator=torch.Generator().manual_seed(seed))
    return (colors + 6 * noise).clamp(0, 255).to(torch.uint8)


def two_halves(edge: int) -> Tensor:
    picture = torch.full((64, 96, 3), 90.0)
    picture[:, edge:] = torch.tensor([120.0, 80.0, 60.0])
    return noisy(picture)


def test_equals_the_density_written_out() -> None:
    picture, mask = two_halves(40), torch.zeros(4, 6)
    mask[1:3, 1:3] = torch.tensor([[1.0, 0.5], [0.7, 1.0]])
    answers = whole(GuidedFilter(picture, (4, 6), (64, 96), CONFIG).filter(mask[None])[0]).double()
    strong = answers > LEAST_ANSWER
    rows, columns = strong.any(1).nonzero()[:, 0], strong.any(0).nonzero()[:, 0]
    area = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    weights, colors = (answers * strong)[area], picture[area].double() / 255
    kept = slice(-area[0].start % 4, None, 4)
    some = weights[kept] / weights[kept].sum()
    mean = torch.einsum("rc,rck->k", some, colors[kept])
    apart = colors - mean
    spread = torch.einsum("rc,rck,rcl->kl", some, apart[kept], apart[kept]) + CONFIG.color_spread**2 * torch.eye(3)
    far = torch.einsum("rck,kl,rcl->rc", apart, torch.linalg.inv(spread), apart).clamp(max=FARTHEST)
    expected = torch.zeros(64, 96)
    expected[area] = (weights * torch.exp(-far / 2) * CONFIG.color_spread**3 / spread.det().sqrt()).float()
    found = whole(ColorGuidedFilter(picture, (4, 6), (64, 96), CONFIG).filter(mask[None])[0])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_a_mask_that_hardly_answers_takes_nothing() -> None:
    filtered = ColorGuidedFilter(two_halves(40), (4, 6), (64, 96), CONFIG)
    assert float(whole(filtered.filter(torch.full((1, 4, 6), 1e-3))[0]).abs().max()) == 0


def leaves_of(cells: Tensor) -> LabelMaps:
    tree = MergeTree((0, 0), (float("inf"), 1.0))
    return group_leaves(cells[None], tree, (0, 1), (Region(0, "a"), Region(1, "b")), (64, 96))


def border_errors(edge: int, **changed: float) -> int:
    """Return the pixels that lie on the wrong side where the coarse border is at pixel 48."""
    nothing = torch.empty(1, 0)
    features = Features(nothing, nothing, nothing, nothing, Grid(4, 6), (64, 96), two_halves(edge)[None])
    config = EnlargingConfig(method="guided", **changed)
    found = enlarge_maps(leaves_of((torch.arange(6) >= 3).long().expand(4, 6)), features, config).maps[0]
    return int((found != (torch.arange(96) >= edge)).sum())


@pytest.mark.parametrize("edge", [36, 40, 58, 62])
def test_borders_lie_on_the_edge_of_the_picture(edge: int) -> None:
    assert border_errors(edge) < border_errors(edge, color_spread=0.0) / 10
    assert border_errors(edge) < 64  # less than a pixel a row


def test_a_color_that_fits_nothing_goes_to_the_nearest_leaf() -> None:
    picture = two_halves(48)
    picture[20:24, 8:12] = torch.tensor([0, 255, 0], dtype=torch.uint8)
    nothing = torch.empty(1, 0)
    features = Features(nothing, nothing, nothing, nothing, Grid(4, 6), (64, 96), picture[None])
    found = enlarge_maps(leaves_of((torch.arange(6) >= 3).long().expand(4, 6)), features, CONFIG).maps[0]
    assert found[20:24, 8:12].unique().tolist() == [0]
