"""Winners of all answers at once are those of the answers that are not 0."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from vidseg.core.config.parts import EnlargingConfig
from vidseg.core.leaves import MergeTree
from vidseg.core.method import dense, enlarging, guided
from vidseg.core.method.enlarging import add_leaves, enlarge_maps
from vidseg.core.regions.cutting import group_leaves
from vidseg.core.types import Features, Grid, LabelMaps, Region

from .test_guided import random_picture

NUM_LEAVES = 6
FRAMES = 2


def coarse_maps(frame_size: tuple[int, int], kind: str) -> LabelMaps:
    """Return maps of six leaves of three regions, the last leaf in the first frame alone, or of six regions."""
    generator = torch.Generator().manual_seed(1)
    cells = torch.randint(0, NUM_LEAVES, (FRAMES, 4, 6), generator=generator)
    cells[1][cells[1] == NUM_LEAVES - 1] = 0
    if kind == "labels":
        return LabelMaps(cells.byte(), tuple(Region(label, str(label)) for label in range(NUM_LEAVES)), frame_size)
    tree = MergeTree((0,) * NUM_LEAVES, (float("inf"), 5.0, 4.0, 3.0, 2.0, 1.0))
    regions = tuple(Region(label, str(label)) for label in (0, 7, 200))
    maps = group_leaves(cells.byte(), tree, (0, 7, 7, 200, 200, 0), regions, frame_size)
    votes = torch.randint(0, NUM_LEAVES - 1, (*cells.shape, 4), generator=generator)
    assert maps.leaves is not None
    return replace(maps, leaves=maps.leaves._replace(votes=votes))


def features_of(frame_size: tuple[int, int]) -> Features:
    nothing, pictures = torch.empty(FRAMES, 0), [random_picture(seed, (64, 96)) // 8 for seed in range(FRAMES)]
    return Features(nothing, nothing, nothing, nothing, Grid(4, 6), frame_size, torch.stack(pictures))


@pytest.fixture
def all_at_once(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Take the way of a GPU, in bands of few rows."""
    monkeypatch.setattr(enlarging, "_takes_all", lambda _guided: True)
    monkeypatch.setattr(dense, "GPU_BAND", 1 << 12)
    monkeypatch.setattr(guided, "GPU_BAND", 1 << 12)
    return monkeypatch


@pytest.mark.parametrize("frame_size", [(131, 245), (64, 96), (50, 120)])
@pytest.mark.parametrize(("kind", "spread"), [("labels", 0.03), ("leaves", 0.0), ("leaves", 0.03)])
def test_maps_are_the_same(
    frame_size: tuple[int, int], kind: str, spread: float, all_at_once: pytest.MonkeyPatch
) -> None:
    coarse, features = coarse_maps(frame_size, kind), features_of(frame_size)
    config = EnlargingConfig(method="guided", guided_radius=4, color_spread=spread)
    found = enlarge_maps(coarse, features, config)
    all_at_once.undo()
    expected = enlarge_maps(coarse, features, config)
    assert len(expected.maps.unique()) == len(coarse.regions)
    assert float((found.maps != expected.maps).float().mean()) < 1e-3  # ties, rounded in another order
    if found.leaves and expected.leaves:
        assert float((found.leaves.maps != expected.leaves.maps).float().mean()) < 1e-3


def test_leaves_of_given_labels_are_the_same(all_at_once: pytest.MonkeyPatch) -> None:
    size = (131, 245)
    coarse, features, config = coarse_maps(size, "leaves"), features_of(size), EnlargingConfig(guided_radius=4)
    full = LabelMaps(torch.tensor([0, 7, 200, 9], dtype=torch.uint8).repeat(FRAMES, 131, 62)[..., :245], coarse.regions)
    found = add_leaves(full, coarse, features, config).leaves
    all_at_once.undo()
    expected = add_leaves(full, coarse, features, config).leaves
    assert found is not None
    assert expected is not None
    assert set(expected.maps.unique().tolist()) == set(range(NUM_LEAVES))
    assert float((found.maps != expected.maps).float().mean()) < 0.01  # no answer is 0 here, and may be below it there


def test_a_gpu_without_memory_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    for budget, chosen in ((2**31, "cuda"), (2**28, "cpu")):
        monkeypatch.setattr(enlarging, "find_budget", lambda _device, budget=budget: budget)
        assert enlarging._choose_device(gpu, 448 * 832, 100).type == chosen
    monkeypatch.setattr(enlarging, "multiplies_exactly", lambda _device: False)
    assert enlarging._choose_device(gpu, 64, 1).type == "cpu"
