"""What a crash, a second run, or somebody else's files leave: nothing is lost, nothing mixed, nothing silent."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from PIL import Image
from vidseg.core.command.main import EXIT_BAD_INPUT, EXIT_INTERRUPTED, main
from vidseg.core.command.streams import PatientStream
from vidseg.core.files.clip import open_clip
from vidseg.core.files.disk import OUT
from vidseg.core.files.lock import hold_folder
from vidseg.core.files.result_folder import ResultFolder
from vidseg.core.files.video import write_video
from vidseg.core.types import InputError

from .test_main import StopAt, digest, error_of, labels_of, record_of, segment, squares

KILLS = {"draft": 10, "exact": 4}
"""Kills of a run at random moments, for each quality."""
FORKS = get_context("forkserver")
"""Processes that are copies of one which holds the program; each starts in milliseconds."""
FORKS.set_forkserver_preload(["vidseg.core.command.commands", "vidseg.core.backbones.diffusers.load"])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    write_video(tmp_path / "clip.mp4", squares(6))
    return tmp_path / "clip.mp4"


def run_killed(words: list[str], out: Path, moment: float) -> None:
    """Run the command in a process of its own, and kill it a moment after its folder is there."""
    process = FORKS.Process(target=main, args=(words,))
    process.start()
    end = time.monotonic() + 120
    while not (out / "segmentation.json").exists() and process.is_alive() and time.monotonic() < end:
        time.sleep(0.002)
    process.join(moment)
    process.kill()
    process.join()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="forks of POSIX")
@pytest.mark.parametrize(("quality", "num_frames", "longest"), [("draft", 6, 0.3), ("exact", 2, 3.0)])
def test_runs_that_are_killed_come_to_the_same_labels(
    quality: str, num_frames: int, longest: float, thin_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "clip.mp4", squares(num_frames))
    out, generator = tmp_path / "killed", random.Random(5)  # noqa: S311
    words = ["--model", thin_model, "--window", 1, "--quality", quality, "--device", "cpu"]
    assert segment(tmp_path / "clip.mp4", tmp_path / "whole", *words) == 0
    for _ in range(KILLS[quality]):
        again = ["--resume"] if (out / "segmentation.json").exists() else []
        run = ["segment", tmp_path / "clip.mp4", "--out", out, "--clusters", 3, *words, *again]
        run_killed([str(word) for word in run], out, generator.random() * longest)
    assert segment(tmp_path / "clip.mp4", out, *words, "--resume") == 0, capsys.readouterr().err
    assert digest(out) == digest(tmp_path / "whole")
    kept = ["labels", "leaves", "legend.png", "overlay.mp4", "segmentation.json"]
    assert sorted(path.name for path in out.iterdir()) == kept


INTERRUPTIBLE = """
import signal, sys
from vidseg.core.command.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs that a shell runs in the background
with open(told, "w", encoding="utf-8") as sys.stderr:
    sys.exit(main(words))
"""
"""Runs the command, with what it says of errors in a file."""


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_a_real_interrupt_leaves_finished_windows_and_says_how_to_go_on(thin_model: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", squares(6).repeat(40, 1, 1, 1))
    out, told = tmp_path / "out", tmp_path / "told.txt"
    words = ["segment", str(tmp_path / "clip.mp4"), "--out", str(out), "--model", str(thin_model), "--clusters", "3"]
    names = {"words": [*words, "--window", "1", "--no-modulation"], "told": str(told)}
    process = FORKS.Process(target=exec, args=(INTERRUPTIBLE, names))
    process.start()
    assert process.pid is not None
    deadline = time.monotonic() + 120
    while not finished_frames(out) and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == EXIT_INTERRUPTED, told.read_text()
    assert "Traceback" not in told.read_text()
    done = record_of(out)["frames_done"]
    assert 1 <= done < 240
    assert len(list(ResultFolder(out).read_label_maps(done))) == done
    assert "--resume" in told.read_text()


def finished_frames(out: Path) -> int:
    """Return how many frames a run that is going on has finished."""
    return int(record_of(out)["frames_done"]) if (out / "segmentation.json").exists() else 0


@contextmanager
def acting_as_nobody() -> Iterator[None]:
    """Give up the rights of root, to whom no folder is read-only."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.skipif(os.name == "nt", reason="users of POSIX")
