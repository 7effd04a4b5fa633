from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from vidseg.core.command import asked, commands
from vidseg.core.command import main as cli
from vidseg.core.command import options as cli_options
from vidseg.core.command.main import EXIT_BAD_INPUT, EXIT_INTERRUPTED, main
from vidseg.core.command.segment import SegmentOptions
from vidseg.core.config.overrides import with_overrides
from vidseg.core.config.settings import PRESETS, SETTINGS, Settings, read_setting
from vidseg.core.engine.model import ModelSpec
from vidseg.core.files.clip import open_clip
from vidseg.core.files.disk import write_atomically
from vidseg.core.files.result_folder import ResultFolder
from vidseg.core.files.video import write_video
from vidseg.core.types import InputError, LabelMaps

from ...narrow_checkpoint import random_model
from ..backbones.narrow_models import THIN


@pytest.fixture(scope="module")
def model(thin_model: Path) -> Path:
    return thin_model


def squares(count: int = 5) -> torch.Tensor:
    """A bright square that moves over a dark slope, ``(T,64,64,3)`` uint8."""
    slope = torch.arange(64, dtype=torch.uint8)[None, :, None].expand(64, 64, 3)
    frames = slope.repeat(count, 1, 1, 1)
    for number in range(count):
        frames[number, 16:48, 4 * number : 4 * number + 32] = torch.tensor([250, 200, 20], dtype=torch.uint8)
    return frames


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clip's folder with frames and masks, of which frame 3 is not labeled."""
    path = tmp_path / "clip"
    (path / "frames").mkdir(parents=True)
    (path / "masks").mkdir()
    for number, frame in enumerate(squares()):
        Image.fromarray(frame.numpy()).save(path / "frames" / f"{number:05d}.png")
        if number != 3:
            mask = (frame[..., 0] == 250).to(torch.uint8)
            mask[0, 0] = 255
            Image.fromarray(mask.numpy()).save(path / "masks" / f"{number:05d}.png")
    (path / "meta.json").write_text(json.dumps({"classes": ["ground", "square"]}))
    return path


def segment(source: Path, out: Path, *more: object) -> int:
    return main(["segment", str(source), "--out", str(out), "--clusters", "3", *map(str, more)])


