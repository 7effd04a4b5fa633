"""Regions picked by points in the host: masks, names, what the browser gets, and picks that no longer fit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import pytest
import torch
from PIL import Image
from vidseg.core.types import InputError, Region
from vidseg.nodes.host.labels import Labels
from vidseg.nodes.pick_regions import KEY, MAX_FRAMES, SIDE

from .graphs import NODE, call, coarse_labels


@pytest.fixture(autouse=True)
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a temp folder of its own."""
    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(tmp_path))
    return tmp_path / KEY


def square_clip(frames: int = 4, size: tuple[int, int] = (60, 90)) -> tuple[torch.Tensor, Labels]:
    """A square, region 2, that moves over region 0; region 5 is a bar that leaves after frame 1."""
    height, width = size
    maps = torch.zeros(frames, height, width, dtype=torch.uint8)
    for number in range(frames):
        maps[number, height // 4 : height // 2, 3 * number : 3 * number + width // 3] = 2
    maps[:2, -height // 6 :] = 5
    regions = (Region(0, "region 0"), Region(2, "region 2"), Region(5, "sky"))
    return (maps[..., None] / 5).expand(-1, -1, -1, 3), Labels(maps, regions, size)


def pick(frames: torch.Tensor, labels: Labels, picks: str = "", **options: Any) -> tuple[Any, ...]:
    result = NODE["PickRegions"].execute(frames=frames, labels=labels, picks=picks, invert=False, **options)
    return (*result.args, result.ui[KEY][0])


def test_the_mask_follows_the_picked_regions_and_names_travel_on() -> None:
    frames, labels = square_clip()
    mask, named, report, _ = pick(frames, labels, "0 0.1,0.3 dog\n1 0.5,0.99 dog\nname 2 0.9,0.9 ground")
    assert torch.equal(mask, ((labels.maps == 2) | (labels.maps == 5)).float())
    assert named.regions == (Region(0, "ground"), Region(2, "dog"))
    assert report == "Picked: dog (id 2, 23.0 % of the clip)".replace("23.0 %", f"{mask.mean():.1%}")
    assert torch.equal(call("RegionsToMask", labels=named, regions="dog", invert=False), mask)
    inverse, *_ = call("PickRegions", frames=frames, labels=labels, picks="0 0.1,0.3", invert=True)
    assert torch.equal(inverse, (labels.maps != 2).float())


def test_nothing_picked_gives_an_empty_mask() -> None:
    mask, named, report, _ = pick(*square_clip())
    assert mask.shape == (4, 60, 90)
    assert not mask.any()
    assert len(named.regions) == 3
    assert "Picked: nothing" in report


def test_coarse_labels_can_be_refined_after_picking(features: Any, frames: torch.Tensor) -> None:
    labels = coarse_labels(features)
    mask, named, *_ = pick(frames, labels, "0 0.01,0.01 wall\n0 0.3,0.5 wall")
    assert torch.equal(mask, call("RegionsToMask", labels=named, regions="wall", invert=False))
    refined = call("CorrespondenceRefine", labels=named)
    assert refined.regions == named.regions
    assert set(refined.maps.unique().tolist()) <= {region.label for region in named.regions}


def test_picks_that_no_longer_fit_are_reported(temp: Path) -> None:
    text = "0 0.1,0.3 dog\n7 0.1,0.3 cat\n1 0.15,0.3 wolf"
    mask, _, report, shown = pick(*square_clip(), text)
    assert "line 2 (cat): there is no frame 7, the last one is 3." in report
    assert "line 3 (wolf): the point lies on the same region as line 1 (dog)" in report
    assert mask.any()
    assert [row[3] for row in shown["found"]] == [2, None, 2]
    assert len(shown["problems"]) == 2
    assert temp.is_dir()


@pytest.mark.parametrize("text", ["dog: 3", "0 100,20 dog", "0 0.5,0.5\n0.5,0.5"])
def test_wrong_text_is_refused_before_anything_runs(text: str) -> None:
    assert str(NODE["PickRegions"].validate_inputs(picks=text)).startswith("`picks` must")
    assert NODE["PickRegions"].validate_inputs(picks="0 0.5,0.5 dog") is True
    assert NODE["PickRegions"].validate_inputs(picks=None) is True
    with pytest.raises(InputError, match="`picks` must"):
        pick(*square_clip(), text)


def test_frames_of_another_clip_are_refused() -> None:
    frames, labels = square_clip()
    with pytest.raises(InputError, match="`frames` must be the 4 frames"):
        pick(frames[:2], labels)


def test_the_browser_gets_every_label_exactly(temp: Path) -> None:
    frames, labels = square_clip()
    *_, shown = pick(frames, labels)
    assert (shown["frames"], shown["numFrames"]) == ([0, 1, 2, 3], 4)
    for number in shown["frames"]:
        ids = np.array(Image.open(temp / f"{shown['stem']}_{number}.png"))
        assert np.array_equal(ids, labels.maps[number].numpy())
        with Image.open(temp / f"{shown['stem']}_{number}.jpg") as picture:
            assert picture.size == (90, 60)
    assert [(row["label"], row["name"], row["first"], row["last"]) for row in shown["regions"]] == [
        (0, "region 0", 0, 3), (2, "region 2", 0, 3), (5, "sky", 0, 1),
    ]  # fmt: skip
    assert shown["regions"][1]["color"] == "#009e73"


def test_files_are_written_once_for_the_same_clip(temp: Path) -> None:
    frames, labels = square_clip()
    first, second = pick(frames, labels)[-1], pick(frames, labels, "0 0.1,0.3 dog")[-1]
    assert first["stem"] == second["stem"]
    assert len(list(temp.iterdir())) == 8
    assert pick(1 - frames, labels)[-1]["stem"] != first["stem"]


def test_the_node_runs_again_after_its_files_are_gone(temp: Path) -> None:
    frames, labels = square_clip()
    node = NODE["PickRegions"]
    before = node.fingerprint_inputs(picks="", invert=False)
    shown = pick(frames, labels)[-1]
    assert node.fingerprint_inputs(picks="0 0.1,0.3", invert=False) == before
    shutil.rmtree(temp)
    assert node.fingerprint_inputs(picks="", invert=False) != before
    assert pick(frames, labels)[-1]["stem"] == shown["stem"]
    assert (temp / f"{shown['stem']}_0.png").is_file()


def test_long_and_large_clips_stay_small(temp: Path) -> None:
    frames, labels = square_clip(2 * MAX_FRAMES + 1, (8, 12))
    shown = pick(frames, labels)[-1]
    assert len(list(temp.iterdir())) == 2 * len(shown["frames"]) <= 2 * MAX_FRAMES
    assert shown["frames"][:3] == [0, 3, 6]
    wide, wide_labels = square_clip(1, (300, 1300))
    picture = temp / f"{pick(wide, wide_labels)[-1]['stem']}_0.png"
    with Image.open(picture) as image:
        assert image.size == (SIDE, 118)
