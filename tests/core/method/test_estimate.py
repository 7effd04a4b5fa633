"""The estimate counts the calls that a run makes."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from vidseg.core.backbones.diffusers.backbone import DiffusersBackbone
from vidseg.core.backbones.diffusers.denoiser import DiffusersDenoiser
from vidseg.core.backbones.diffusers.svd_backbone import DiffusersSvdBackbone
from vidseg.core.backbones.diffusers.svd_denoiser import SvdDenoiser
from vidseg.core.config.settings import QUALITIES, Settings, preset, replace_parts, with_quality
from vidseg.core.method import estimate
from vidseg.core.method.estimate import (
    UnitCosts,
    announce,
    estimate_frame_seconds,
    estimate_run_seconds,
    expect_stage_shares,
    measure_costs,
)
from vidseg.core.method.features import extract_features, extract_window_features
from vidseg.core.method.frames import read_fitted
from vidseg.core.method.upsampling import upsample
from vidseg.core.method.windows import split_spans
from vidseg.core.progress import RunProgress
from vidseg.core.types import LabelMaps, Region

from ..test_progress import Recorder

NUM_LABELS = 3
VIDEO = replace_parts(preset("default", "svd"), window={"length": 2}, video={"frames": 2}, modulation={"step": 23})
VIDEO_FRAMES = 5
"""Windows of frames 0-1, 2-3, and 3-4, of which 3 is finished."""


@pytest.fixture(scope="module")
def video_backbone(thin_svd_backbone: DiffusersSvdBackbone) -> DiffusersSvdBackbone:
    return thin_svd_backbone


@pytest.fixture(scope="module")
def backbone(thin_backbone: DiffusersBackbone) -> DiffusersBackbone:
    return thin_backbone


class Clip(NamedTuple):
    """A `FrameSource`."""

    frames: torch.Tensor

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    def read(self, start: int, stop: int) -> torch.Tensor:
        return self.frames[start:stop]


class Calls:
    """Counts calls of parts of a model by the number of frames, a part of a call by its share."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.made = {"encode": 0.0, "predict": 0.0, "decode": 0.0, "condition": 0.0}

    def count(self, owner: type, name: str, part: str, share: Any = 1) -> None:
        original = getattr(owner, name)

        def call(owned: Any, values: torch.Tensor, *rest: Any, **options: Any) -> Any:
            number = 1 if part == "condition" else len(values)
            self.made[part] += number * (share(rest) if callable(share) else share)
            return original(owned, values, *rest, **options)

        self._monkeypatch.setattr(owner, name, call)

    def count_model(
        self, backbone: type, denoiser: type, query_share: float, tail_share: float, replay_share: float
    ) -> None:
        self.count(backbone, "encode", "encode")
        self.count(backbone, "decode", "decode")
        self.count(denoiser, "predict", "predict")
        self.count(denoiser, "queries", "predict", query_share)
        self.count(denoiser, "replay", "predict", lambda rest: replay_share if rest[3] is None else tail_share)