def test_a_read_only_folder_is_told_before_any_work(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TemporaryDirectory() as name:  # those of pytest are closed to other users
        folder, out = Path(name), Path(name) / "closed"
        (folder / "clip.mp4").write_bytes(clip.read_bytes())
        assert segment(folder / "clip.mp4", folder / "open", "--baseline", "color") == 0
        capsys.readouterr()
        out.mkdir()
        folder.chmod(0o755)
        out.chmod(0o555)
        for place in (out, out / "below"):
            with acting_as_nobody():
                assert segment(folder / "clip.mp4", place, "--baseline", "color") == EXIT_BAD_INPUT
            assert f"`--out` must be writable, but got {place}, which is not: Permission denied" in error_of(capsys)
        assert list(out.iterdir()) == []


def test_two_runs_do_not_share_a_folder(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    with hold_folder(out, OUT):
        assert segment(clip, out, "--baseline", "color") == EXIT_BAD_INPUT
        assert f"where process {os.getpid()} is at work" in error_of(capsys)
    assert not out.exists()
    assert segment(clip, out, "--baseline", "color") == 0
    assert record_of(out)["threads"] == torch.get_num_threads()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_crash_releases_the_folder(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from vidseg.core.files.lock import hold_folder
from vidseg.core.files.disk import OUT
with hold_folder(Path({str(tmp_path / "out")!r}), OUT):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=f"process {process.pid} is at work"), hold_folder(tmp_path / "out", OUT):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    with hold_folder(tmp_path / "out", OUT):
        pass


def foreign_record(out: Path) -> str:
    (out / "segmentation.json").write_text('{"program": "other", "finished": true}')
    return "readable segmentation.json of vidseg"


def damaged_record(out: Path) -> str:
    (out / "segmentation.json").write_text("{")
    return "that is no JSON"


def linked_labels(out: Path) -> str:
    (out / "labels").rename(out.parent / "elsewhere")
    (out / "labels").symlink_to(out.parent / "elsewhere")
    return "labels is not of the run"


def unfinished_with_overlay(out: Path) -> str:
    record = record_of(out)
    record.update(finished=False, frames_done=1)
    (out / "segmentation.json").write_text(json.dumps(record))
    return "overlay.mp4 is not of the run"


@pytest.mark.parametrize("change", [foreign_record, damaged_record, linked_labels, unfinished_with_overlay])
def test_what_others_wrote_is_not_replaced(
    clip: Path, tmp_path: Path, change: Callable[[Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert segment(clip, out, "--baseline", "color") == 0
    (out / "labels" / "99999.png").write_bytes(b"somebody's")
    capsys.readouterr()
    assert segment(clip, out, "--baseline", "color", "--overwrite") == 0
    assert (out / "labels" / "99999.png").read_bytes() == b"somebody's"
    said = change(out)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert segment(clip, out, "--baseline", "color", "--overwrite") == EXIT_BAD_INPUT
    assert said in error_of(capsys)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def lose_state(out: Path) -> str:
    (out / "resume.safetensors").unlink()
    return "find resume.safetensors, but got none in"


def lose_map(out: Path) -> str:
    (out / "labels" / "00001.png").unlink()
    return "00001.png, which is missing"


def change_map(out: Path) -> str:
    Image.new("P", (3, 3)).save(out / "labels" / "00001.png")
    return "00001.png, which is 3x3"


def break_map(out: Path) -> str:
    (out / "labels" / "00000.png").write_bytes(b"")
    return "00000.png, which is damaged"


def break_state(out: Path) -> str:
    (out / "resume.safetensors").write_bytes(b"x" * 100)
    return "must be the state of a run"


def test_resuming_checks_what_is_there_and_keeps_it(
    clip: Path, thin_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ("--model", thin_model, "--window", 2, "--quality", "draft", "--device", "cpu")
    with pytest.MonkeyPatch.context() as patch:
        StopAt(patch, 3, KeyboardInterrupt())
        segment(clip, out, *words)
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert record_of(out)["frames_done"] == 4
    for change in (lose_state, lose_map, change_map, break_map, break_state):
        said = change(out)
        left = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        capsys.readouterr()
        assert segment(clip, out, *words, "--resume") == EXIT_BAD_INPUT
        assert said in error_of(capsys)
        kept = {path: path.read_bytes() for path in left if path.name != "segmentation.json"}
        assert kept == {path: content for path, content in left.items() if path.name != "segmentation.json"}
        for path, content in files.items():
            path.write_bytes(content)
    record = record_of(out)
    (out / "segmentation.json").write_text(json.dumps({**record, "threads": record["threads"] + 1}))
    capsys.readouterr()
    assert segment(clip, out, *words, "--resume") == 0
    assert len(labels_of(out)) == 6


def test_frames_that_change_during_a_run_are_told(tmp_path: Path) -> None:
    for number, frame in enumerate(squares(3)):
        Image.fromarray(frame.numpy()).save(tmp_path / f"{number}.png")
    clip = open_clip(tmp_path)
    clip.read(0, 1)
    Image.fromarray(squares(3)[0].numpy()).save(tmp_path / "2.png")
    clip.read(1, 2)
    with pytest.raises(InputError, match=r"stay as it is during the run, but got another 2\.png"):
        clip.read(2, 3)


@pytest.mark.parametrize("out", ["", " ", "a\0b", "x" * 5000])
def test_what_is_no_path_is_refused(clip: Path, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["segment", str(clip), "--out", out, "--baseline", "color"])
    assert ended.value.code == EXIT_BAD_INPUT
    assert "must be a path" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_pipe_is_neither_input_nor_output(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert segment(clip, tmp_path / "pipe", "--baseline", "color") == EXIT_BAD_INPUT
    assert "must be a folder" in error_of(capsys)
    assert segment(tmp_path / "pipe", tmp_path / "out", "--baseline", "color") == EXIT_BAD_INPUT
    assert "which is neither" in error_of(capsys)
    assert not (tmp_path / "out").exists()


class Broken(io.StringIO):
    encoding = "ascii"

    def write(self, text: str) -> int:
        text.encode("ascii")
        raise OSError(28, "No space left on device")


def test_streams_never_change_how_a_run_ends(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for number, stream in enumerate((Broken(), closed, None)):
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        assert segment(clip, tmp_path / f"ä{number}", "--baseline", "color") == 0
        assert ResultFolder(tmp_path / f"ä{number}").is_finished()
    monkeypatch.setattr(sys, "stdout", Broken())
    assert main(["score", str(tmp_path / "ä0"), str(tmp_path / "ä0" / "labels"), "--json"]) == EXIT_BAD_INPUT


def test_other_characters_become_escapes() -> None:
    target = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    PatientStream(target).write("ä \udc80\n")
    target.flush()
    assert target.buffer.getvalue() == b"\\xe4 \\udc80\n"
