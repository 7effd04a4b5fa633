"""Many clips by one command: a folder for each, one that fails stops no other, and finished ones stay."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
from vidseg.core.command import clips
from vidseg.core.command.main import EXIT_BAD_INPUT, EXIT_INTERRUPTED, main
from vidseg.core.files.video import write_video
from vidseg.core.types import InputError

from .test_main import StopAt, digest, error_of, record_of, squares

COLOR = ("--baseline", "color", "--clusters", "3", "--window", "2")


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """A folder with two videos, a file that is none, and a list of one of the videos and of the file."""
    folder = tmp_path / "shots"
    folder.mkdir()
    for number, name in enumerate("ab"):
        write_video(folder / f"{name}.mp4", squares(3 + number))
    (folder / "bad.mp4").write_text("no video")
    (folder / "list.txt").write_text("# one and a half\n\nb.mp4\nbad.mp4\n")
    return folder


def segment(out: Path, *words: object) -> int:
    return main(["segment", *map(str, words), "--out", str(out)])


def table_of(capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["clip", "frames", "regions", "seconds"]
    return {row[0]: row[1:] for row in rows[1:]}


def test_each_clip_has_its_folder_and_finished_ones_are_not_run_again(
    shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, words = tmp_path / "out", (shots / "a.mp4", shots / "list.txt", *COLOR)
    assert segment(out, *words) == EXIT_BAD_INPUT
    table = table_of(capsys)
    assert list(table) == ["a", "b", "bad"]
    assert [table[name][:2] for name in table] == [["3", "3"], ["4", "3"], ["-", "-"]]
    assert " ".join(table["bad"][2:5]) == "- failed: `input`"
    assert sorted(path.name for path in out.iterdir()) == ["a", "b"]
    main(["segment", str(shots / "b.mp4"), "--out", str(tmp_path / "alone"), *COLOR])
    assert digest(out / "b") == digest(tmp_path / "alone")
    before = (out / "a" / "segmentation.json").stat().st_mtime_ns
    write_video(shots / "bad.mp4", squares(2))
    capsys.readouterr()
    assert segment(out, *words) == 0
    table = table_of(capsys)
    assert table["a"] == ["3", "3", "-", "finished", "already"]
    assert len(table["bad"]) == 3
    assert (out / "a" / "segmentation.json").stat().st_mtime_ns == before
    assert segment(out, *words, "--overwrite") == 0
    assert (out / "a" / "segmentation.json").stat().st_mtime_ns > before


def test_results_of_another_run_are_kept_and_said(
    shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert segment(out, shots / "a.mp4", shots / "b.mp4", *COLOR) == 0
    write_video(shots / "a.mp4", squares(2))
    capsys.readouterr()
    assert segment(out, shots / "a.mp4", shots / "b.mp4", *COLOR) == EXIT_BAD_INPUT
    table = table_of(capsys)
    assert "`input.fingerprint`" in " ".join(table["a"])
    assert table["b"][-2:] == ["finished", "already"]
    assert record_of(out / "a")["frames_done"] == 3


def test_an_interruption_says_how_to_go_on_and_the_clip_goes_on_where_it_stopped(
    shots: Path, tmp_path: Path, thin_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (shots / "a.mp4", shots / "b.mp4", "--model", thin_model, "--quality", "draft", "--device", "cpu")
    words = (*words, "--clusters", "3", "--window", "2")
    with pytest.MonkeyPatch.context() as patch:
        StopAt(patch, 4, KeyboardInterrupt())  # in the second window of the second clip
        assert segment(tmp_path / "out", *words) == EXIT_INTERRUPTED
    assert "1 of 2 clips are finished. Continue with: vidseg segment" in capsys.readouterr().err
    assert record_of(tmp_path / "out" / "b")["frames_done"] == 2
    assert segment(tmp_path / "out", *words) == 0
    assert segment(tmp_path / "whole", *words[1:]) == 0
    assert digest(tmp_path / "out" / "b") == digest(tmp_path / "whole")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("a.mp4 a.mp4", "`input` must name clips that differ"),
        ("a.mp4 b.mp4 --anchor-mask mask.png", "`--anchor-mask` must be given with one clip, but got 2 clips"),
        ("empty.txt", "`input` must name at least one clip"),
        ("none.txt", "`input` must be a readable list of paths"),
        ("a.mp4 --workers 2", "`--workers` must be given with `--engine ray` alone, but got 2"),
        ("a.mp4 --engine ray --workers -1", "`--workers` must be at least 0, but got -1"),
        ("a.mp4 --engine ray", "`--engine ray` must not be combined with `--baseline` for one clip, but got color"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: str, said: str, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(shots)
    Path("empty.txt").write_text("# nothing\n")
    assert segment(tmp_path / "out", *words.split(), *COLOR) == EXIT_BAD_INPUT
    assert said in error_of(capsys)


def test_a_folder_of_one_result_is_no_folder_of_many(
    shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment(tmp_path / "out", shots / "a.mp4", *COLOR) == 0
    assert segment(tmp_path / "out", shots / "a.mp4", shots / "b.mp4", *COLOR) == EXIT_BAD_INPUT
    assert "`--out` must be a folder for the results of many clips" in error_of(capsys)


def test_the_examples_of_names_and_tables_hold() -> None:
    assert doctest.testmod(clips).failed == 0
    with pytest.raises(InputError, match="differ in their names"):
        clips.name_clips([Path("x/a/1.mp4"), Path("y/a/1.mp4")])