def two_halves(side: int) -> Image.Image:
    return Image.fromarray(np.arange(side).repeat(side).reshape(side, side).astype(np.uint8) // 128)


def labels_of(out: Path) -> list[torch.Tensor]:
    count = len(list((out / "labels").iterdir()))
    return list(ResultFolder(out).read_label_maps(count))


def record_of(out: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((out / "segmentation.json").read_text())
    return record


def digest(folder: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted((folder / "labels").iterdir()))).hexdigest()


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line of an error."""
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("[")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("vidseg: error: ")
    return lines[0]


def test_color_baseline_from_video_to_score(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    mask = folder / "masks" / "00000.png"
    assert segment(folder, out, "--baseline", "color", "--anchor-mask", mask, "--window", 2) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {"labels", "overlay.mp4", "legend.png", "segmentation.json"}
    record = record_of(out)
    assert record["finished"] is True
    assert record["frames_done"] == 5
    assert sum(region["area"] for region in record["regions"]) == 5 * 64 * 64
    assert record["baseline"] == "color"
    assert record["model"] is None
    assert sum(int((label == 1).sum()) for label in labels_of(out)) == record["regions"][1]["area"]
    assert open_clip(out / "overlay.mp4").num_frames == 5
    capsys.readouterr()
    assert main(["score", str(out), str(folder), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["frames"] == 4
    assert scores["mvc8"] is None
    assert scores["names"] == {"0": "ground", "1": "square"}
    assert 0.8 < scores["miou"] <= 1
    assert main(["score", str(out / "labels"), str(folder / "masks")]) == 0
    text = capsys.readouterr().out
    assert "mVC8" in text
    assert "n/a" in text
    assert "IoU 1 square" in text


def test_slic_baseline_and_measures_that_need_no_names(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("skimage")
    out, words = tmp_path / "out", ("--baseline", "slic", "--set", "cluster.num_clusters=8")
    assert segment(folder, out, *words) == 0
    record = record_of(out)
    assert (record["baseline"], record["model"], record["frames_done"]) == ("slic", None, 5)
    assert 2 <= len(record["regions"]) <= 16
    capsys.readouterr()
    assert main(["score", str(out), str(folder), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["nameless"]
    assert measured["regions"] == len(record["regions"])
    assert 0.5 < measured["accuracy"] <= 1
    assert measured["best_miou"] > 0.5
    assert main(["score", str(out), str(folder)]) == 0
    assert "3D segmentation accuracy" in capsys.readouterr().out
    for name in ("skimage", "skimage.segmentation"):
        monkeypatch.setitem(sys.modules, name, None)
    assert segment(folder, tmp_path / "other", *words) == EXIT_BAD_INPUT
    assert "must find scikit-image, but it is not installed" in error_of(capsys)


def test_black_and_white_masks_are_background_and_object(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    white = tmp_path / "white"
    white.mkdir()
    for path in sorted((folder / "masks").iterdir()):
        with Image.open(path) as image:
            values = np.array(image)
        Image.fromarray(np.where(values == 1, 255, 0).astype(np.uint8)).save(white / path.name)
    results = []
    for name, masks in (("a", folder / "masks"), ("b", white)):
        options = ("--baseline", "color", "--anchor-mask", masks / "00000.png", "--window", 2)
        assert segment(folder, tmp_path / name, *options) == 0
        capsys.readouterr()
        assert main(["score", str(tmp_path / name), str(white), "--json"]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0]["miou"] == results[1]["miou"] > 0.8
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"vidseg: {what} black and white: 255 (white) is read as class 1, not as unknown."
        for what in ("the masks are", "00000.png is", "the masks are")
    ]
    assert all(torch.equal(a, b) for a, b in zip(labels_of(tmp_path / "a"), labels_of(tmp_path / "b"), strict=True))


def test_a_perfect_result_scores_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = Image.fromarray(np.random.default_rng(0).integers(0, 3, (8, 8), dtype=np.uint8))
    for name in ("labels", "masks"):
        (tmp_path / name).mkdir()
        for number in range(17):
            truth.save(tmp_path / name / f"{number:05d}.png")
    assert main(["score", str(tmp_path), str(tmp_path), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["miou"] == scores["mvc8"] == scores["mvc16"] == 1


def test_runs_end_where_a_frame_has_no_mask_and_count_constant_and_right_pixels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames 0 to 7 have one row wrong but constant, of 9 to 16 the last has one row wrong; 8 has no mask."""
    for name in ("labels", "masks"):
        (tmp_path / name).mkdir()
        for number in range(17):
            maps = np.ones((8, 8), np.uint8)
            maps[0] = 2 if name == "labels" and (number < 8 or number == 16) else 1
            if (name, number) != ("masks", 8):
                Image.fromarray(maps).save(tmp_path / name / f"{number:05d}.png")
    assert main(["score", str(tmp_path), str(tmp_path), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["mvc8"], scores["mvc8_right"]) == ((1 + 7 / 8) / 2, 7 / 8)
    assert scores["mvc16"] is scores["mvc16_right"] is None


def test_masks_belong_to_the_frames_of_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Frames count from 1; two masks of them, of which the label maps are copies, then a mask of no frame."""
    (tmp_path / "frames").mkdir()
    (tmp_path / "masks").mkdir()
    for number, frame in enumerate(squares(), 1):
        Image.fromarray(frame.numpy()).save(tmp_path / "frames" / f"f{number}.png")
    assert segment(tmp_path, tmp_path / "out", "--baseline", "color") == 0
    for number in (2, 5):
        with Image.open(tmp_path / "out" / "labels" / f"{number - 1:05d}.png") as image:
            image.save(tmp_path / "masks" / f"f{number}.png")
    capsys.readouterr()
    assert main(["score", str(tmp_path / "out"), str(tmp_path), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["frames"], scores["miou"]) == (2, 1)
    Image.new("L", (64, 64)).save(tmp_path / "masks" / "f6.png")
    assert main(["score", str(tmp_path / "out"), str(tmp_path)]) == EXIT_BAD_INPUT
    assert "named as the frames, f1.png to f5.png, but" in error_of(capsys)


def test_scores_of_unnamed_regions_are_marked(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert segment(folder, tmp_path / "out", "--baseline", "color") == 0
    capsys.readouterr()
    assert main(["score", str(tmp_path / "out"), str(folder)]) == 0
    assert "--anchor-mask" in capsys.readouterr().err


@pytest.mark.parametrize("baseline", [None, "frame"])
def test_the_method_runs_on_a_video(model: Path, tmp_path: Path, baseline: str | None) -> None:
    write_video(tmp_path / "clip.mp4", squares(3), fps=12.5)
    more = ("--baseline", baseline) if baseline else ()
    out = tmp_path / "out"
    assert segment(tmp_path / "clip.mp4", out, "--model", model, "--window", 2, "--device", "cpu", *more) == 0
    record = record_of(out)
    assert record["finished"] is True
    assert record["fps"] == 12.5
    assert record["model"]["fingerprint"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert record["settings"]["cluster"]["num_clusters"] == 3
    assert not (out / "resume.safetensors").exists()
    assert len(labels_of(out)) == 3


class StopAt:
    """A stand-in for Ctrl-C at a moment that can be repeated."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException) -> None:
        self.calls, write = 0, ResultFolder.write_label_maps

        def stopping(folder: ResultFolder, start: int, labels: LabelMaps) -> None:
            self.calls += 1
            if self.calls == call:
                write(folder, start, LabelMaps(labels.maps[:1], labels.regions, leaves=labels.leaves))
                raise error
            write(folder, start, labels)

        monkeypatch.setattr(ResultFolder, "write_label_maps", stopping)


@pytest.mark.parametrize("preset", ["default", "reference"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], preset: str
) -> None:
    options = ("--model", model, "--window", 2, "--no-modulation", "--device", "cpu", "--preset", preset)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert segment(folder, whole, *options) == 0
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        StopAt(patch, 2, KeyboardInterrupt())
        assert segment(folder, parts, *options) == EXIT_INTERRUPTED
    told = capsys.readouterr().err
    assert "2 of 5 frames are finished" in told
    assert told.rstrip().endswith("--resume")
    unfinished = record_of(parts)
    assert unfinished["finished"] is False
    assert unfinished["frames_done"] == 2
    assert torch.equal(labels_of(parts)[0], labels_of(whole)[0])
    assert segment(folder, parts, *options, "--resume") == 0
    assert digest(parts) == digest(whole)
    assert record_of(parts) == record_of(whole)
    assert not (parts / "resume.safetensors").exists()
    before = (parts / "segmentation.json").stat().st_mtime_ns
    capsys.readouterr()
    assert segment(folder, parts, *options, "--resume") == 0  # nothing is left to do
    assert capsys.readouterr().out == f"5 frames, 3 regions: {parts}, finished already\n"
    assert (parts / "segmentation.json").stat().st_mtime_ns == before


def test_another_run_is_not_resumed(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--model", model, "--window", 2, "--no-modulation", "--device", "cpu")
    with pytest.MonkeyPatch.context() as patch:
        StopAt(patch, 2, KeyboardInterrupt())
        segment(folder, tmp_path / "out", *options)
    capsys.readouterr()
    before = digest(tmp_path / "out")
    assert segment(folder, tmp_path / "out", *options, "--resume", "--seed", 5) == EXIT_BAD_INPUT
    assert "`settings.sampling.seed` of 5, which was 1" in error_of(capsys)
    Image.new("RGB", (64, 64)).save(folder / "frames" / "00004.png")
    assert segment(folder, tmp_path / "out", *options, "--resume") == EXIT_BAD_INPUT
    assert "`input.fingerprint`" in error_of(capsys)
    assert digest(tmp_path / "out") == before


def test_a_full_disk_in_the_middle_can_be_resumed(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--model", model, "--window", 2, "--no-modulation", "--device", "cpu")
    written: list[Path] = []

    def full(path: Path, write: Callable[[Path], object]) -> None:
        def fill(part: Path) -> None:
            written.append(part)
            write(part)
            if len(written) == 5:
                raise OSError(28, "No space left on device")

        write_atomically(path, fill)

    with monkeypatch.context() as patch:
        patch.setattr("vidseg.core.files.result_folder.write_atomically", full)
        assert segment(folder, tmp_path / "out", *options) == EXIT_BAD_INPUT
    assert "Free space, then continue with `--resume`" in error_of(capsys)
    assert segment(folder, tmp_path / "out", *options, "--resume") == 0
    assert len(labels_of(tmp_path / "out")) == 5


WRONG_SETTINGS = {
    "--clusters 81": "`--clusters` must be at most the number of tokens, 80, but got 81",
    "--set cluster.num_clusters=81": "`cluster.num_clusters` must be at most the number of tokens, 80",
    "--set cluster.number=3": "cluster.num_clusters",
    "--window 0": "`--window` must lie in [1, 10000], but got 0.",
    "--max-side -1": "`--max-side` must lie in",
    "--blocks 3,7": "`--blocks` must hold numbers in [6, 8], the blocks whose queries lie on the coarse grid",
    "--set difference.blur_size=4": "`difference.blur_size` must be odd",
}
"""What is said about settings, by the name under which they were set."""


def bad_input(kind: str, folder: Path, tmp_path: Path) -> tuple[list[object], str]:  # noqa: PLR0911, one per fault
    """Return arguments with one fault, and what the message must say."""
    frames = folder / "frames"
    if kind in WRONG_SETTINGS:
        return [folder, *kind.split()], WRONG_SETTINGS[kind]
    if kind == "no frames":
        (tmp_path / "empty").mkdir()
        return [tmp_path / "empty"], "no image in"
    if kind == "corrupt frame":
        (frames / "00003.png").write_bytes((frames / "00003.png").read_bytes()[:80])
        return [folder], "00003.png, which is damaged"
    if kind == "sizes":
        Image.new("RGB", (32, 32)).save(frames / "00003.png")
        return [folder], "frames of one size"
    if kind == "text":
        (tmp_path / "a.mp4").write_text("hello\n" * 100)
        return [tmp_path / "a.mp4"], "must be a video"
    if kind == "nan":
        Image.fromarray(np.full((64, 64), np.nan, np.float32)).save(frames / "00009.tif")
        return [folder], "holds NaN"
    if kind == "mask size":
        two_halves(256).save(tmp_path / "mask.png")
        return [folder, "--anchor-mask", tmp_path / "mask.png"], "size of the frames, 64x64"
    if kind == "device":
        return [folder, "--device", "toaster"], "cuda, mps or cpu"
    if kind == "one value":
        Image.new("L", (64, 64), 255).save(tmp_path / "mask.png")
        return [
            folder,
            "--anchor-mask",
            tmp_path / "mask.png",
        ], "mask.png, of which every pixel is 255 (unknown, or white)"
    if kind == "result there":
        (tmp_path / "out").mkdir(parents=True)
        (tmp_path / "out" / "segmentation.json").write_text("{}")
        return [folder], "readable segmentation.json of vidseg"
    if kind == "other files":
        (tmp_path / "out" / "labels").mkdir(parents=True)
        (tmp_path / "out" / "labels" / "00000.png").write_text("somebody's")
        return [folder, "--resume"], "Choose another folder"
    return [folder, "--resume", "--overwrite"], "must not be combined"


KINDS = ["no frames", "corrupt frame", "sizes", "text", "nan", "mask size", "device"]


@pytest.mark.parametrize("kind", [*KINDS, *WRONG_SETTINGS, "one value", "result there", "other files", "both"])
def test_bad_input_ends_before_the_model_is_loaded(
    kind: str, model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(ModelSpec, "load", lambda _: pytest.fail("the model was loaded"))
    arguments, said = bad_input(kind, folder, tmp_path)
    assert segment(Path(str(arguments[0])), tmp_path / "out", "--model", model, *arguments[1:]) == EXIT_BAD_INPUT
    assert said in error_of(capsys)


def test_no_sd_model_ends_before_frames_are_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidseg.core.command.segment.open_clip", lambda *_: pytest.fail("frames were read"))
    (tmp_path / "model.safetensors").write_bytes(b"no model at all")
    assert segment(folder, tmp_path / "out", "--model", tmp_path / "model.safetensors") == EXIT_BAD_INPUT
    assert "`model` must" in error_of(capsys)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(asked, "DEMO_MODEL", tmp_path / "none.safetensors")
    assert segment(folder, tmp_path / "out") == EXIT_BAD_INPUT
    assert "`model` must name a model" in error_of(capsys)
    assert segment(folder, tmp_path / "out", "--baseline", "color", "--anchor-mask", "none.png") == EXIT_BAD_INPUT
    assert "none.png does not exist" in error_of(capsys)
    (tmp_path / "file").write_text("")
    assert segment(folder, tmp_path / "file" / "out", "--baseline", "color") == EXIT_BAD_INPUT
    assert "`--out` must be writable" in error_of(capsys)


@pytest.mark.parametrize("out", ["clip/frames", "clip/frames/frames", "clip/masks/../frames"])
def test_a_result_among_the_frames_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    for source in (folder / "frames", folder):
        if out != "clip/frames/frames" or source.name == "frames":
            assert segment(source, tmp_path / out, "--baseline", "color", "--overwrite") == EXIT_BAD_INPUT
            assert "`--out` must lie apart from the frames" in error_of(capsys)
    assert len(list((folder / "frames").iterdir())) == 5


def test_a_result_is_not_the_input_of_the_run_that_replaces_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment(folder, tmp_path / "out", "--baseline", "color") == 0
    capsys.readouterr()
    for name in ("labels", "overlay.mp4"):
        words = ("--baseline", "color", "--overwrite")
        assert segment(tmp_path / "out" / name, tmp_path / "out", *words) == EXIT_BAD_INPUT
        assert "`--out` must lie apart" in error_of(capsys)
    assert len(labels_of(tmp_path / "out")) == 5


def test_a_mask_of_another_size_ends_before_all_frames_are_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "frames" / "00001.png").write_bytes(b"no image")
    two_halves(256).save(tmp_path / "mask.png")
    mask = ("--anchor-mask", tmp_path / "mask.png")
    assert segment(folder, tmp_path / "out", "--baseline", "color", *mask) == EXIT_BAD_INPUT
    assert "size of the frames, 64x64, but got 256x256" in error_of(capsys)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert segment(folder, tmp_path / "file", "--baseline", "color") == EXIT_BAD_INPUT
    assert "must be a folder" in error_of(capsys)


def test_debug_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        segment(tmp_path, tmp_path / "out", "--baseline", "color", "--debug")


CPU_FULL = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried ...\nmore"), RuntimeError(CPU_FULL)]
)
def test_exhausted_memory_names_the_remedy(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        StopAt(patch, 1, error)
        assert segment(folder, tmp_path / "out", "--baseline", "color") == EXIT_BAD_INPUT
    assert "Reduce --max-side" in error_of(capsys)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="a fault of ours"):
        StopAt(patch, 1, RuntimeError("a fault of ours"))
        segment(folder, tmp_path / "other", "--baseline", "color")


@pytest.mark.parametrize(
    ("masks", "said"),
    [("none", "MASKS"), ("more", "00009.png"), ("small", "size of the label maps")],
)
def test_bad_masks(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], masks: str, said: str) -> None:
    segment(folder, tmp_path / "out", "--baseline", "color")
    for name, number, size in (("more", 9, 64), ("small", 1, 8)):
        (tmp_path / name).mkdir()
        Image.new("L", (size, size)).save(tmp_path / name / f"{number:05d}.png")
    capsys.readouterr()
    assert main(["score", str(tmp_path / "out"), str(tmp_path / masks)]) == EXIT_BAD_INPUT
    assert said in error_of(capsys)


def test_info_describes_a_model(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(model), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fingerprint"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert list(facts["blocks"]) == [str(block) for block in range(3, 12)]
    assert main(["info", str(model)]) == 0
    assert "epsilon" in capsys.readouterr().out
    assert main(["info", str(tmp_path / "none")]) == EXIT_BAD_INPUT
    assert "does not exist" in error_of(capsys)


def test_the_demo_says_which_bundled_file_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "DEMO_CLIP", tmp_path / "demo_clip.mp4")
    monkeypatch.setattr(commands, "DEMO_MODEL", tmp_path / "demo_model.safetensors")
    assert main(["demo", "--out", str(tmp_path / "out")]) == EXIT_BAD_INPUT
    assert "demo_clip.mp4" in error_of(capsys)
    write_video(tmp_path / "demo_clip.mp4", squares(2))
    assert main(["demo", "--out", str(tmp_path / "out")]) == EXIT_BAD_INPUT
    assert "demo_model.safetensors" in error_of(capsys)


@pytest.mark.parametrize(("words", "modulated"), [("demo", False), ("demo --quality exact --out there", True)])
def test_the_demo_is_fast_unless_the_whole_method_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, words: str, modulated: bool
) -> None:
    made: list[SegmentOptions] = []
    monkeypatch.setattr(commands, "_execute", lambda options, again: made.append(options) or 0)
    assert main(words.split()) == 0
    (options,) = made
    assert options.settings.modulation.enabled is modulated
    assert options.settings.cluster.num_clusters == 8
    assert options.out == Path("there" if modulated else "vidseg-demo")


def test_random_models_repeat(tmp_path: Path) -> None:
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        random_model(tmp_path / name, seed, THIN)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "first").read_bytes()
    assert (tmp_path / "other").read_bytes() != (tmp_path / "first").read_bytes()


