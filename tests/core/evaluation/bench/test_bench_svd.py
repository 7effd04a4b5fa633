"""The ablation and the baselines with a video model: its own blocks, whole windows, the paper's SVD column."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from vidseg.core.command.main import main
from vidseg.core.evaluation.bench.dataset import Dataset
from vidseg.core.evaluation.bench.methods import BASELINES, list_methods

from ...backbones.narrow_models import THIN_SVD, narrow_model
from .synthetic import write_vspw

ROWS = ("window-1", "window-14", "modulation", "modulation-aggregation", "modulation-refinement")
FAST = ("--max-side=64", "--device=cpu", "--set=cluster.num_clusters=2", "--set=modulation.step=24")


def test_ablation_and_baselines_with_a_video_model(tmp_path: Path) -> None:
    model = narrow_model(tmp_path / "svd.safetensors", THIN_SVD)
    root, out = write_vspw(tmp_path / "data", ("1_a",), 2), tmp_path / "out"
    windows = ("--set=video.frames=2", "--set=window.length=2")
    words = ["bench", "vspw", str(root), "--out", str(out), "--model", str(model), "--ablation", "--baselines"]
    assert main([*words, *FAST, *windows]) == 0
    with (out / "ablation.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["paper mIoU"] for row in table] == ["26.6", "38.9", "38.6", "39.4", "37.1", "38.2"]
    assert all(0 < float(row["mIoU"]) <= 100 for row in table)
    with (out / "main.csv").open(encoding="utf-8", newline="") as file:
        scores = {row["method"]: row["mIoU"] for row in csv.DictReader(file)}
    assert all(scores[method.title] for method in BASELINES)
    made = {row: json.loads((out / "clips" / f"default-{row}" / "1_a.json").read_text())["made by"] for row in ROWS}
    used = [made[row]["settings"] for row in ROWS]
    assert [settings["feature"]["blocks"] for settings in used] == [[8], [8], [8], [6, 7, 8], [8]]
    assert [settings["window"]["length"] for settings in used] == [1, 2, 2, 2, 2]
    assert [settings["modulation"]["factor"] for settings in used] == [10, 10, 50, 50, 50]
    assert [settings["refinement"]["enabled"] for settings in used] == [False, False, False, False, True]
    assert {(settings["modulation"]["block"], settings["video"]["frames"]) for settings in used} == {(8, 2)}


def test_windows_of_all_rows_follow_svd_xt() -> None:
    dataset = Dataset("folders", "Folders", (), 20, 0)
    lengths = {
        method.name: (settings.video.frames, settings.window.length)
        for method in list_methods(["default"], ablation=True, baselines=True)
        for settings in [method.settings(dataset, (), "svd", "exact", 25)]
    }
    alone = {"default-window-1", "emerdiff-frame", "emerdiff-knn"}
    assert lengths == {name: (25, 1 if name in alone else 25) for name in lengths}
