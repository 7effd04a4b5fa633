"""The benchmarks of speed run and print what they promise; their figures are not judged here."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable
from math import isfinite
from pathlib import Path

import pytest
import torch
from vidseg.core.method.estimate import QUERY_SHARE

from ..core.backbones.narrow_models import THIN, narrow_model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a script in this process, which has imported what takes seconds to import."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")

    def start(script: str, *arguments: object) -> None:
        monkeypatch.setattr("sys.argv", [script, *map(str, arguments)])
        runpy.run_path(str(ROOT / "benchmarks" / script), run_name="__main__")

    return start


@pytest.mark.slow
def test_rows_are_timed_and_counted(
    tmp_path: Path, run_here: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    size = ("--width", 64, "--height", 64, "--frames", 2, "--clusters", 2)
    run_here("run.py", "--out", tmp_path, "--rows", "fast", "--device", "cpu", *size)
    (fast,) = json.loads((tmp_path / "run.json").read_text())
    assert fast["UNet"] == pytest.approx(2 * QUERY_SHARE)  # of each frame: the reading of queries
    assert fast["clip"] == 1
    assert fast["seconds"] == pytest.approx(sum(fast[f"{part} s"] for part in ("encode", "UNet", "decode", "other")))
    assert "| fast |" in capsys.readouterr().out


@pytest.mark.slow
def test_memory_is_that_of_the_process_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import scaling  # noqa: PLC0415, beside this file's folder

    monkeypatch.setattr(scaling, "SIZE", (64, 64))
    monkeypatch.setattr(scaling, "BASE_SIDE", 64)
    options = ["--frames", "2", "--sides", "", "--clusters", "2", "--exact-frames", "1"]
    monkeypatch.setattr("sys.argv", ["scaling.py", "--out", str(tmp_path), *options])
    scaling.main()
    points = json.loads((tmp_path / "scaling.json").read_text())
    assert [(point["axis"], point["frames"]) for point in points] == [("frames", 2), ("clusters", 1)]
    assert all(point["CPU seconds"] > 0 and point["peak MiB"] > 100 for point in points)
    assert "| frames | 2 | 2 |" in capsys.readouterr().out
    later = {**points[0], "frames": 6, "CPU seconds": points[0]["CPU seconds"] + 3}
    assert " | 0.750 | " in scaling.markdown([points[0], later]).splitlines()[3]
    assert scaling.measured("-S", "-c", "pass")["peak MiB"] < 60, "torch, which this process holds, was counted"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_qualities_are_scored_against_exact(
    tmp_path: Path, run_here: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    clips = ROOT / "tests" / "quality" / "clips"
    name = sorted(path.name for path in clips.iterdir() if path.is_dir())[0]
    options = ("--max-frames", 1, "--max-side", 64, "--clusters", 2, "--clips", name, "--device", "cpu")
    run_here("dial.py", clips, "--out", tmp_path, *options)
    results = json.loads((tmp_path / "dial.json").read_text())["clips"]
    assert results[name]["exact"]["same as exact"] == 1
    assert "| balanced |" in capsys.readouterr().out
    assert torch.load(tmp_path / "labels" / f"{name}_draft.pt").dtype == torch.uint8
    with pytest.raises(SystemExit):
        run_here("dial.py", clips, "--out", tmp_path, "--clips", "nope")
    assert re.search(r"error: `--clips` must name clips of .*, but got \['nope'\]", capsys.readouterr().err)


def test_stages_are_measured(tmp_path: Path, run_here: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # else scikit-learn asks a process
    size = ("--frames", 2, "--size", "96x160", "--max-side", 160)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.set_num_threads", lambda _count: None)
        lines: list[str] = []
        patch.setattr("builtins.print", lambda text, **_options: lines.append(str(text)))
        run_here("stages.py", *size, "--inside", "kmeans")
    rows = json.loads(lines[-1])
    assert {"K-means, once", "scene context", "guided filter", "overlay, drawn and encoded"} <= set(rows)
    assert all(isfinite(row["seconds"]) for row in rows.values())


def test_starts_are_timed(run_here: Callable[..., None], tmp_path: Path) -> None:
    run_here("memory.py", "--rows", "vidseg --help", "--out", tmp_path / "memory.md")
    assert re.search(r"\| vidseg --help \| \d\.\d\d \|\n", (tmp_path / "memory.md").read_text())


def test_the_benchmark_of_a_gpu_runs_in_small_on_a_cpu(run_here: Callable[..., None], tmp_path: Path) -> None:
    size = ("--frames", 1, "--sizes", "64x64", "--max-side", 64, "--clusters", 2, "--device", "cpu", "--dtype", "fp32")
    model = narrow_model(tmp_path / "thin.safetensors", THIN)
    run_here("gpu.py", "--model", model, *size, "--out", tmp_path / "gpu.md")
    table = (tmp_path / "gpu.md").read_text()
    assert [line.split(" | ")[0] for line in table.splitlines()[2:6]] == ["| draft", "| fast", "| balanced", "| exact"]
    assert table.count("| 1.0000 |") == 4
