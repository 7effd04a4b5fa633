"""The command with Stable Video Diffusion: its own preset, whole windows, the memory that a run took."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from vidseg.core.command import main as cli
from vidseg.core.command import options as cli_options
from vidseg.core.config.settings import Settings

from ..backbones.narrow_models import THIN_SVD, narrow_model


def test_svd_runs_with_its_own_preset_and_tells_its_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = narrow_model(tmp_path / "svd.safetensors", THIN_SVD)
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(3):
        pixels = np.full((64, 64, 3), 40, np.uint8)
        pixels[10:40, 10 + 8 * number : 40 + 8 * number] = (220, 60, 30)
        Image.fromarray(pixels).save(frames / f"{number:05}.png")
    words = ["segment", str(frames), "--out", str(tmp_path / "out"), "--model", str(model), "--clusters", "2"]
    assert cli.main([*words, "--window", "2", "--device", "cpu", "--quality", "draft"]) == 0
    record = json.loads((tmp_path / "out" / "segmentation.json").read_text())
    assert record["settings"]["preset"] == "svd"
    assert record["settings"]["video"]["frames"] == record["settings"]["window"]["length"] == 2
    assert record["model"]["kind"] == "svd"
    assert len(list((tmp_path / "out" / "labels").iterdir())) == 3
    assert re.search(r"peak memory \d+\.\d GB of main memory", capsys.readouterr().err)
    assert cli.main(["info", str(model)]) == 0
    assert "SVD" in capsys.readouterr().out


def settings_of(num_frames: int, *words: str) -> Settings:
    arguments = cli.build_parser().parse_args(["segment", "clip.mp4", "--out", "out", *words])
    return cli_options.make_settings(arguments, "svd", num_frames)


def test_windows_follow_what_the_model_tells_unless_the_user_does() -> None:
    for words, num_frames, expected in (
        ((), 0, (14, 14)),
        ((), 25, (25, 25)),
        (("--window", "14"), 25, (14, 14)),
        (("--set", "video.frames=50"), 25, (50, 25)),
        (("--preset", "emerdiff"), 25, (25, 1)),
    ):
        settings = settings_of(num_frames, *words)
        assert (settings.video.frames, settings.window.length) == expected


def test_a_file_of_svd_xt_is_segmented_in_its_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = narrow_model(tmp_path / "svd_xt.safetensors", THIN_SVD)
    frames = tmp_path / "frames"
    frames.mkdir()
    Image.fromarray((np.arange(64 * 64 * 3) % 256).astype(np.uint8).reshape(64, 64, 3)).save(frames / "00000.png")
    words = ["segment", str(frames), "--out", str(tmp_path / "out"), "--model", str(model), "--clusters", "2"]
    assert cli.main([*words, "--device", "cpu", "--quality", "draft"]) == 0
    assert "about " in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "segmentation.json").read_text())
    assert record["settings"]["video"]["frames"] == record["settings"]["window"]["length"] == 25