def coarse(count: int, width: int = 8) -> LabelMaps:
    maps = (3 * torch.arange(width) // width).expand(count, 4, width)
    return LabelMaps(maps, tuple(Region(index, str(index)) for index in range(NUM_LABELS)))


def counted(backbone: DiffusersBackbone, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> UnitCosts:
    """Return how often each part ran for one frame, in whole calls."""
    calls = Calls(monkeypatch)
    shares = estimate.QUERY_SHARE, estimate.TAIL_SHARE, estimate.REPLAY_SHARE
    calls.count_model(DiffusersBackbone, DiffusersDenoiser, *shares)
    features = extract_features(backbone, torch.rand(1, 64, 128, 3), settings)
    upsample(backbone, features, coarse(1), settings)
    return UnitCosts(**calls.made)


@pytest.mark.parametrize("quality", [name for name in QUALITIES if name != "balanced"])
def test_equals_the_calls_that_are_made(
    backbone: DiffusersBackbone, monkeypatch: pytest.MonkeyPatch, quality: str
) -> None:
    settings = with_quality(Settings(), quality)
    made = counted(backbone, settings, monkeypatch)
    for unit in UnitCosts(1, 0, 0), UnitCosts(0, 1, 0), UnitCosts(0, 0, 1):
        expected = sum(cost * calls for cost, calls in zip(unit, made, strict=True))
        assert estimate_frame_seconds(unit, settings, NUM_LABELS) == pytest.approx(expected)


@pytest.mark.parametrize("quality", ["exact", "balanced", "draft"])
def test_windows_of_a_video_model_are_counted_whole(
    video_backbone: DiffusersSvdBackbone, monkeypatch: pytest.MonkeyPatch, quality: str
) -> None:
    settings = with_quality(VIDEO, quality)
    calls = Calls(monkeypatch)
    shares = estimate.VIDEO_QUERY_SHARE, estimate.VIDEO_TAIL_SHARE, estimate.VIDEO_REPLAY_SHARE
    calls.count_model(DiffusersSvdBackbone, SvdDenoiser, *shares)
    calls.count(DiffusersSvdBackbone, "condition", "condition")
    clip, sums = Clip(torch.rand(VIDEO_FRAMES, 64, 64, 3)), []
    for span in split_spans(VIDEO_FRAMES, settings):
        features = extract_window_features(video_backbone, read_fitted(clip, span.frames, settings), span, settings)
        upsample(video_backbone, features, coarse(len(span.kept), 4), settings)
        # The narrow file encodes the conditioning frame with the same autoencoder.
        sums.append({**calls.made, "encode": calls.made["encode"] - calls.made["condition"]})
    for part, number in sums[-1].items():
        unit = UnitCosts(**{name: float(name == part) for name in UnitCosts._fields})
        assert estimate_run_seconds(unit, settings, NUM_LABELS, VIDEO_FRAMES) == pytest.approx(number)
        rest = estimate_run_seconds(unit, settings, NUM_LABELS, VIDEO_FRAMES, 2)  # continued behind the first window
        assert rest == pytest.approx(number - sums[0][part])


def test_video_models_are_timed_in_whole_windows_where_they_are_fast(
    video_backbone: DiffusersSvdBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []
    predict = SvdDenoiser.predict

    def spy(denoiser: SvdDenoiser, latents: torch.Tensor, sigma: float) -> Any:
        lengths.append(len(latents))
        return predict(denoiser, latents, sigma)

    monkeypatch.setattr(SvdDenoiser, "predict", spy)
    monkeypatch.setattr(estimate, "SLOW_CALL", float("inf"))
    display = Recorder()
    announce(RunProgress(display), video_backbone, VIDEO, (64, 128), VIDEO_FRAMES, 2)
    (shown,) = display.shown
    assert shown[1].startswith("about ")
    assert shown[1].endswith("for 3 frames at most, with 20 regions in each (exact)")
    assert lengths == [1, 1, 2, 2]
    monkeypatch.setattr(estimate, "SLOW_CALL", 0.0)  # as on a slow device
    costs = measure_costs(video_backbone, (64, 128), VIDEO)
    assert lengths[4:] == [1, 1]
    assert costs.read == 0, "a model that makes pictures reads no patches"
    assert min(costs.encode, costs.predict, costs.decode, costs.condition) > 0


@pytest.mark.parametrize("quality", QUALITIES)
def test_only_calls_that_the_quality_makes_are_timed(
    backbone: DiffusersBackbone, monkeypatch: pytest.MonkeyPatch, quality: str
) -> None:
    settings = with_quality(Settings(), quality)
    made = counted(backbone, settings, monkeypatch)
    calls = Calls(monkeypatch)
    calls.count_model(DiffusersBackbone, DiffusersDenoiser, 0, 0, 0)
    costs = measure_costs(backbone, (64, 128), settings)
    assert bool(calls.made["predict"]) == bool(made.predict // 1)
    assert bool(calls.made["decode"]) == bool(made.decode)
    assert estimate_frame_seconds(costs, settings, NUM_LABELS) > 0


def test_each_quality_is_estimated_cheaper_than_the_one_before_but_draft_which_asks_the_same_of_the_model() -> None:
    seconds = [
        estimate_frame_seconds(UnitCosts(0.7, 1.0, 1.5), with_quality(Settings(), name), 20) for name in QUALITIES
    ]
    assert seconds == sorted(seconds, reverse=True)
    assert len(set(seconds)) == len(QUALITIES) - 1


def test_costs_are_measured_on_frames_of_the_size_and_announced(backbone: DiffusersBackbone) -> None:
    costs = measure_costs(backbone, (64, 128), Settings())
    assert min(costs[:3]) > 0
    assert costs.condition == 0
    assert measure_costs(backbone, (64, 128), with_quality(Settings(), "fast")).decode == 0
    display = Recorder()
    announce(RunProgress(display), backbone, replace_parts(Settings(), cluster={"num_clusters": 3}), (64, 128), 9)
    (shown,) = display.shown
    assert shown[1].startswith("about ")
    assert shown[1].endswith("for 9 frames at most, with 3 regions in each (exact)")


def test_tiles_are_counted_measured_and_announced(backbone: DiffusersBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.of(quality="fast", num_clusters=3, tiles=128, noise="frame")
    display = Recorder()
    announce(RunProgress(display), backbone, settings, (64, 192), 9)
    assert display.shown[0][1].endswith("for 9 frames of 2 tiles at most, with 3 regions in each (fast)")
    costs = measure_costs(backbone, (64, 192), settings)
    assert (costs.predict, costs.tiles) == (0, 2)
    assert costs.tiled > 0
    calls = Calls(monkeypatch)
    calls.count_model(DiffusersBackbone, DiffusersDenoiser, estimate.QUERY_SHARE, 1, 1)
    extract_features(backbone, torch.rand(1, 64, 192, 3), settings)
    one_second = UnitCosts(0, 0, 0, tiled=2, tiles=2)  # for each tile
    assert estimate_frame_seconds(one_second, settings, NUM_LABELS) == pytest.approx(calls.made["predict"])


def test_stages_follow_the_settings() -> None:
    assert set(expect_stage_shares(Settings())) == {"features", "modulation", "decoding"}
    assert set(expect_stage_shares(with_quality(Settings(), "draft"))) == {"features", "upsampling"}
    assert set(expect_stage_shares(replace_parts(Settings(), modulation={"enabled": False}))) == {"features"}


def test_doctests(tmp_path: Path) -> None:
    assert doctest.testmod(estimate).failed == 0
