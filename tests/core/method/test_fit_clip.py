"""Leaves fitted on frames of the whole clip: what comes later is a region, with a name of its own or its likes'."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from vidseg.core.backbones.diffusers.backbone import DiffusersBackbone
from vidseg.core.backbones.diffusers.svd_backbone import DiffusersSvdBackbone
from vidseg.core.config.parts import ClusterConfig, WindowConfig
from vidseg.core.config.settings import Settings, preset, replace_parts
from vidseg.core.leaves import Leaves, MergeTree
from vidseg.core.method.coarse import segment_coarse
from vidseg.core.method.estimate import UnitCosts, estimate_run_seconds
from vidseg.core.method.features import extract_features
from vidseg.core.method.frames import HeldFrames
from vidseg.core.method.pipeline import ScanState, label_anchor, segment, segment_windows
from vidseg.core.method.windows import spread_frames
from vidseg.core.regions.cutting import cut_regions
from vidseg.core.regions.labels import name_anchor
from vidseg.core.types import AnchorLabels, Features, Grid, InputError, Region

GRID = Grid(6, 8)
ENTERS = 6
"""Frame with which the third kind of cells comes in."""


def settings(**cluster: object) -> Settings:
    given = {"fit_frames": "clip", "num_clusters": 3, "num_leaves": 12, "place": 0.1, **cluster}
    return replace_parts(Settings(), cluster=given, window={"length": 3})


def features(num_frames: int = 9) -> Features:
    """Two halves, and a square of something else that enters late."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(3, 16, generator=generator)
    layout = (torch.arange(GRID.w) >= 4).long().expand(GRID).repeat(num_frames, 1, 1)
    layout[ENTERS:, 1:4, 5:8] = 2
    queries = kinds[layout.flatten(1)] + 0.05 * torch.randn(num_frames, GRID.num_tokens, 16, generator=generator)
    nothing = torch.empty(num_frames, 0)
    return Features(queries, queries, nothing, nothing, GRID, (96, 128))


def reference(right: int = 1) -> Tensor:
    labels = torch.zeros(96, 128, dtype=torch.uint8)
    labels[:, 64:] = right
    return labels


@pytest.mark.parametrize("memory", ["previous", "anchor+previous"])
def test_what_enters_later_is_a_region_of_its_own(memory: str) -> None:
    given, used = features(), replace_parts(settings(), context={"memory": memory})
    maps = segment_coarse(given, label_anchor(given, used), used).maps
    came = int(maps[ENTERS, 2, 6])
    assert (maps[:ENTERS] != came).all()
    assert (maps[ENTERS:, 1:4, 5:8] == came).all()
    assert int((maps[ENTERS:] == came).sum()) == 3 * 9
    before = replace_parts(used, cluster={"fit_frames": "window"})
    blind = segment_coarse(given, label_anchor(given, before), before).maps
    assert set(blind[ENTERS, 1:4, 5:8].unique().tolist()) <= set(blind[0].unique().tolist())


@pytest.mark.parametrize("named", ["leaves", "regions"])
def test_it_keeps_a_name_of_its_own_beside_those_of_a_mask(named: str) -> None:
    given, used = features(), settings(named=named)
    anchor = label_anchor(given, used, reference(right=2))
    labels = segment_coarse(given, anchor, used)
    came = int(labels.maps[ENTERS, 2, 6])
    assert dict(labels.regions) == {0: "label 0", 2: "label 2", came: f"region {came}"}
    assert set(labels.maps[0].unique().tolist()) == {0, 2}


def test_it_is_the_first_to_be_cut_off_where_it_looks_like_nothing_before() -> None:
    given, used = features(), settings(num_clusters=2)
    maps = segment_coarse(given, label_anchor(given, used), used).maps
    assert len(maps[0].unique()) == 1
    assert (maps[ENTERS, 1:4, 5:8] != maps[0, 0, 0]).all()
    alike = replace_parts(used, scene={"new_similarity": -1.0})
    assert len(segment_coarse(given, label_anchor(given, alike), alike).maps[0].unique()) == 2


