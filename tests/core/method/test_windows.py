"""A video model through the pipeline: whole windows, the same labels however the work is cut, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from vidseg.core.backbones.protocol import Backbone
from vidseg.core.config.settings import Settings, preset, replace_parts, with_quality
from vidseg.core.method import upsampling
from vidseg.core.method.coarse import segment_coarse
from vidseg.core.method.features import extract_features
from vidseg.core.method.modulation import UnitJob
from vidseg.core.method.pipeline import ScanState, WindowResult, label_anchor, segment, segment_windows
from vidseg.core.method.upsampling import upsample
from vidseg.core.method.windows import split_spans
from vidseg.core.types import InputError, InterruptedByUserError

from .test_pipeline import Frames

SETTINGS = replace_parts(
    preset("default", "svd"),
    cluster={"num_clusters": 2, "num_restarts": 1},
    window={"length": 3},
    video={"frames": 3},
    modulation={"step": 23},
)


@pytest.fixture(scope="module")
def backbone(thin_svd_backbone: Backbone) -> Backbone:
    return thin_svd_backbone


class Watched(NamedTuple):
    """A run: its results, the frames in which it modulated each region by window, progress of the first window."""

    results: list[WindowResult]
    modulated: list[list[list[bool]]]
    calls: list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def watched(backbone: Backbone) -> Watched:
    modulated, calls = [], []
    original = upsampling.modulate

    def spy(denoiser: object, start: object, jobs: Sequence[UnitJob], *rest: object) -> object:
        modulated.append([job.job.mask.flatten(1).any(1).tolist() for job in jobs])
        return original(denoiser, start, jobs, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upsampling, "modulate", spy)
        run = segment_windows(backbone, Frames(5), SETTINGS, progress=lambda *call: calls.append(call))
        first, told = next(run), len(calls)
        return Watched([first, *run], modulated, calls[:told])


@pytest.fixture(scope="module")
def results(watched: Watched) -> list[WindowResult]:
    return watched.results


@pytest.fixture(scope="module")
def whole(results: list[WindowResult]) -> Tensor:
    return torch.cat([result.labels.maps for result in results])


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [(3, [(0, 0, 3)]), (2, [(0, 0, 2)]), (5, [(0, 0, 3), (2, 3, 5)]), (6, [(0, 0, 3), (3, 3, 6)])],
)
def test_a_short_tail_is_seen_in_a_whole_window(num_frames: int, expected: list[tuple[int, int, int]]) -> None:
    found = split_spans(num_frames, SETTINGS)
    assert [(span.frames.start, span.kept.start, span.kept.stop) for span in found] == expected
    assert [span.num_finished for span in found] == [kept - start for start, kept, _ in expected]


def test_the_reference_overwrites_instead() -> None:
    found = split_spans(20, preset("reference", "svd"))
    assert [(span.frames, span.kept) for span in found] == [(range(14), range(14)), (range(6, 20), range(6, 20))]


def test_finished_frames_are_kept_and_not_overwritten(results: list[WindowResult], whole: Tensor) -> None:
    assert [result.frames for result in results] == [range(3), range(3, 5)]
    assert [len(result.labels.maps) for result in results] == [3, 2]
    assert whole.shape == (5, 70, 100)
    assert len(whole.unique()) > 1


def test_stage_by_stage_gives_the_same_as_the_stream(backbone: Backbone, whole: Tensor) -> None:
    features = extract_features(backbone, Frames(5).read(0, 5), SETTINGS)
    assert [(window.start, window.stop, window.first_kept) for window in features.video] == [(0, 3, 0), (2, 5, 3)]
    anchor_labels = label_anchor(features, SETTINGS)
    coarse = segment_coarse(features, anchor_labels, SETTINGS)
    assert torch.equal(upsample(backbone, features, coarse, SETTINGS).maps, whole)


def test_same_labels_after_an_interruption(
    backbone: Backbone, results: list[WindowResult], whole: Tensor, tmp_path: Path
) -> None:
    (tmp_path / "state.safetensors").write_bytes(results[0].state.to_bytes())
    state = ScanState.load(tmp_path / "state.safetensors", SETTINGS.context)
    (rest,) = segment_windows(backbone, Frames(5), SETTINGS, state=state)
    assert torch.equal(rest.labels.maps, whole[3:])


def test_coarse_labels_and_one_step_work_too(backbone: Backbone, whole: Tensor) -> None:
    fast = segment(backbone, Frames(5), with_quality(SETTINGS, "fast")).maps
    balanced = segment(backbone, Frames(3), with_quality(SETTINGS, "balanced")).maps
    assert fast.shape == whole.shape
    assert float((balanced == whole[:3]).float().mean()) > 0.5


def test_windows_of_the_scene_context_may_be_shorter(backbone: Backbone) -> None:
    settings = replace_parts(with_quality(SETTINGS, "fast"), window={"length": 1})
    results = list(segment_windows(backbone, Frames(4), settings))
    assert [result.frames for result in results] == [range(3), range(3, 4)]
    with pytest.raises(InputError, match=r"must divide the 3 frames"):
        segment(backbone, Frames(4), replace_parts(settings, window={"length": 2}))


def test_a_region_is_not_modulated_in_finished_frames(watched: Watched) -> None:
    assert len(watched.modulated) == 2
    assert all(not frames[0] for frames in watched.modulated[1])
    assert any(any(frames[1:]) for frames in watched.modulated[1])


def test_a_progress_callback_sees_every_step_and_can_stop(backbone: Backbone, watched: Watched) -> None:
    for stage in ("features", "modulation", "decoding"):
        done = [(done, total) for name, done, total in watched.calls if name == stage]
        assert len(done) > 1
        assert [value for value, _ in done] == sorted(value for value, _ in done)
        assert done[-1][0] == done[-1][1]

    def stop(stage: str, _done: int, _total: int) -> None:
        if stage == "modulation":
            raise InterruptedByUserError

    with pytest.raises(InterruptedByUserError):
        segment(backbone, Frames(3), SETTINGS, progress=stop)


def test_settings_and_features_of_the_other_kind_are_refused(backbone: Backbone, thin_backbone: Backbone) -> None:
    frames = Frames(3).read(0, 3)
    with pytest.raises(InputError, match=r"`video\.frames` must be 1 or more"):
        extract_features(backbone, frames, Settings())
    image = thin_backbone
    with pytest.raises(InputError, match=r"`video\.frames` must be 0"):
        extract_features(image, frames, SETTINGS)
    features = extract_features(image, frames, replace_parts(Settings(), modulation={"step": 24}))
    coarse = segment_coarse(features, label_anchor(features, SETTINGS), SETTINGS)
    with pytest.raises(InputError, match="a video model, but got those of an image model"):
        upsample(backbone, features, coarse, SETTINGS)
    with pytest.raises(InputError, match=r"`modulation\.shared`"):
        replace_parts(SETTINGS, modulation={"shared": True})
