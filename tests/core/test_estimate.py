"""The estimate counts the calls that a run makes."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest
import torch
from vidseg.core import estimate
from vidseg.core.backbones.diffusers_denoiser import DiffusersDenoiser
from vidseg.core.backbones.diffusers_unet import DiffusersBackbone, load_diffusers
from vidseg.core.config import Settings, changed
from vidseg.core.estimate import UnitCosts, announce, frame_seconds, measure_costs, stage_shares
from vidseg.core.pipeline import extract_features
from vidseg.core.progress import RunProgress
from vidseg.core.quality import QUALITIES, at_quality
from vidseg.core.types import CoarseMaps, Region
from vidseg.core.upsampling import upsample

from .backbones.narrow_models import narrow_model
from .test_progress import Recorder

NUM_LABELS = 4


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> DiffusersBackbone:
    return load_diffusers(narrow_model(tmp_path_factory.mktemp("model") / "narrow.safetensors"), device="cpu")


def counted(backbone: DiffusersBackbone, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> UnitCosts:
    """Return how often each part ran for one frame, in whole calls."""
    calls = {"encode": 0.0, "predict": 0.0, "decode": 0.0}

    def count(owner: type, name: str, part: str, share: Any) -> None:
        original = getattr(owner, name)

        def call(self: Any, values: torch.Tensor, *rest: Any, **options: Any) -> Any:
            calls[part] += len(values) * (share(rest) if callable(share) else share)
            return original(self, values, *rest, **options)

        monkeypatch.setattr(owner, name, call)

    count(DiffusersBackbone, "encode", "encode", 1)
    count(DiffusersBackbone, "decode", "decode", 1)
    count(DiffusersDenoiser, "predict", "predict", 1)
    count(DiffusersDenoiser, "queries", "predict", estimate.QUERY_SHARE)
    count(DiffusersDenoiser, "replay", "predict", lambda rest: 1 if rest[3] is None else estimate.TAIL_SHARE)
    features = extract_features(backbone, torch.rand(1, 64, 128, 3), settings)
    maps = (torch.arange(8) // 2).expand(1, 4, 8)
    upsample(backbone, features, CoarseMaps(maps, tuple(Region(i, str(i)) for i in range(4))), settings)
    return UnitCosts(**calls)


@pytest.mark.parametrize("quality", [name for name in QUALITIES if name != "balanced"])
def test_equals_the_calls_that_are_made(
    backbone: DiffusersBackbone, monkeypatch: pytest.MonkeyPatch, quality: str
) -> None:
    settings = at_quality(Settings(), quality)
    made = counted(backbone, settings, monkeypatch)
    for unit in UnitCosts(1, 0, 0), UnitCosts(0, 1, 0), UnitCosts(0, 0, 1):
        expected = sum(cost * calls for cost, calls in zip(unit, made, strict=True))
        assert frame_seconds(unit, settings, NUM_LABELS) == pytest.approx(expected)


def test_each_quality_is_estimated_cheaper_than_the_one_before() -> None:
    seconds = [frame_seconds(UnitCosts(0.7, 1.0, 1.5), at_quality(Settings(), name), 20) for name in QUALITIES]
    assert seconds == sorted(seconds, reverse=True)
    assert len(set(seconds)) == len(QUALITIES)


def test_costs_are_measured_on_frames_of_the_size_and_announced(backbone: DiffusersBackbone) -> None:
    costs = measure_costs(backbone, (64, 128), Settings())
    assert min(costs) > 0
    assert measure_costs(backbone, (64, 128), at_quality(Settings(), "fast")).decode == 0
    display = Recorder()
    announce(RunProgress(display), backbone, changed(Settings(), cluster={"num_clusters": 3}), (64, 128), 9)
    (shown,) = display.shown
    assert shown[1].startswith("about ")
    assert shown[1].endswith("for 9 frames at most, with 3 regions in each (exact)")


def test_stages_follow_the_settings() -> None:
    assert set(stage_shares(Settings())) == {"features", "modulation", "decoding"}
    assert set(stage_shares(at_quality(Settings(), "draft"))) == {"features", "upsampling"}
    assert set(stage_shares(changed(Settings(), modulation={"enabled": False}))) == {"features"}


def test_doctests(tmp_path: Path) -> None:
    assert doctest.testmod(estimate).failed == 0
