"""Tiles cover a frame evenly, and what they say of its cells is averaged without seams."""

from __future__ import annotations

import doctest
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from vidseg.core.backbones.diffusers.backbone import DiffusersBackbone
from vidseg.core.backbones.diffusers.denoiser import DiffusersDenoiser
from vidseg.core.config.settings import Settings
from vidseg.core.method import tiles
from vidseg.core.method.features import extract_features, read_queries
from vidseg.core.method.frames import HeldFrames
from vidseg.core.method.pipeline import segment
from vidseg.core.method.sampling import list_sigmas
from vidseg.core.method.tiles import TileMean, split_tiles
from vidseg.core.types import Features, Grid, InputError

WHOLE = Settings.of(quality="fast", num_clusters=3)
TILED = Settings.of(quality="fast", num_clusters=3, tiles=128)
FRAMES = torch.rand(2, 64, 192, 3, generator=torch.Generator().manual_seed(1))
"""Of 4x12 cells: two tiles of 4x8, which share the four columns in the middle."""


@pytest.mark.parametrize(
    ("grid", "longest", "tile", "count"),
    [
        (Grid(28, 52), 448, Grid(28, 28), 3),
        (Grid(28, 52), 500, Grid(28, 28), 3),
        (Grid(28, 52), 832, Grid(28, 52), 1),
        (Grid(52, 28), 0, Grid(52, 28), 1),
        (Grid(68, 120), 512, Grid(32, 32), 15),
        (Grid(8, 40), 128, Grid(8, 8), 9),
    ],
)
def test_tiles_are_equal_and_overlap_by_a_quarter(grid: Grid, longest: int, tile: Grid, count: int) -> None:
    tiling = split_tiles(grid, longest)
    assert (tiling.tile, len(tiling.corners)) == (tile, count)
    for side, starts in zip((0, 1), map(sorted, map(set, zip(*tiling.corners, strict=True))), strict=True):
        assert (starts[0], starts[-1]) == (0, grid[side] - tile[side])
        assert all(start % tiles.CELLS_PER_MULTIPLE == 0 for start in starts)
        steps = [after - before for before, after in pairwise(starts)]
        assert max(steps, default=0) <= (1 - tiles.MIN_OVERLAP) * tile[side]


@pytest.mark.parametrize(("grid", "longest"), [(Grid(28, 52), 448), (Grid(20, 24), 128), (Grid(4, 8), 0)])
def test_the_mean_of_tiles_of_a_map_is_the_map(grid: Grid, longest: int) -> None:
    tiling = split_tiles(grid, longest)
    weights = tiling.weigh()
    assert float(weights.min()) > 0
    maps = torch.randn(2, 4, *(2 * side for side in grid))  # as latents
    mean, numbers = TileMean(tiling, 2), range(2 * len(tiling.corners))
    for number in reversed(numbers):
        cells = tiling.cut(maps, [number])[..., ::2, ::2]
        mean.add([number], cells.flatten(2).transpose(1, 2))
    expected = maps[..., ::2, ::2].flatten(2).transpose(1, 2)
    assert torch.allclose(mean.result(), expected, atol=1e-6)
    if len(tiling.corners) == 1:
        assert torch.equal(mean.result(), expected)


def test_a_tile_that_covers_the_frame_changes_nothing(thin_backbone: DiffusersBackbone) -> None:
    whole, tiled = (extract_features(thin_backbone, FRAMES[:, :, :128], settings) for settings in (WHOLE, TILED))
    assert torch.equal(whole.queries, tiled.queries)
    assert torch.equal(whole.matching, tiled.matching)


@pytest.fixture(scope="module")
def tiled(thin_backbone: DiffusersBackbone) -> Features:
    return extract_features(thin_backbone, FRAMES, TILED)


def test_each_tile_is_read_by_itself_from_latents_and_noise_of_the_whole(
    thin_backbone: DiffusersBackbone, tiled: Features
) -> None:
    whole = extract_features(thin_backbone, FRAMES, WHOLE)
    assert torch.equal(tiled.latents, whole.latents)
    assert torch.equal(tiled.noise, whole.noise)
    assert tiled.grid == whole.grid == Grid(4, 12)
    sigmas = list_sigmas(thin_backbone, TILED)

    def read(start: int) -> tuple[Tensor, Tensor]:
        part = slice(2 * start, 2 * start + 16)
        seen = whole.latents[..., part], whole.noise[..., part]
        return thin_backbone.run(lambda model: read_queries(model, *seen, sigmas, TILED), 5.0, (2, 4, 8, 16))

    for columns in zip(read(0), read(4), (tiled.queries, tiled.matching), strict=True):
        left, right, found = (tokens.unflatten(1, (4, -1)) for tokens in columns)
        assert torch.equal(found[:, :, :4], left[:, :, :4])
        assert torch.equal(found[:, :, 8:], right[:, :, 4:])
        both = torch.stack([left[:, :, 4:], right[:, :, :4]])
        low, high = both.amin(0) - 1e-5, both.amax(0) + 1e-5
        assert ((low <= found[:, :, 4:8]) & (found[:, :, 4:8] <= high)).all()


def test_tiles_do_not_depend_on_batches_or_other_frames(
    thin_backbone: DiffusersBackbone, tiled: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiffusersBackbone, "batch_size", lambda _self, _shape: 3)  # tiles of two frames together
    told: list[Any] = []
    again = extract_features(thin_backbone, FRAMES, TILED, progress=lambda *state: told.append(state))
    assert torch.equal(again.queries, tiled.queries)
    assert told[-1] == ("features", 2, 2)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    alone = extract_features(thin_backbone, FRAMES[1:], TILED, first_frame=1)
    assert torch.equal(alone.queries, tiled.queries[1:])


def test_modulation_sees_whole_frames(thin_backbone: DiffusersBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []
    predict = DiffusersDenoiser.predict

    def spy(self: Any, latents: Tensor, *rest: Any, **options: Any) -> Any:
        widths.append(latents.shape[-1])
        return predict(self, latents, *rest, **options)

    monkeypatch.setattr(DiffusersDenoiser, "predict", spy)
    source = HeldFrames(FRAMES[:1])
    settings = Settings.of(quality="balanced", num_clusters=2, tiles=128, noise="frame")
    assert segment(thin_backbone, source, settings).maps.shape == (1, 64, 192)
    assert set(widths) == {16, 24}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tiles": 100}, "`tiles` must be 0 or at least 128, but got 100. Choose larger tiles, or 0"),
        ({"tiles": 448, "kind": "svd"}, "`tiles` must be 0 with Stable Video Diffusion"),
        ({"tiles": 448, "kind": "vision"}, "`tiles` must be 0 with Stable Video Diffusion and with vision"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Settings.of(quality="fast", **changes)


def test_doctests() -> None:
    assert doctest.testmod(tiles).failed == 0
