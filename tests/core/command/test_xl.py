"""The command with models that give features alone: SDXL, and a vision model as the yardstick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from vidseg import segment as segment_clip
from vidseg.core.backbones.diffusers import xl
from vidseg.core.command.main import EXIT_BAD_INPUT, main
from vidseg.core.files.result_folder import ResultFolder
from vidseg.core.types import InputError

from ..backbones.narrow_models import XL, narrow_model
from ..backbones.test_vision import tiny_dino


@pytest.fixture(scope="module")
def model(tmp_path_factory: Any) -> Path:
    return narrow_model(tmp_path_factory.mktemp("model") / "xl.safetensors", XL)


@pytest.fixture(scope="module")
def dino(tmp_path_factory: Any) -> Path:
    return tiny_dino(tmp_path_factory.mktemp("dino") / "tiny-dino", 3)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("clip")
    for number, frame in enumerate(torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(1))):
        (folder / "frames").mkdir(exist_ok=True)
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray((255 * frame).byte().numpy()).save(folder / "frames" / f"{number:05d}.png")
        mask = torch.zeros(64, 64, dtype=torch.uint8)
        mask[:, 32:] = 1
        Image.fromarray(mask.numpy()).save(folder / "masks" / f"{number:05d}.png")
    return folder


def run(clip: Path, out: Path, *words: object) -> int:
    fixed = ["--out", str(out), "--clusters", "3", "--device", "cpu"]
    return main(["segment", str(clip), *fixed, *map(str, words)])


def test_sdxl_segments_a_clip_and_python_does_the_same(model: Path, clip: Path, tmp_path: Path) -> None:
    assert run(clip, tmp_path / "out", "--model", model, "--quality", "fast") == 0
    record = json.loads((tmp_path / "out" / "segmentation.json").read_text())
    assert record["settings"]["feature"]["layers"] == ["0.5.output", "0.7.output", "3.0.cross_query"]
    assert (record["settings"]["preset"], record["settings"]["sampling"]["num_steps"]) == ("sdxl", 20)
    labels = torch.stack(list(ResultFolder(tmp_path / "out").read_label_maps(3)))
    found = segment_clip(clip / "frames", model, quality="fast", num_clusters=3, device="cpu")
    assert torch.equal(found.maps, labels)
    assert run(clip, tmp_path / "out", "--model", model, "--quality", "fast", "--resume") == 0


@pytest.mark.parametrize("quality", ["exact", "balanced"])
def test_modulation_is_refused_before_the_model_is_loaded(
    model: Path,
    clip: Path,
    tmp_path: Path,
    quality: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(xl.DiffusersXl, "__init__", None)
    assert run(clip, tmp_path / "out", "--model", model, "--quality", quality) == EXIT_BAD_INPUT
    said = "`--quality` must be fast or draft with xl.safetensors, which gives features and cannot be modulated"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "segmentation.json").exists()
    with pytest.raises(InputError, match="`quality` must be fast or draft with xl"):
        segment_clip(clip / "frames", model, quality=quality)


def test_other_layers_are_a_setting(
    model: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = ("--set", "feature.layers=3.0.query,4.0.key", "--set", "feature.matching_layers=5.0.query")
    assert run(clip, tmp_path / "out", "--model", model, "--quality", "draft", *layers) == 0
    wrong = ("--set", "feature.layers=9.0.query")
    assert run(clip, tmp_path / "no", "--model", model, "--quality", "draft", *wrong) == EXIT_BAD_INPUT
    assert "of transformer blocks 0.0 to 0.9" in capsys.readouterr().err
    wrong = ("--set", "feature.layers=up.0")
    assert run(clip, tmp_path / "no", "--model", model, "--quality", "draft", *wrong) == EXIT_BAD_INPUT
    assert (
        "must name layers such as 3.0.query, whose ends are query, key, cross_query, output" in capsys.readouterr().err
    )


def test_a_vision_model_segments_a_clip(
    model: Path, dino: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(clip, tmp_path / "out", "--features", dino, "--quality", "fast") == 0
    record = json.loads((tmp_path / "out" / "segmentation.json").read_text())
    assert (record["model"]["name"], record["model"]["kind"]) == ("tiny-dino", "vision")
    assert run(clip, tmp_path / "no", "--features", dino) == EXIT_BAD_INPUT
    assert "`--quality` must be fast or draft with tiny-dino" in capsys.readouterr().err
    assert run(clip, tmp_path / "no", "--features", dino, "--model", model) == EXIT_BAD_INPUT
    assert "`--model` must not be combined with `--features`" in capsys.readouterr().err


def test_info_says_what_a_file_serves(model: Path, dino: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(model)]) == 0
    text = capsys.readouterr().out
    assert "SDXL" in text
    assert "fast, draft (features alone, no modulation)" in text
    assert "0.5.output, 0.7.output, 3.0.cross_query" in text
    assert main(["info", str(dino), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["family"], facts["channels"], len(facts["fingerprint"])) == ("DINOv3", 32, 64)
    assert facts["qualities"] == "fast, draft (features alone, no modulation)"


def test_bench_has_a_row_of_the_yardstick(
    model: Path, dino: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "a").symlink_to(clip)
    words = ["bench", "folders", str(root), "--out", str(tmp_path / "out"), "--device", "cpu", "--max-side", "64"]
    words += ["--set", "cluster.num_clusters=3", "--features", str(dino), "--model", str(model)]
    assert main(words) == EXIT_BAD_INPUT
    assert "`--quality` must be fast or draft with xl.safetensors" in capsys.readouterr().err
    assert main([*words, "--quality", "fast"]) == 0
    assert "features of DINOv3, tiny-dino" in capsys.readouterr().out
    made_by = json.loads((tmp_path / "out" / "clips" / "features" / "a.json").read_text())["made by"]
    assert made_by["settings"]["feature"]["layers"] == ["patch"]
    assert (
        made_by["model"]
        != json.loads((tmp_path / "out" / "clips" / "default" / "a.json").read_text())["made by"]["model"]
    )
