from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from vidseg.core.evaluation.bench.dataset import (
    CAMVID_CLASSES,
    CAMVID_COLORS,
    CITYSCAPES_CLASSES,
    BenchClip,
    ClipFrames,
)
from vidseg.core.evaluation.bench.layouts import LAYOUTS, open_dataset
from vidseg.core.files.clip_meta import META, read_optional
from vidseg.core.types import InputError

from .synthetic import (
    WRITERS,
    scene,
    write_camvid,
    write_camvid_copy,
    write_cityscapes,
    write_folders,
    write_frame,
    write_vspw,
)


def expected(clip: BenchClip, number: int, values: tuple[int, int]) -> torch.Tensor:
    frames = ClipFrames(clip)
    inside = torch.from_numpy(scene(number, *frames.frame_size)[1]).long()
    return torch.tensor([*values, 255], dtype=torch.uint8)[inside]


def test_vspw_follows_its_list_and_shifts_classes(tmp_path: Path) -> None:
    dataset = open_dataset("vspw", write_vspw(tmp_path))
    assert [clip.name for clip in dataset.clips] == ["12_one", "7_two"]
    assert (dataset.num_clusters, dataset.max_side, len(dataset.clips[0].classes)) == (20, 0, 124)
    clip = dataset.clips[0]
    assert (clip.fps, len(clip.frames), sorted(clip.masks)) == (15, 8, list(range(8)))
    assert (clip.classes[0], clip.classes[123], clip.classes[1]) == ("wall", "toilet", "class 1")
    for number in (0, 1):  # void is 0 in one and 255 in the other
        assert torch.equal(clip.read_mask(number), expected(clip, number, (0, 123)))


def test_cityscapes_labels_the_twentieth_frame_and_keeps_its_size(tmp_path: Path) -> None:
    dataset = open_dataset("cityscapes", write_cityscapes(tmp_path))
    (clip,) = dataset.clips
    assert (dataset.num_clusters, dataset.max_side, len(CITYSCAPES_CLASSES)) == (30, 1024, 19)
    assert (len(clip.frames), list(clip.masks), clip.fps) == (30, [19], 17)
    assert clip.frames[19].name == "town_000001_000295_leftImg8bit.png"
    assert torch.equal(clip.read_mask(19), expected(clip, 19, (7, 26)))
    assert ClipFrames(clip).frame_size == (64, 128)


def test_both_forms_of_camvid_give_the_same_clip(tmp_path: Path) -> None:
    (official,) = open_dataset("camvid", write_camvid(tmp_path / "a")).clips
    (copy,) = open_dataset("camvid", write_camvid_copy(tmp_path / "b")).clips
    for clip in (official, copy):
        assert (len(clip.frames), clip.name, clip.fps) == (8, "0016E5", 15)
        assert ClipFrames(clip).frame_size == (360, 480)
        assert torch.equal(clip.read_mask(5), expected(clip, 5, (3, 8)))
    ours, theirs = ClipFrames(official).read(2, 3), ClipFrames(copy).read(2, 3)
    assert ours.shape == theirs.shape == (1, 360, 480, 3)
    assert float((ours - theirs).abs().mean()) < 0.01


def test_camvid_has_eleven_classes_of_thirty_one_colors() -> None:
    colors = [color for group in CAMVID_COLORS.values() for color in group.split()]
    assert len(CAMVID_CLASSES) == 11
    assert len(set(colors)) == len(colors) == 31  # 32 with void, which is no class


def test_folders_take_names_rate_and_gaps(tmp_path: Path) -> None:
    dataset = open_dataset("folders", write_folders(tmp_path))
    one, two = dataset.clips
    assert (one.classes, one.fps) == ({0: "ground", 1: "square 0"}, 10.0)
    assert sorted(two.masks) == [0, 1, 2, 4, 5, 6, 7]
    assert open_dataset("folders", tmp_path / "one").clips[0].frames == one.frames


@pytest.mark.parametrize(
    ("name", "removed", "message"),
    [
        ("vspw", "val.txt", r"val\.txt.*VSPW-dataset-download"),
        ("vspw", "data/12_one/origin", r"origin of val\.txt holds no frame"),
        ("vspw", "data/7_two/mask", "no mask named as a frame"),
        ("cityscapes", "leftImg8bit_sequence", r"leftImg8bit_sequence/val is not there.*cityscapes-dataset\.com"),
        (
            "cityscapes",
            "leftImg8bit_sequence/val/town/town_000001_000300_leftImg8bit.png",
            "lacks 1 frames: .*town_000001_000300",
        ),
        ("camvid", "701_StillsRaw_full", "holds no frame 0016E5_07959 to 08159.*Cambridge"),
        ("camvid", "LabeledApproved_full/0016E5_07961_L.png", "1 frames have no mask.*0016E5_07961"),
        ("folders", "one/masks", "one/masks holds no mask"),
    ],
)
def test_what_is_missing_is_named_with_its_source(tmp_path: Path, name: str, removed: str, message: str) -> None:
    path = WRITERS[name](tmp_path) / removed
    path.rename(tmp_path.parent / f"{tmp_path.name}-removed")
    with pytest.raises(InputError, match=message):
        open_dataset(name, tmp_path)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_an_empty_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"`ROOT` must hold .*Get "):
        open_dataset(name, tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        open_dataset(name, tmp_path / "nothing")


def test_clips_and_frames_can_be_chosen(tmp_path: Path) -> None:
    dataset = open_dataset("cityscapes", write_cityscapes(tmp_path))
    with pytest.raises(InputError, match=r"first labeled frame of town_000001_000295, number 20, but got 10"):
        dataset.shorten(10)
    assert len(dataset.shorten(25).clips[0].frames) == 25
    with pytest.raises(InputError, match=r"`--clips` must name clips.*\['x'\]"):
        dataset.select(("x",))


def test_a_frame_of_another_size_is_refused(tmp_path: Path) -> None:
    clip = open_dataset("folders", write_folders(tmp_path)).clips[0]
    clip.frames[4].write_bytes((tmp_path / "one" / "frames" / "00003.png").read_bytes())
    source = ClipFrames(clip)
    assert source.read(0, 8).shape == (8, 64, 64, 3)
    write_frame(clip.frames[4], 4, 64, 128)
    with pytest.raises(InputError, match=r"00004\.png is 128x64 and the first frame 64x64"):
        source.read(0, 8)


@pytest.mark.parametrize("classes", [["sky", "dog"], {"0": "sky", "1": "dog"}])
def test_names_of_classes_stand_in_a_list_or_by_label(tmp_path: Path, classes: object) -> None:
    (tmp_path / "meta.json").write_text(json.dumps({"classes": classes}), encoding="utf-8")
    assert read_optional(tmp_path / "meta.json", META, "ROOT")["classes"] == {0: "sky", 1: "dog"}


def test_names_of_impossible_labels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text('{"classes": {"300": "sky"}}', encoding="utf-8")
    with pytest.raises(InputError, match="by labels from 0 to 255"):
        read_optional(tmp_path / "meta.json", META, "ROOT")
