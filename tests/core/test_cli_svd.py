"""The command with Stable Video Diffusion: its own preset, whole windows, the memory that a run took."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from vidseg.core import cli

from .backbones.narrow_models import SVD, narrow_model


def test_svd_runs_with_its_own_preset_and_tells_its_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = narrow_model(tmp_path / "svd.safetensors", SVD)
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
