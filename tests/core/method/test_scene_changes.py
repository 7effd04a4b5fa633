"""What enters later becomes a region, what changes slowly does not, and a cut starts anew with known names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from vidseg.core.config.parts import ClusterConfig, ContextConfig, RefinementConfig, SceneConfig, WindowConfig
from vidseg.core.config.settings import PRESETS, Settings, preset
from vidseg.core.method.coarse import CoarseScan, segment_coarse
from vidseg.core.method.pipeline import ScanState
from vidseg.core.method.scene_changes import find_cuts
from vidseg.core.types import AnchorLabels, Features, Grid, LabelMaps, Region

GRID = Grid(10, 14)
REGIONS = (Region(0, "ground"), Region(1, "house"))
ON = SceneConfig(new_regions=True, cuts=True)
PLAIN = RefinementConfig(enabled=False)


def kinds(seed: int) -> torch.Tensor:
    """Main directions ``(4,32)`` of the things of a scene."""
    return torch.randn(4, 32, generator=torch.Generator().manual_seed(seed)) * 3


def rendered(maps: torch.Tensor, scene: torch.Tensor, seed: int = 1, drift: float = 0.0) -> torch.Tensor:
    """Return queries ``(T,N,32)`` of label maps ``(T,h,w)``; each frame is turned a little further by ``drift``."""
    generator = torch.Generator().manual_seed(seed)
    still = scene[maps.flatten(1)] + 0.5 * torch.randn(len(maps), GRID.num_tokens, 32, generator=generator)
    way = 3 * torch.randn(32, generator=generator)
    return still + drift * torch.arange(len(maps))[:, None, None] * way


def layout(frames: int, entering: int | None = None) -> torch.Tensor:
    """Ground and a house; a thing, 2, that enters with frame ``entering`` and moves to the right."""
    maps = torch.zeros(frames, *GRID, dtype=torch.int64)
    maps[:, 2:8, 8:13] = 1
    for frame in range(frames if entering is not None else 0):
        if entering is not None and frame >= entering:
            maps[frame, 4:8, 1 + (frame - entering) // 3 : 5 + (frame - entering) // 3] = 2
    return maps


def features(queries: torch.Tensor) -> Features:
    nothing = torch.empty(len(queries), 0)
    return Features(queries, queries, nothing, nothing, GRID, (160, 224))


def settings_of(config: SceneConfig, window: int, clusters: int = 2) -> Settings:
    return Settings(scene=config, window=WindowConfig(window), cluster=ClusterConfig(clusters), refinement=PLAIN)


def segmented(queries: torch.Tensor, config: SceneConfig, window: int = 6, clusters: int = 2) -> LabelMaps:
    return segment_coarse(
        features(queries), AnchorLabels(0, layout(1)[0], REGIONS), settings_of(config, window, clusters)
    )


@pytest.mark.parametrize("entering", [2, 4, 5, 6, 9])
def test_what_enters_later_becomes_one_region_wherever_the_window_ends(entering: int) -> None:
    truth = layout(18, entering)
    result = segmented(rendered(truth, kinds(1)), ON)
    assert result.regions == (*REGIONS, Region(2, "new 2"))
    known = slice(entering + 2, None)  # the last frames of a window may be too few to be sure
    thing, wanted = result.maps[known] == 2, truth[known] == 2
    assert float((thing & wanted).sum() / (thing | wanted).sum()) > 0.7
    assert not bool((result.maps[:entering] == 2).any())


def test_without_the_setting_nothing_is_new() -> None:
    queries = rendered(layout(12, 3), kinds(1))
    result = segmented(queries, SceneConfig())
    assert result.regions == REGIONS
    assert not PRESETS["paper"].scene.new_regions
    assert not PRESETS["reference"].scene.cuts


def test_slow_change_is_not_new() -> None:
    result = segmented(rendered(layout(24), kinds(1), drift=0.05), ON)
    assert result.regions == REGIONS


def test_a_flash_is_not_new() -> None:
    queries = rendered(layout(12), kinds(1))
    queries[5] = rendered(layout(12, 5), kinds(1))[5]
    assert segmented(queries, ON).regions == REGIONS


@pytest.mark.parametrize("cut", [4, 6])
def test_a_cut_is_found_and_starts_anew(cut: int) -> None:
    queries = torch.cat([rendered(layout(cut), kinds(1)), rendered(layout(12 - cut), kinds(2), seed=2)])
    assert find_cuts(queries, None, ON) == [cut]
    result = segmented(queries, ON)
    assert [region.name for region in result.regions] == ["ground", "house", "new 2", "new 3"]
    assert set(result.maps[cut:].unique().tolist()) == {2, 3}
    house = result.maps[cut:] == result.maps[cut, 4, 10]
    assert torch.equal(house, layout(12 - cut) == 1)


def test_a_cut_to_fewer_cells_than_clusters_is_no_error() -> None:
    queries = torch.cat([rendered(layout(2), kinds(1)), rendered(layout(1), kinds(2), seed=2)])
    result = segmented(queries, ON, clusters=GRID.num_tokens + 1)  # enough in a window, not in the frame after the cut
    assert len(result.maps[2].unique()) > 1


def test_names_come_back_with_the_scene() -> None:
    there = rendered(layout(6), kinds(1), seed=3)
    queries = torch.cat([rendered(layout(6), kinds(1)), rendered(layout(8), kinds(2), seed=2), there])
    result = segmented(queries, ON, window=4)
    assert torch.equal(result.maps[14:], layout(6))
    assert len(result.regions) == 4


def test_a_stored_scan_goes_on_as_one_in_one_go(tmp_path: Path) -> None:
    queries = torch.cat([rendered(layout(7, 2), kinds(1)), rendered(layout(11), kinds(2), seed=2)])
    whole = segmented(queries, ON)
    anchor_labels, context, maps = AnchorLabels(0, layout(1)[0], REGIONS), None, []
    for start in range(0, 18, 6):
        scan = CoarseScan(anchor_labels, settings_of(ON, 6), context)
        maps.append(scan.step(features(queries[start : start + 6])).maps)
        assert scan.context is not None
        stored = ScanState(1, scan.anchor_labels, scan.context)
        (tmp_path / "state").write_bytes(stored.to_bytes())
        state = ScanState.load(tmp_path / "state", ContextConfig())
        anchor_labels, context = state.anchor_labels, state.context
    assert torch.equal(torch.cat(maps), whole.maps)
    assert anchor_labels.regions == whole.regions


def test_without_free_labels_everything_keeps_an_old_one() -> None:
    full = tuple(Region(label, str(label)) for label in range(255))
    queries = torch.cat([rendered(layout(5, 1), kinds(1)), rendered(layout(5), kinds(2), seed=2)])
    result = segment_coarse(features(queries), AnchorLabels(0, layout(1)[0], full), settings_of(ON, 4))
    assert set(result.maps.unique().tolist()) <= {0, 1}
    assert len(preset("default").to_dict()["scene"]) == 10
