"""Another number of regions for a result, without a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from vidseg.core.command.main import EXIT_BAD_INPUT, main
from vidseg.core.files.result_folder import ResultFolder
from vidseg.core.files.video import write_video

from .test_main import error_of, labels_of, record_of, segment, squares


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, squares(3))
    return path


@pytest.fixture
def results(clip: Path, thin_model: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Return the same clip in three and in six regions, without soft votes: they make borders depend on the cut."""
    words = ("--model", thin_model, "--quality", "draft", "--device", "cpu", "--set", "cluster.num_leaves=12")
    words += ("--set", "enlarging.own_share=1")
    for name, number in (("three", 3), ("six", 6)):
        assert segment(clip, tmp_path / name, *words, "--clusters", number) == 0
    return tmp_path / "three", tmp_path / "six"


def recut(result: Path, *more: object) -> int:
    return main(["regions", str(result), *map(str, more)])


def test_a_result_is_cut_into_what_a_run_with_that_number_gives(
    results: tuple[Path, Path], clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three, six = results
    before = labels_of(three)
    assert recut(three, "--num", 6, "--clip", clip) == 0
    assert "3 frames, 6 regions" in capsys.readouterr().out
    # pixels near a border go to the region whose leaves answer most together, which depends on the cut
    same = torch.stack([a == b for a, b in zip(labels_of(three), labels_of(six), strict=True)]).float().mean()
    assert float(same) > 0.9
    assert [region["name"] for region in record_of(three)["regions"]] == [f"region {number}" for number in range(6)]
    assert sum(region["area"] for region in record_of(three)["regions"]) == before[0].numel() * 3
    assert recut(three, "--num", 3, "--clip", clip) == 0
    assert all(torch.equal(*pair) for pair in zip(before, labels_of(three), strict=True))
    assert (three / "overlay.mp4").is_file()


def test_splitting_and_reading_leaves_again(results: tuple[Path, Path]) -> None:
    three, _ = results
    assert recut(three, "--num", 2, "--split", 0) == 0
    assert len(record_of(three)["regions"]) == 3
    assert not (three / "overlay.mp4").exists()
    folder = ResultFolder(three)
    maps = folder.read_all_label_maps(3)
    assert folder.read_leaves(maps) is not None
    assert folder.read_leaves(maps.clamp(max=0)) is None  # somebody changed the label maps


def test_what_cannot_be_cut_is_refused(
    results: tuple[Path, Path], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three, _ = results
    for more, message in (
        ((), "`--num` or `--split` must be given"),
        (("--num", 0), "`--num` must be at least 1, but got 0"),
        (("--split", 9), "`--split` must be one of (0, 1, 2), but got 9"),
    ):
        assert recut(three, *more) == EXIT_BAD_INPUT
        assert message in error_of(capsys)
    assert recut(tmp_path, "--num", 3) == EXIT_BAD_INPUT
    assert "`result` must hold segmentation.json" in error_of(capsys)
    assert segment(clip, tmp_path / "color", "--baseline", "color") == 0
    assert recut(tmp_path / "color", "--num", 3) == EXIT_BAD_INPUT
    assert "`result` must be of a finished run with the method tree" in error_of(capsys)
    record = json.loads((three / "segmentation.json").read_text())
    record["leaves"]["linkage"][0] = [0, 0, 1, 2]
    (three / "segmentation.json").write_text(json.dumps(record))
    assert recut(three, "--num", 3) == EXIT_BAD_INPUT
    assert "SciPy's format" in error_of(capsys)
