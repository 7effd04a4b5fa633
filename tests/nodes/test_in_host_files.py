"""Saved regions come back as they were."""

from __future__ import annotations

import errno
from pathlib import Path

import folder_paths
import pytest
import torch
from vidseg.core.types import InputError, Region
from vidseg.nodes.host.labels import Labels

from .graphs import NODE, call


@pytest.fixture(autouse=True)
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    for name in ("output", "input"):
        (tmp_path / name).mkdir()
    return tmp_path / "output"


@pytest.fixture
def labels() -> Labels:
    maps = torch.randint(0, 256, (3, 20, 30), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    regions = tuple(Region(int(label), f"Näme {label}") for label in maps.unique())
    return Labels(maps, regions, (20, 30))


def test_nothing_is_lost(labels: Labels) -> None:
    again = call("LoadRegions", folder=call("SaveRegions", labels=labels))
    assert torch.equal(again.maps, labels.maps)
    assert (again.regions, again.frame_size, again.is_coarse) == (labels.regions, (20, 30), False)


def test_saving_twice_keeps_both(labels: Labels, output: Path) -> None:
    first, second = call("SaveRegions", labels=labels), call("SaveRegions", labels=labels)
    assert first != second
    assert len(list((output / "vidseg").iterdir())) == 2


@pytest.mark.parametrize("prefix", ["clips/", "clips/..", "", " "])
@pytest.mark.parametrize("node_id", ["SaveRegions", "ExportRegions"])
def test_a_prefix_without_a_name_overwrites_nothing(labels: Labels, output: Path, node_id: str, prefix: str) -> None:
    first, second = (call(node_id, labels=labels, filename_prefix=prefix) for _ in range(2))
    assert first != second
    assert (output / first).is_dir()
    assert (output / second).is_dir()


def test_coarse_labels_are_enlarged(labels: Labels) -> None:
    coarse = Labels(torch.tensor([[[0, 1], [2, 3]]]), tuple(Region(n, str(n)) for n in range(4)), (32, 32))
    again = call("LoadRegions", folder=call("SaveRegions", labels=coarse))
    assert again.maps.shape == (1, 32, 32)
    assert again.maps[0, [0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [0, 1, 2, 3]


def test_corrected_files_are_read_again(labels: Labels, output: Path) -> None:
    folder = call("SaveRegions", labels=labels)
    node = NODE["LoadRegions"]
    before = node.fingerprint_inputs(folder=folder)
    (output / folder / "labels" / "00000.png").touch()
    assert node.fingerprint_inputs(folder=folder) != before


@pytest.mark.parametrize(("node_id", "name"), [("LoadRegions", "folder"), ("LoadScene", "file")])
def test_what_a_connected_path_means_is_read_in_every_run(node_id: str, name: str) -> None:
    first, second = (NODE[node_id].fingerprint_inputs(**{name: None}) for _ in range(2))
    assert first != second


def test_links_below_the_output_folder_are_followed(labels: Labels, output: Path, tmp_path: Path) -> None:
    (output / call("SaveRegions", labels=labels)).rename(tmp_path / "other disk")
    (output / "link").symlink_to(tmp_path, target_is_directory=True)
    assert torch.equal(call("LoadRegions", folder="link/other disk").maps, labels.maps)
    assert NODE["LoadRegions"].validate_inputs(folder="../other disk") is not True


@pytest.mark.parametrize("folder", ["", "nowhere", "../..", "/etc"])
def test_other_folders_are_refused_before_the_run(folder: str) -> None:
    assert "below ComfyUI's output or input folder" in NODE["LoadRegions"].validate_inputs(folder=folder)
    with pytest.raises(InputError):
        call("LoadRegions", folder=folder)


def test_what_a_folder_lacks_is_named_without_a_machine_s_path(labels: Labels, output: Path) -> None:
    folder = call("SaveRegions", labels=labels)
    (output / folder / "labels" / "00001.png").unlink()
    with pytest.raises(InputError, match=r"has no labels/00001\.png\. ") as refused:
        call("LoadRegions", folder=folder)
    assert str(output) not in str(refused.value)
    (output / folder / "segmentation.json").unlink()
    assert "has no segmentation.json" in NODE["LoadRegions"].validate_inputs(folder=folder)


def test_damaged_files_are_named(labels: Labels, output: Path) -> None:
    folder = call("SaveRegions", labels=labels)
    (output / folder / "segmentation.json").write_text("{")
    with pytest.raises(InputError, match="Save the regions again"):
        call("LoadRegions", folder=folder)


@pytest.mark.parametrize("label", [300, -1, 1])
def test_labels_that_no_map_can_hold_or_that_occur_twice_are_named(labels: Labels, output: Path, label: int) -> None:
    folder = call("SaveRegions", labels=labels)
    record = output / folder / "segmentation.json"
    record.write_text(record.read_text().replace('"label": 0,', f'"label": {label},'))
    with pytest.raises(InputError, match=rf"{label} for a label, which must be .*\[0, 255\]|label {label} twice"):
        call("LoadRegions", folder=folder)


def test_a_full_disk_is_told_in_the_words_of_the_node(labels: Labels, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vidseg.core.files.result_folder.write_atomically", refuse)
    with pytest.raises(InputError, match=r"`filename_prefix` must be writable.*run the graph again") as refused:
        call("SaveRegions", labels=labels)
    assert "--" not in str(refused.value)
