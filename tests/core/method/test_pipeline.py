"""The order of stages: same labels every time, however the work is cut, and after an interruption."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from vidseg.core.backbones.diffusers.backbone import DiffusersBackbone
from vidseg.core.backbones.diffusers.denoiser import DiffusersDenoiser
from vidseg.core.config.parts import Variant
from vidseg.core.config.settings import QUALITIES, Settings, preset, replace_parts, with_quality
from vidseg.core.method import upsampling
from vidseg.core.method.features import extract_features
from vidseg.core.method.pipeline import ScanState, WindowResult, label_anchor, segment, segment_windows
from vidseg.core.method.upsampling import upsample
from vidseg.core.types import InputError, InterruptedByUserError, LabelMaps, Region

SETTINGS = replace_parts(
    Settings(), cluster={"num_clusters": 3, "num_restarts": 1}, window={"length": 2}, modulation={"step": 23}
)


class Frames:
    """Squares that move over a slope; counts how often a frame is read."""

    def __init__(self, num_frames: int = 5) -> None:
        self.num_frames = num_frames
        self.read_frames: list[int] = []

    def read(self, start: int, stop: int) -> Tensor:
        self.read_frames += range(start, stop)
        frames = torch.linspace(0, 1, 100).repeat(70, 1)[None, :, :, None].repeat(self.num_frames, 1, 1, 3)
        for number, frame in enumerate(frames):
            frame[10:40, 10 + 5 * number : 40 + 5 * number] = torch.tensor([0.9, 0.2, 0.1])
        return frames[start:stop]


@pytest.fixture(scope="module")
def backbone(thin_backbone: DiffusersBackbone) -> DiffusersBackbone:
    return thin_backbone


@pytest.fixture(scope="module")
def source() -> Frames:
    return Frames()


@pytest.fixture(scope="module")
def results(backbone: DiffusersBackbone, source: Frames) -> list[WindowResult]:
    return list(segment_windows(backbone, source, SETTINGS))


@pytest.fixture(scope="module")
def whole(results: list[WindowResult]) -> Tensor:
    return torch.cat([result.labels.maps for result in results])


def test_labels_have_the_size_of_the_frames_and_each_frame_is_read_once(
    source: Frames, results: list[WindowResult], whole: Tensor
) -> None:
    assert whole.shape == (5, 70, 100)
    assert whole.dtype == torch.uint8
    assert source.read_frames == [0, 1, 2, 3, 4]
    for result in results:
        assert set(result.labels.maps.unique().tolist()) <= {region.label for region in result.labels.regions}


def test_same_labels_in_one_go_with_other_batch_sizes(
    backbone: DiffusersBackbone, whole: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one(_self: DiffusersBackbone, _shape: Sequence[int]) -> int:
        return 1

    monkeypatch.setattr(DiffusersBackbone, "batch_size", one)
    monkeypatch.setattr(upsampling, "_count_together", lambda _device: 3)
    labels = segment(backbone, Frames(), SETTINGS)
    assert torch.equal(labels.maps, whole)
    assert set(labels.maps.unique().tolist()) <= {region.label for region in labels.regions}


def test_same_labels_after_an_interruption(
    backbone: DiffusersBackbone, results: list[WindowResult], whole: Tensor, tmp_path: Path
) -> None:
    (tmp_path / "state.safetensors").write_bytes(results[0].state.to_bytes())
    state = ScanState.load(tmp_path / "state.safetensors", SETTINGS.context)
    rest = list(segment_windows(backbone, Frames(), SETTINGS, state=state))
    assert [result.frames for result in rest] == [range(2, 4), range(4, 5)]
    assert torch.equal(torch.cat([result.labels.maps for result in rest]), whole[2:])


def test_regions_found_on_the_way_are_there_in_one_go_and_after_an_interruption(
    backbone: DiffusersBackbone, tmp_path: Path
) -> None:
    """The features of the small random model are so unlike each other that every frame is a cut."""
    settings = replace_parts(SETTINGS, scene={"cuts": True, "new_regions": True}, modulation={"enabled": False})
    whole = list(segment_windows(backbone, Frames(), settings))
    found = [result.labels.regions for result in whole]
    assert 3 < len(found[0]) < len(found[1]) < len(found[2])
    for result in whole:
        assert set(result.labels.maps.unique().tolist()) <= {region.label for region in result.labels.regions}
    assert segment(backbone, Frames(), settings).regions == found[2]
    (tmp_path / "state.safetensors").write_bytes(whole[0].state.to_bytes())
    state = ScanState.load(tmp_path / "state.safetensors", settings.context)
    for again, result in zip(segment_windows(backbone, Frames(), settings, state=state), whole[1:], strict=True):
        assert again.labels.regions == result.labels.regions
        assert torch.equal(again.labels.maps, result.labels.maps)


def at(quality: str) -> Settings:
    return with_quality(replace_parts(SETTINGS, modulation={"step": 22}), quality)


@pytest.mark.parametrize("quality", list(QUALITIES)[1:])
def test_each_quality_is_complete_and_repeatable(
    backbone: DiffusersBackbone, quality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = segment(backbone, Frames(3), at(quality)).maps
    assert labels.shape == (3, 70, 100)
    assert len(labels.unique()) > 1
    monkeypatch.setattr(DiffusersBackbone, "batch_size", lambda _self, _shape: 1)
    assert torch.equal(segment(backbone, Frames(3), at(quality)).maps, labels)


def test_qualities_cost_less_and_less(backbone: DiffusersBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, int] = {}

    def counted(name: str) -> None:
        original = getattr(DiffusersDenoiser, name)

        def call(self: DiffusersDenoiser, latents: Tensor, *arguments: Any, **options: Any) -> Any:
            calls[quality] = calls.get(quality, 0) + len(latents)
            return original(self, latents, *arguments, **options)

        monkeypatch.setattr(DiffusersDenoiser, name, call)

    for name in ("predict", "replay", "queries"):
        counted(name)
    for quality in QUALITIES:
        segment(backbone, Frames(1), at(quality))
    assert [calls["fast"], calls["draft"]] == [1, 1]  # the queries
    assert calls["exact"] > calls["balanced"] > calls["fast"]


def test_an_unknown_quality_is_refused_and_coarse_regions_stay_coarse() -> None:
    with pytest.raises(InputError, match="must be one of exact, balanced, fast, draft"):
        with_quality(SETTINGS, "best")
    coarse = replace_parts(SETTINGS, modulation={"enabled": False})
    assert with_quality(coarse, "balanced").modulation == coarse.modulation
    with pytest.raises(InputError, match="must be off with the published"):
        with_quality(preset("reference"), "balanced")


def test_guided_upsampling_needs_the_pictures(backbone: DiffusersBackbone) -> None:
    features = extract_features(backbone, Frames(1).read(0, 1), at("fast"))
    coarse = LabelMaps(torch.zeros(1, *features.grid, dtype=torch.int64), (Region(0, "region 0"),))
    assert int(upsample(backbone, features, coarse, at("fast")).maps.max()) == 0
    with pytest.raises(InputError, match="must hold the pictures"):
        upsample(backbone, features._replace(pictures=None), coarse, at("fast"))


@pytest.mark.parametrize("variant", ["paper", "published"])
def test_a_decode_that_is_not_a_number_stops_the_run(
    backbone: DiffusersBackbone, monkeypatch: pytest.MonkeyPatch, variant: Variant
) -> None:
    def broken(self: DiffusersBackbone, latents: Tensor) -> Tensor:
        pictures = decode(self, latents)
        pictures[0, 20, 20, 0] = torch.nan
        return pictures

    decode = DiffusersBackbone.decode
    monkeypatch.setattr(DiffusersBackbone, "decode", broken)
    with pytest.raises(InputError, match=r"`modulated pictures` must be finite, .*`dtype`"):
        segment(backbone, Frames(1), replace(SETTINGS, variant=variant))


def test_a_progress_callback_can_stop_the_run(backbone: DiffusersBackbone) -> None:
    stages = []

    def stop(stage: str, done: int, total: int) -> None:
        assert 0 < done <= total
        stages.append(stage)
        if stage == "decoding":
            raise InterruptedByUserError

    with pytest.raises(InterruptedByUserError):
        segment(backbone, Frames(1), SETTINGS, progress=stop)
    assert stages[0] == "features"
    assert stages[-1] == "decoding"


def test_features_do_not_depend_on_the_other_frames(backbone: DiffusersBackbone) -> None:
    frames = Frames(3).read(0, 3)
    together = extract_features(backbone, frames, SETTINGS)
    alone = extract_features(backbone, frames[2:], SETTINGS, first_frame=2)
    assert torch.equal(together.queries[2:], alone.queries)
    assert torch.equal(together.noise[2:], alone.noise)


def test_a_reference_names_the_clusters(backbone: DiffusersBackbone) -> None:
    features = extract_features(backbone, Frames(1).read(0, 1), SETTINGS)
    reference = torch.full((70, 100), 9, dtype=torch.uint8)
    anchor_labels = label_anchor(features, SETTINGS, reference)
    assert [region.label for region in anchor_labels.regions] == [9]


def test_no_frames_are_refused(backbone: DiffusersBackbone) -> None:
    with pytest.raises(InputError, match="at least one frame"):
        segment(backbone, Frames(0), SETTINGS)


@pytest.mark.parametrize("content", [b"", b"no state at all", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_broken_state_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="must be the state of a run"):
        ScanState.load(path, SETTINGS.context)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell the size of a process here")
def test_nothing_grows_over_ten_runs(backbone: DiffusersBackbone) -> None:
    def resident_mib() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    settings = with_quality(replace_parts(SETTINGS, modulation={"step": 24}), "balanced")
    sizes = []
    for _ in range(10):
        segment(backbone, Frames(1), settings)
        sizes.append(resident_mib())
    assert sizes[-1] - sizes[2] < 16, sizes  # seven more models would take more than that
