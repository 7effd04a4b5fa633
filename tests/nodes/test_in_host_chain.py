"""The nodes give what the core gives."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import pytest
import torch
from comfy_api.input_impl import VideoFromComponents, VideoFromFile
from comfy_api.util import VideoComponents
from torch import Tensor
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.backbones.protocol import Backbone
from vidseg.core.config.settings import preset, replace_parts, with_quality
from vidseg.core.files.clip import open_clip
from vidseg.core.files.video import write_video
from vidseg.core.method.features import extract_features
from vidseg.core.method.frames import HeldFrames
from vidseg.core.method.pipeline import segment
from vidseg.core.types import Features, Grid, InputError, Region
from vidseg.nodes.demo_model import LoadedModel
from vidseg.nodes.host import progress
from vidseg.nodes.host.frames import draw_beside, draw_tags, fit_legend
from vidseg.nodes.host.labels import Labels

from .graphs import call, coarse_labels, wired

SETTINGS = replace_parts(preset("default"), cluster={"num_clusters": 3}, window={"length": 2})


@pytest.fixture(scope="module")
def program(model_file: Path) -> Backbone:
    """The same model without the host."""
    return load_diffusers(model_file, device="cpu")


@pytest.fixture(scope="module")
def headless(program: Backbone, frames: Tensor) -> Tensor:
    return segment(program, HeldFrames(frames), SETTINGS).maps


def test_chain_equals_the_core_without_the_host(full: Labels, headless: Tensor) -> None:
    assert torch.equal(full.maps, headless)
    assert full.maps.dtype == torch.uint8
    assert not full.is_coarse


def test_one_box_equals_the_chain(loaded: LoadedModel, frames: Tensor, full: Labels) -> None:
    whole = call("SegmentVideo", **wired(loaded), frames=frames, num_clusters=3, window_length=2)
    assert torch.equal(whole.maps, full.maps)
    assert whole.regions == full.regions


@pytest.mark.parametrize("quality", ["balanced", "fast", "draft"])
def test_qualities_equal_the_core(loaded: LoadedModel, program: Backbone, frames: Tensor, quality: str) -> None:
    settings = with_quality(SETTINGS, quality)
    expected = segment(program, HeldFrames(frames), settings).maps
    whole = call("SegmentVideo", **wired(loaded), frames=frames, num_clusters=3, window_length=2, quality=quality)
    assert float((whole.maps == expected).float().mean()) > 0.9999


def test_tiles_equal_the_core(loaded: LoadedModel, program: Backbone, frames: Tensor) -> None:
    settings, wide = replace_parts(SETTINGS, frame={"tiles": 128}), torch.cat([frames, frames.flip(2)], 2)
    expected = extract_features(program, wide, settings)
    found = call("ExtractDiffusionFeatures", **wired(loaded), frames=wide, tiles=128)
    assert torch.allclose(found.queries, expected.queries, atol=1e-5)
    assert not torch.allclose(found.queries, call("ExtractDiffusionFeatures", **wired(loaded), frames=wide).queries)
    with pytest.raises(InputError, match="`tiles` must be 0 or at least 128, but got 64"):
        call("SegmentVideo", **wired(loaded), frames=wide, tiles=64)


def test_the_last_stage_takes_a_quality(loaded: LoadedModel, features: Features, frames: Tensor) -> None:
    labels = coarse_labels(features)
    fast = call("MaskedModulationUpsample", **wired(loaded), features=features, labels=labels, quality="fast")
    whole = call("SegmentVideo", **wired(loaded), frames=frames, num_clusters=3, window_length=2, quality="fast")
    assert torch.equal(fast.maps, whole.maps)


@pytest.fixture
def video(frames: Tensor, tmp_path: Path) -> Path:
    path = tmp_path / "clip.mkv"
    pictures = (frame for frame in (frames * 255).round().to(torch.uint8))
    write_video(path, pictures, 10.0, None)
    return path


def test_a_video_file_gives_the_labels_of_its_frames(
    loaded: LoadedModel, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(tmp_path))  # of this test alone
    with open_clip(video) as clip:
        decoded = clip.read(0, clip.num_frames)
    options = {"num_clusters": 3, "window_length": 2, "quality": "fast"}
    of_frames = call("SegmentVideo", **wired(loaded), frames=decoded, **options)
    of_video = call("SegmentVideo", **wired(loaded), video=VideoFromFile(str(video)), **options)
    in_memory = call("SegmentVideo", **wired(loaded), video=VideoFromFile(io.BytesIO(video.read_bytes())), **options)
    assert torch.equal(of_frames.maps, of_video.maps)
    assert torch.equal(of_frames.maps, in_memory.maps)
    assert not list(tmp_path.glob("vidseg-*"))


def test_a_video_made_of_images_is_its_images(loaded: LoadedModel, frames: Tensor) -> None:
    made = VideoFromComponents(VideoComponents(images=frames, frame_rate=Fraction(10)))
    options = {"num_clusters": 3, "window_length": 2, "quality": "draft"}
    of_frames = call("SegmentVideo", **wired(loaded), frames=frames, **options)
    assert torch.equal(call("SegmentVideo", **wired(loaded), video=made, **options).maps, of_frames.maps)


def test_frames_or_video_must_be_wired(loaded: LoadedModel, frames: Tensor, video: Path) -> None:
    with pytest.raises(InputError, match="got neither"):
        call("SegmentVideo", **wired(loaded))
    with pytest.raises(InputError, match="got both"):
        call("SegmentVideo", **wired(loaded), frames=frames, video=VideoFromFile(str(video)))


def test_refinement_replays_the_scan_with_its_own_feedback(features: Features) -> None:
    anchor_labels = call("KMeansInit", features=features, num_clusters=4, window_length=1)
    unrefined = call("SceneContextKNN", features=features, anchor_labels=anchor_labels, window_length=1)
    refined = call("CorrespondenceRefine", labels=unrefined)
    assert torch.equal(refined.maps, unrefined.maps)  # a window of one frame has nothing to vote
    assert refined.scan == unrefined.scan


def test_the_last_stage_ends_with_a_full_bar(
    loaded: LoadedModel, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[float, str]] = []
    monkeypatch.setattr(
        "vidseg.nodes.host.progress.NodeDisplay.show",
        lambda _self, fraction, text, last: shown.append((fraction, text)),
    )
    inputs = {**wired(loaded), "features": features, "labels": coarse_labels(features)}
    call("MaskedModulationUpsample", **inputs, modulation_step=24)
    assert shown[-1][0] == pytest.approx(1)
    assert shown[-1][1].startswith(f"{features.num_frames} frames in ")


def test_reports_of_errors_show_sizes_instead_of_numbers(features: Features, full: Labels) -> None:
    assert len(str(features)) < 100
    assert len(str(full)) < 100
    assert f"{full.num_frames} frames" in str(full)


def test_bypassed_stages_leave_usable_labels(features: Features, frames: Tensor) -> None:
    labels = coarse_labels(features)
    overlay, legend = call("PreviewRegions", frames=frames, labels=labels)
    assert overlay.shape == frames.shape
    assert legend.ndim == 4
    assert call("RegionsToMask", labels=labels, regions="0-255").min() == 1


def test_the_tag_of_a_thin_region_lies_on_it() -> None:
    maps = torch.zeros(1, 480, 854, dtype=torch.uint8)
    maps[:, 473:476] = 1
    tagged = draw_tags(torch.zeros(1, 480, 854, 3), maps, (Region(1, "kerb"),))
    rows, columns = tagged[0].sum(-1).nonzero().unbind(1)
    assert 440 < rows.min() < 473 < rows.max()
    assert columns.float().mean() == pytest.approx(427, abs=10)


def test_tags_stay_inside_the_frame_and_long_names_give_way_to_ids() -> None:
    maps = torch.zeros(1, 120, 160, dtype=torch.uint8)
    maps[:, :, :20] = 1
    name = "left edge"
    tags = [
        draw_tags(torch.full((1, 120, 160, 3), 0.5), maps, (Region(1, text),))[0]
        for text in (name, name * 9, "label 1")
    ]
    white = (tags[0] > 0.9).all(-1)
    assert white.any()
    assert not white[:, 0].any()  # the dark line around the letters is there too
    assert torch.equal(tags[1], tags[2])
    assert not torch.equal(tags[0], tags[2])


def test_the_legend_beside_a_preview_leaves_the_frames_most_of_the_room() -> None:
    frames, regions = torch.zeros(1, 256, 448, 3), tuple(Region(label, f"region {label}") for label in range(20))
    sheet = draw_beside(frames, fit_legend((256, 448), regions))
    assert torch.equal(sheet[:, :256, :448], frames)
    assert sheet.shape[1] < 1.5 * 256
    assert sheet.shape[2] < 1.7 * 448
    assert draw_beside(frames, fit_legend((256, 448), regions[:3])).shape[1] == 256


def test_short_work_shows_no_text_and_a_stop_leaves_no_time_on_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    now = [0.0]
    monkeypatch.setattr(progress, "_send_text", sent.append)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    short, plain = progress.NodeProgress(), progress.NodeProgress(has_text=False)
    for done in range(5):
        now[0] = done / 4
        short("overlay", done + 1, 5)
    assert not sent
    now[0] = 10.0
    plain("overlay", 1, 2)
    assert not sent
    short("overlay", 2, 10)
    assert [text.split(",")[0] for text in sent] == ["overlay: 2 of 10"]
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        short("overlay", 3, 10)
    assert sent[1:] == ["stopped"]


def test_masks_of_regions_cover_the_frames_once(full: Labels) -> None:
    masks, names = call("RegionsToMasks", labels=full)
    assert len(masks) == len(names) == len(full.regions)
    assert bool((torch.stack(masks).sum(0) == 1).all())
    chosen = call("RegionsToMask", labels=full, regions=names[0])
    assert torch.equal(chosen, masks[0])
    assert torch.equal(call("RegionsToMask", labels=full, regions=names[0], invert=True), 1 - masks[0])


def test_names_and_merges(full: Labels) -> None:
    first, second, *_ = full.regions
    named = call("NameRegions", labels=full, names=f"thing: {second.label}, {first.label}")
    assert (first.label, "thing") in [(region.label, region.name) for region in named.regions]
    assert len(named.regions) == len(full.regions) - 1
    assert not bool((named.maps == second.label).any())


def test_names_before_refinement_last(features: Features) -> None:
    anchor_labels = call("KMeansInit", features=features, num_clusters=4, window_length=2)
    labels = call("SceneContextKNN", features=features, anchor_labels=anchor_labels, window_length=2)
    first, second, *_ = labels.regions
    named = call("NameRegions", labels=labels, names=f"thing: {first.label}, {second.label}")
    refined = call("CorrespondenceRefine", labels=named)
    assert refined.regions == named.regions
    assert not bool((refined.maps == second.label).any())


@pytest.fixture(scope="module")
def entering() -> Labels:
    """Labels of two halves that are known and of a thing, label 2, that enters in the sixth of ten frames."""
    tokens = torch.zeros(10, 8, 12, 16)
    tokens[:, :, :6, 0] = tokens[:, :, 6:, 1] = 1
    tokens[5:, 2:6, 2:6] = torch.eye(16)[5]
    tokens = (tokens + 0.02 * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0))).flatten(1, 2)
    features = Features(tokens, tokens, torch.zeros(10, 4, 16, 24), torch.zeros(10, 4, 16, 24), Grid(8, 12), (128, 192))
    anchor_labels = call("KMeansInit", features=features, num_clusters=2, fit_frames="anchor")
    result: Labels = call("SceneContextKNN", features=features, anchor_labels=anchor_labels, new_regions=True)
    return result


def test_a_found_region_keeps_its_name_in_refinement(entering: Labels) -> None:
    plain = call("CorrespondenceRefine", labels=entering)
    new = entering.regions[-1].label
    named = call("NameRegions", labels=entering, names=f"sides: 0, 1\nball: new {new}")
    refined = call("CorrespondenceRefine", labels=named)
    assert refined.regions == named.regions == (Region(0, "sides"), Region(new, "ball"))
    assert torch.equal(refined.maps == new, plain.maps == new)
    assert int((plain.maps == new).sum()) > 50
    again = call("CorrespondenceRefine", labels=call("NameRegions", labels=refined, names="all: sides, ball"))
    assert again.regions == (Region(0, "all"),)
    assert not bool(again.maps.any())


def test_a_picked_region_that_was_found_keeps_its_mask_in_refinement(entering: Labels) -> None:
    _, picked, _ = call("PickRegions", frames=torch.zeros(10, 128, 192, 3), labels=entering, picks="7 0.3,0.5 ball")
    mask = call("RegionsToMask", labels=call("CorrespondenceRefine", labels=picked), regions="ball")
    assert float(mask.sum()) > 0


def test_mask_of_the_first_frame_names_the_regions(features: Features, frames: Tensor) -> None:
    mask = (frames[:1, ..., 0] > 0.6).float()
    anchor_labels = call("KMeansInit", features=features, num_clusters=12)
    assigned = call("AssignRegionsFromMask", anchor_labels=anchor_labels, mask=mask, class_names="0: ground\n1: square")
    assert {region.name for region in assigned.regions} <= {"ground", "square"}
    labels = call("SceneContextKNN", features=features, anchor_labels=assigned)
    assert set(labels.maps.unique().tolist()) <= {0, 1}


def test_score_with_and_without_ground_truth(full: Labels, features: Features) -> None:
    truth = full.maps.float() / 255
    report, miou, mvc8, mvc16, agreement = call("ScoreRegions", labels=full, masks=truth, match="ids")
    assert miou == 1
    assert (mvc8, mvc16) == (-1, -1)
    assert 0 <= agreement <= 1
    assert all(name in report for name in ("mIoU", "mVC8", "mVC16 right"))
    assert "agreement" in report
    loose = replace(full, scan=None)
    report, *values = call("ScoreRegions", labels=loose, features=features)
    assert values == [-1, -1, -1, agreement]


def test_features_become_a_picture(features: Features) -> None:
    image = call("PreviewFeatures", features=features)
    assert image.shape == (3, 64, 128, 3)
    assert 0 <= float(image.min()) <= float(image.max()) <= 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_frames(loaded: LoadedModel, frames: Tensor, count: int) -> None:
    clip = frames[torch.arange(count) % 3]
    labels = call("SegmentVideo", **wired(loaded), frames=clip, num_clusters=3, window_length=2, quality="draft")
    assert labels.maps.shape == (count, 64, 128)


@pytest.mark.parametrize("size", [(70, 100), (64, 65), (20, 200)])
def test_any_size_and_kind_of_frames(loaded: LoadedModel, size: tuple[int, int]) -> None:
    rgba = torch.rand(2, *size, 4, generator=torch.Generator().manual_seed(1)).half()
    labels = call("SegmentVideo", **wired(loaded), frames=rgba, num_clusters=3, quality="draft")
    assert labels.maps.shape == (2, *size)


def test_interrupted_upsampling_can_be_repeated(
    loaded: LoadedModel, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = {**wired(loaded), "features": features, "labels": coarse_labels(features), "modulation_step": 24}
    expected = call("MaskedModulationUpsample", **inputs)
    ticks: list[int] = []

    def stop(*_args: Any) -> None:
        ticks.append(1)
        if len(ticks) == 3:
            comfy.model_management.interrupt_current_processing()
        comfy.model_management.throw_exception_if_processing_interrupted()

    with monkeypatch.context() as patch, pytest.raises(comfy.model_management.InterruptProcessingException):
        patch.setattr("vidseg.nodes.host.progress.NodeProgress.__call__", stop)
        call("MaskedModulationUpsample", **inputs)
    assert torch.equal(call("MaskedModulationUpsample", **inputs).maps, expected.maps)


@pytest.mark.parametrize("name", ["paper", "reference", "emerdiff"])
def test_presets_equal_the_core(loaded: LoadedModel, program: Backbone, frames: Tensor, name: str) -> None:
    settings = replace_parts(preset(name), cluster={"num_clusters": 2})
    clip = frames[:2]
    expected = segment(program, HeldFrames(clip), settings)
    labels = call("SegmentVideo", **wired(loaded), frames=clip, num_clusters=2, preset=name)
    assert torch.equal(labels.maps, expected.maps)
    assert labels.regions == expected.regions
