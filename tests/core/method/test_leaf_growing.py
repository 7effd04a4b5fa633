"""Leaves and their tree: things apart stay apart, places count, cuts follow the granularity, scans carry leaves."""

from __future__ import annotations

import pytest
import torch
from vidseg.core.config.parts import ClusterConfig
from vidseg.core.config.settings import Settings, replace_parts
from vidseg.core.method.clustering import gather_tokens
from vidseg.core.method.coarse import CoarseScan, segment_coarse
from vidseg.core.method.leaf_growing import choose_cut, grow_leaves
from vidseg.core.method.pipeline import ScanState, label_anchor
from vidseg.core.regions.cutting import cut_regions
from vidseg.core.types import AnchorLabels, Features, Grid

GRID = Grid(8, 12)


def layout(shift: int = 0) -> torch.Tensor:
    """Four quarters; the second and the third look the same."""
    rows, columns = torch.meshgrid(torch.arange(GRID.h) >= 4, torch.arange(GRID.w) >= 6 + shift, indexing="ij")
    return torch.tensor([[0, 1], [1, 2]])[rows.long(), columns.long()]


def features(num_frames: int = 6, noise: float = 0.1) -> Features:
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(3, 16, generator=generator)
    frames = [kinds[layout(frame // 3)].flatten(0, 1) for frame in range(num_frames)]
    queries = torch.stack(frames)
    queries = queries + noise * torch.randn(queries.shape, generator=generator)
    nothing = torch.empty(num_frames, 0)
    return Features(queries, queries, nothing, nothing, GRID, (128, 192))


def grown(config: ClusterConfig, num_frames: int = 6) -> AnchorLabels:
    given = features(num_frames)
    return grow_leaves(gather_tokens(given, config, 0, 14), GRID, config, 1)


def test_what_looks_alike_is_one_region_until_place_tells_it_apart() -> None:
    alike = grown(ClusterConfig(3, num_leaves=24, place=0.0))
    assert len(alike.regions) == 3
    assert alike.cluster_map[0, 11] == alike.cluster_map[7, 0]
    apart = grown(ClusterConfig(4, num_leaves=24, place=0.5))
    quarters = [apart.cluster_map[row, column].item() for row in (1, 6) for column in (1, 10)]
    assert len(set(quarters)) == 4


def test_every_leaf_occurs_in_the_anchor_frame_and_regions_are_unions() -> None:
    anchor = grown(ClusterConfig(5, num_leaves=30))
    leaves = anchor.leaves
    assert set(leaves.maps.unique().tolist()) == set(range(len(leaves.owners)))
    assert torch.equal(torch.tensor(leaves.owners)[leaves.maps], anchor.cluster_map)
    assert [region.label for region in anchor.regions] == list(range(5))


def test_more_regions_than_leaves_asks_for_more_leaves() -> None:
    assert len(grown(ClusterConfig(40, num_leaves=10)).regions) >= 30


def test_a_finer_granularity_cuts_more_regions() -> None:
    given = features()
    config = ClusterConfig(0, num_leaves=40, place=0.0)
    tokens = gather_tokens(given, config, 0, 14)
    anchor = grow_leaves(tokens, GRID, config, 1)
    numbers = [choose_cut(anchor.leaves.tree, anchor.leaves.maps.flatten(), tokens.shown, x / 10) for x in range(11)]
    assert numbers == sorted(numbers)
    assert numbers[0] == 2
    assert len(grow_leaves(tokens, GRID, ClusterConfig(0, num_leaves=40, granularity=0.9), 1).regions) == 3


SETTINGS = replace_parts(
    Settings(), cluster={"num_clusters": 4, "num_leaves": 24, "num_restarts": 2}, window={"length": 3}
)


def test_a_scan_of_leaves_can_be_cut_anew() -> None:
    given = features()
    four = segment_coarse(given, label_anchor(given, SETTINGS), SETTINGS)
    fewer = replace_parts(SETTINGS, cluster={"num_clusters": 2})
    assert torch.equal(cut_regions(four, 2).maps, segment_coarse(given, label_anchor(given, fewer), fewer).maps)
    assert torch.equal(torch.tensor(four.leaves.owners)[four.leaves.maps], four.maps)


def test_a_stored_scan_of_leaves_goes_on(tmp_path) -> None:
    given = features()
    anchor, context, parts = label_anchor(given, SETTINGS), None, []
    whole = segment_coarse(given, anchor, SETTINGS)
    for start in (0, 3):
        scan = CoarseScan(anchor, SETTINGS, context)
        parts.append(scan.step(given.window(start, start + 3)))
        (tmp_path / "state").write_bytes(ScanState(1, scan.anchor_labels, scan.context).to_bytes())
        state = ScanState.load(tmp_path / "state", SETTINGS.context)
        anchor, context = state.anchor_labels, state.context
    assert torch.equal(torch.cat([part.leaves.maps for part in parts]), whole.leaves.maps)
    assert anchor.leaves.tree == whole.leaves.tree


@pytest.mark.parametrize("named", ["leaves", "regions"])
def test_a_mask_names_leaves_or_regions(named: str) -> None:
    given = features()
    reference = torch.zeros(128, 192, dtype=torch.uint8)
    reference[:40, :60] = 7
    settings = replace_parts(SETTINGS, cluster={"num_clusters": 1, "named": named})
    anchor = label_anchor(given, settings, reference)
    assert torch.equal(torch.tensor(anchor.leaves.owners)[anchor.leaves.maps], anchor.cluster_map)
    assert [region.label for region in anchor.regions] == ([0, 7] if named == "leaves" else [0])