def test_options_change_the_settings() -> None:
    words = "segment x --out y --preset paper --clusters 7 --seed 3 --max-side 320 --window 5 --blocks 7,8 --no-refine"
    arguments = cli.build_parser().parse_args(
        [
            *words.split(),
            "--no-modulation",
            "--set",
            "difference.filter_strength=0.5",
            "--set",
            "cluster.num_clusters=9",
        ]
    )
    settings = cli_options.make_settings(arguments)
    assert settings.preset == "paper"
    assert settings.cluster.num_clusters == 9
    assert settings.cluster.fit_frames == PRESETS["paper"].cluster.fit_frames
    assert settings.sampling.seed == 3
    assert settings.frame.max_side == 320
    assert settings.window.length == 5
    assert settings.feature.blocks == (7, 8)
    assert settings.refinement.enabled is settings.modulation.enabled is False
    assert settings.difference.filter_strength == 0.5


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("cluster.num_clusters", "part.field=value"),
        ("num_clusters=3", "part.field=value"),
        ("nothing.at_all=3", "frame.max_side"),
        ("preset.name=x", "must name one of"),
        ("cluster.num_clusters=many", "a whole number"),
        ("cluster.num_clusters=-1", r"\[0, 255\]"),
        ("difference.filter_strength=lots", "a number"),
        ("modulation.enabled=perhaps", "true or false"),
        ("cluster.fit_frames=long", "window, anchor"),
        ("feature.blocks=6;7", "commas"),
        ("feature.blocks=2", "the blocks whose"),
    ],
)
def test_bad_overrides(override: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        with_overrides(Settings(), [override])


def test_every_setting_can_be_given_as_text() -> None:
    for name in SETTINGS:
        value = read_setting(Settings(), name)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert with_overrides(Settings(), [f"{name}={text}"]) == Settings()
