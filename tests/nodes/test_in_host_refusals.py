"""What the host lets pass is refused in the pack's words: places, NaN, and text that stays on a node."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import pytest
import torch
from vidseg.core.types import InputError, Region
from vidseg.nodes.host import progress
from vidseg.nodes.host.labels import Labels, choose_labels, parse_class_names, parse_names_and_merges
from vidseg.nodes.host.schema import tell_widgets

from .graphs import NODE, call
from .test_in_host_interrupt import Largest


@pytest.fixture(autouse=True)
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("output", "input"):
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
        (tmp_path / name).mkdir()
    (tmp_path / "output" / "file").write_text("somebody's")
    (tmp_path / "output" / "out").symlink_to(tmp_path)
    return tmp_path / "output"


@pytest.fixture
def labels() -> Labels:
    maps = torch.arange(4, dtype=torch.uint8).repeat(2, 8, 4)
    return Labels(maps, tuple(Region(label, f"region {label}") for label in range(4)), (8, 16))


PREFIXES = {
    "../../x": "stay below", "a/../../x": "stay below", "/etc/x": "stay below", "out/x": "stay below",
    "a\0b": "characters", "a\nb": "characters", "a\ud800": "characters", "x" * 300: "200 bytes",
    "ä" * 150: "200 bytes", "a/" * 600: "200 bytes", "file/x": "folders before its name",
}  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES, ids=ascii)
@pytest.mark.parametrize("node_id", ["SaveRegions", "ExportRegions", "SaveScene"])
def test_a_place_is_checked_when_the_graph_is_queued(prefix: str, node_id: str, output: Path, labels: Labels) -> None:
    said = NODE[node_id].validate_inputs(filename_prefix=prefix)
    assert isinstance(said, str)
    assert said.startswith("`filename_prefix` must ")
    assert PREFIXES[prefix] in said
    assert len(said) < 300
    if node_id != "SaveScene":
        with pytest.raises(InputError, match="filename_prefix"):
            call(node_id, labels=labels, filename_prefix=prefix)
    assert sorted(path.name for path in output.iterdir()) == ["file", "out"]


@pytest.mark.parametrize("prefix", [None, "", "vidseg/regions", "clips/", "clips/..", "%date%/ä b", "a.b/c"])
def test_good_places_pass(prefix: str | None) -> None:
    assert NODE["SaveRegions"].validate_inputs(filename_prefix=prefix) is True


NOWHERE = ["a\0b", "\ud800", "x" * 300, "x" * 10**6, "../../etc"]


@pytest.mark.parametrize("folder", NOWHERE, ids=range(5))
def test_a_place_that_cannot_be_is_not_found(folder: str) -> None:
    for node_id, name in (("LoadRegions", "folder"), ("LoadScene", "file")):
        said = NODE[node_id].validate_inputs(**{name: folder})
        assert isinstance(said, str)
        assert len(said) < 400


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize(
    ("node_id", "name"), [("ExportRegions", "fps"), ("RegionsToSEGS", "crop_factor"), ("SplitInstances", "min_share")]
)
def test_numbers_beyond_the_widget_are_refused(
    node_id: str, name: str, value: float, labels: Labels, output: Path
) -> None:
    with pytest.raises(InputError, match=f"`{name}` must lie in"):
        call(node_id, labels=labels, **{name: value})
    assert sorted(path.name for path in output.iterdir()) == ["file", "out"]


def test_an_export_that_fails_leaves_nothing(labels: Labels, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidseg.nodes.files.make_coco", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("ExportRegions", labels=labels)
    assert list((output / "vidseg").iterdir()) == []


@pytest.mark.parametrize(
    "damage", ["[" * 100_000, '{"regions": []}', "{}", "\xff", '{"frames_done": 1e999}'], ids=ascii
)
def test_a_damaged_record_is_one_line(labels: Labels, output: Path, damage: str) -> None:
    folder = call("SaveRegions", labels=labels)
    (output / folder / "segmentation.json").write_bytes(damage.encode("latin-1"))
    with pytest.raises(InputError, match=r"`folder` must hold a readable segmentation\.json"):
        call("LoadRegions", folder=folder)


def test_loading_and_scoring_make_no_wide_copy_of_a_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidseg.core.evaluation.metrics._CHUNK", 4096)  # a clip here is small
    maps = torch.arange(4, dtype=torch.uint8).repeat(30, 128, 64)
    labels = Labels(maps, tuple(Region(label, f"region {label}") for label in range(4)), (128, 256))
    folder = call("SaveRegions", labels=labels)
    with Largest() as largest:
        loaded = call("LoadRegions", folder=folder)
    assert torch.equal(loaded.maps, maps)
    assert largest.size <= maps.numel()
    masks = maps.float() / 255  # what the host holds, four bytes a pixel
    with Largest() as largest:
        report = call("ScoreRegions", labels=loaded, masks=masks)
    assert report[1] == 1.0
    assert largest.size <= 2 * maps.numel()


def test_typed_text_is_read_by_one_grammar(labels: Labels) -> None:
    regions = labels.regions
    assert choose_labels("\ufeff1\u00a0-\t2\r3", regions) == (1, 2, 3)
    assert choose_labels(",".join(["1"] * 60_000), regions) == (1,)
    for text in ("9" * 5000, "\u0661", "1-\u0662", "x" * 10**6, "x" * (10**6 + 1)):
        for read in (lambda text=text: choose_labels(text, regions), lambda text=text: parse_class_names(f"{text}: a")):
            with pytest.raises(InputError) as caught:
                read()
            assert len(str(caught.value)) < 500
    with pytest.raises(InputError, match="at most 200 characters"):
        parse_names_and_merges("x" * 201 + ": 1", regions)


def test_text_of_a_stopped_node_is_replaced_by_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    now = [0.0]
    monkeypatch.setattr(progress, "_send_text", sent.append)
    monkeypatch.setattr(progress, "_find_node", lambda: "7")
    monkeypatch.setattr(progress.NodeDisplay, "_with_text", set())
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def work(_node: object, *, fails: bool) -> None:
        bar = progress.NodeProgress()
        now[0] += 10 if fails else 0.1
        bar("overlay", 1, 2)
        if fails:
            raise KeyboardInterrupt
        bar("overlay", 2, 2)

    with pytest.raises(KeyboardInterrupt):
        tell_widgets(work)(NODE["SegmentVideo"], fails=True)
    assert "left" in sent[0]
    assert sent[1:] == ["stopped"]
    tell_widgets(work)(NODE["SegmentVideo"], fails=False)
    assert sent[2:] == ["overlay: 2 in 0 s"]