def test_it_takes_the_name_of_its_region_where_the_cut_has_it_so() -> None:
    given, used = features(), settings(num_clusters=1)
    anchor = label_anchor(given, used, reference())
    assert [region.name for region in anchor.regions] == ["label 0", "label 1"]
    more = cut_regions(segment_coarse(given, anchor, used), 3)
    assert len(set(more.maps[ENTERS].unique().tolist())) == 3


def test_leaves_without_cells_in_the_anchor_frame_are_named_by_the_tree() -> None:
    tree = MergeTree((0, 0, 1, 0, 3), (float("inf"), 4.0, 3.0, 2.0, 1.0))
    maps = torch.tensor([[0, 1]])
    regions = tuple(Region(label, f"region {label}") for label in (0, 1, 2))
    anchor = AnchorLabels(0, maps, regions, Leaves(maps, tree, (0, 1, 2, 0, 0)))
    found = name_anchor(anchor, torch.tensor([[7, 2]], dtype=torch.uint8))
    assert found.leaves is not None
    assert found.leaves.owners == (7, 2, 0, 7, 7)  # the label of region 2 is taken
    assert found.regions == (Region(0, "region 0"), Region(2, "label 2"), Region(7, "label 7"))


def test_frames_are_spread_over_the_clip_with_the_first_among_them() -> None:
    assert spread_frames(3, WindowConfig(14)) == [0, 1, 2]
    assert spread_frames(100, WindowConfig(4)) == [0, 25, 50, 75]


class Counted(HeldFrames):
    """Counts how often frames are read."""

    def __init__(self, frames: Tensor) -> None:
        super().__init__(frames)
        self.seen: list[int] = []

    def read(self, start: int, stop: int) -> Tensor:
        self.seen += range(start, stop)
        return super().read(start, stop)


STREAMED = replace_parts(
    Settings.of(quality="draft"),
    cluster={"fit_frames": "clip", "num_clusters": 4, "num_leaves": 16},
    window={"length": 2},
)


def test_windows_give_what_held_features_give_and_a_run_can_be_continued(
    thin_backbone: DiffusersBackbone, tmp_path: Path
) -> None:
    frames = torch.rand(5, 64, 128, 3, generator=torch.Generator().manual_seed(1))
    frames[3:, :, 64:] *= 0.2
    source = Counted(frames)
    results = list(segment_windows(thin_backbone, source, STREAMED))
    assert source.seen == [0, 2, 0, 1, 2, 3, 4]
    held = extract_features(thin_backbone, frames, STREAMED)
    coarse = segment_coarse(held, label_anchor(held, STREAMED), STREAMED)
    assert torch.equal(torch.cat([result.coarse.maps for result in results]), coarse.maps)
    (tmp_path / "state").write_bytes(results[0].state.to_bytes())
    state = ScanState.load(tmp_path / "state", STREAMED.context)
    rest = list(segment_windows(thin_backbone, source, STREAMED, state=state))
    for again, result in zip(rest, results[1:], strict=True):
        assert torch.equal(again.labels.maps, result.labels.maps)


def test_frames_that_are_read_twice_are_in_the_estimate() -> None:
    costs = UnitCosts(1.0, 0.0, 100.0)
    assert estimate_run_seconds(costs, STREAMED, 4, 5) == 5 + 2
    assert estimate_run_seconds(costs, STREAMED, 4, 5, first=2) == 3


def test_clusters_and_video_models_are_refused(thin_svd_backbone: DiffusersSvdBackbone) -> None:
    with pytest.raises(InputError, match=r"`cluster.fit_frames` must be window or anchor with the method kmeans"):
        ClusterConfig(method="kmeans", fit_frames="clip").check()
    used = replace_parts(preset("default", "svd"), cluster={"fit_frames": "clip"})
    with pytest.raises(InputError, match=r"`cluster.fit_frames` must be window or anchor with a video model"):
        segment(thin_svd_backbone, HeldFrames(torch.rand(2, 64, 64, 3)), used)
