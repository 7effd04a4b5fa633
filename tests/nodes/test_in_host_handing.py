"""Instances, scenes and hand-over in the host."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import comfy_extras
import folder_paths
import pytest
import torch
from torch import Tensor
from vidseg.core.types import InputError, Region
from vidseg.nodes.demo_model import LoadedModel
from vidseg.nodes.host.labels import Labels

from .graphs import NODE, call, coarse_labels, wired


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    return tmp_path


@pytest.fixture
def dogs() -> Labels:
    maps = torch.zeros(3, 64, 128, dtype=torch.uint8)
    maps[:, 20:40, 10:30] = 2
    maps[:, 20:40, 90:110] = 2
    return Labels(maps, (Region(0, "ground"), Region(2, "dog")), (64, 128))


def test_a_saved_scene_labels_the_clip_again(features: Any, output: Path) -> None:
    labels = coarse_labels(features, num_clusters=6)  # so that a scene keeps every cell
    labels = call("NameRegions", labels=labels, names="thing: 1")
    _, file = call("SaveScene", labels=labels, features=features)
    assert (output / file).is_file()
    node = NODE["LoadScene"]
    assert node.validate_inputs(file=file) is True
    assert node.fingerprint_inputs(file=file) == node.fingerprint_inputs(file=file)
    scene = call("LoadScene", file=file)
    again, _ = call("ApplyScene", features=features, scene=scene, window_length=2, num_neighbors=1)
    assert again.regions == labels.regions
    assert torch.equal(again.maps, labels.maps)  # every cell finds itself in the scene
    assert call("RegionsToMask", labels=again, regions="thing").shape == (3, 64, 128)


def test_a_scene_in_a_folder_overwrites_none(features: Any, output: Path) -> None:
    labels = coarse_labels(features)
    files = [call("SaveScene", labels=labels, features=features, filename_prefix="clips/")[1] for _ in range(2)]
    assert files == ["clips/scene_00001_.safetensors", "clips/scene_00002_.safetensors"]
    assert all((output / file).is_file() for file in files)


def test_a_scene_on_the_wire_alone_and_a_missing_file(features: Any, output: Path) -> None:
    labels = coarse_labels(features)
    scene, file = call("SaveScene", labels=labels, features=features, filename_prefix=" ")
    assert file == ""
    assert not list(output.iterdir())
    assert scene.get_ram_usage() > 0
    assert "must be a scene below" in NODE["LoadScene"].validate_inputs(file="../../etc/passwd")


def test_instances_become_masks_boxes_and_segments(dogs: Labels) -> None:
    split = call("SplitInstances", labels=dogs, regions="dog")
    assert [region.name for region in split.regions] == ["ground", "dog 2", "dog 1"]
    masks, found, names = call("RegionsToTracker", labels=split, regions="dog 1, dog 2")
    assert names == "dog 2, dog 1"
    assert masks.shape == (2, 64, 128)
    assert found[1] == [{"x": 90, "y": 20, "width": 20, "height": 20}, {"x": 10, "y": 20, "width": 20, "height": 20}]
    size, segs = call("RegionsToSEGS", labels=split, regions="dog 1")
    assert size == (64, 128)
    assert segs[0].label == "dog 1"
    with pytest.raises(InputError, match="frame"):
        call("RegionsToTracker", labels=split, frame=3)


def test_the_host_s_tracker_takes_these_inputs() -> None:
    folder = Path(next(iter(comfy_extras.__path__)))
    if not (folder / "nodes_sam3.py").is_file():
        pytest.skip("this host has no SAM 3")
    from comfy_extras.nodes_sam3 import SAM3_Detect, SAM3_VideoTrack  # noqa: PLC0415

    outputs = {socket.display_name: socket.get_io_type() for socket in NODE["RegionsToTracker"].define_schema().outputs}
    track = {socket.id: socket.get_io_type() for socket in SAM3_VideoTrack.define_schema().inputs}
    detect = {socket.id: socket.get_io_type() for socket in SAM3_Detect.define_schema().inputs}
    assert track["initial_mask"] == outputs["initial_mask"]
    assert detect["bboxes"] == outputs["bboxes"]
    text = inspect.getsource(SAM3_Detect.execute)
    assert all(f'["{key}"]' in text for key in ("x", "y", "width", "height"))


def test_export(dogs: Labels, output: Path) -> None:
    folder = output / call("ExportRegions", labels=dogs)
    assert sorted(path.name for path in folder.iterdir()) == ["coco.json", "ids.mkv", "labels"]
    record = json.loads((folder / "coco.json").read_text())
    assert [category["name"] for category in record["categories"]] == ["ground", "dog"]
    assert len(list((folder / "labels").iterdir())) == 3


def test_finished_masks(dogs: Labels) -> None:
    mask = call("RegionsToMask", labels=dogs, regions="dog")
    assert torch.equal(call("FinishMask", mask=mask, grow=0), mask)
    box = call("FinishMask", mask=mask, grow=0, shape="box")
    assert float(box[0].sum()) == 20 * 100
    assert call("FinishMask", mask=mask[0], feather=4).shape == (1, 64, 128)


def test_the_number_of_regions_can_be_chosen(features: Any) -> None:
    few, many = (
        len(call("KMeansInit", features=features, num_clusters=0, granularity=share).regions) for share in (0.3, 0.9)
    )
    assert 2 <= few < many


def test_unseen_things_and_cuts_are_carried_to_the_refinement(loaded: LoadedModel, frames: Tensor) -> None:
    other = 1 - frames.flip(2)
    features = call("ExtractDiffusionFeatures", **wired(loaded), frames=torch.cat([frames, other]))
    anchor_labels = call("KMeansInit", features=features, num_clusters=3)
    labels = call("SceneContextKNN", features=features, anchor_labels=anchor_labels, new_regions=True, scene_cuts=True)
    refined = call("CorrespondenceRefine", labels=labels)
    assert labels.scan.settings.scene.cuts
    assert refined.regions == labels.regions
    assert refined.regions[: len(anchor_labels.regions)] == anchor_labels.regions
