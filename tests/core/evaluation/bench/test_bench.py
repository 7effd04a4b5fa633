"""Each layout through its loader and the whole command; resuming; what is refused."""

from __future__ import annotations

import csv
import doctest
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from vidseg.core.command.main import EXIT_BAD_INPUT, main
from vidseg.core.engine.jobs import attempt
from vidseg.core.evaluation.bench import report as pictures
from vidseg.core.evaluation.bench.layouts import open_dataset
from vidseg.core.evaluation.bench.methods import ABLATION, Job, list_methods, title_methods
from vidseg.core.evaluation.bench.run import name_by_majority, run_job
from vidseg.core.evaluation.bench.tables import TABLE_2, list_table_1
from vidseg.core.types import InputError

from .synthetic import WRITERS, write_cityscapes, write_folders, write_vspw


@pytest.fixture(scope="module")
def model(thin_model: Path) -> Path:
    return thin_model


def bench(dataset: str, root: Path, out: Path, model: Path, *words: str) -> int:
    fast = ("--max-side", "64", "--set", "cluster.num_clusters=4", "--set", "modulation.step=24", "--device", "cpu")
    return main(["bench", dataset, str(root), "--out", str(out), "--model", str(model), *fast, *words])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


COARSE = ("--set", "modulation.enabled=false")


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_each_layout_passes_through_the_whole_bench(tmp_path: Path, model: Path, kind: str) -> None:
    root, out, name = WRITERS[kind](tmp_path / "data"), tmp_path / "out", kind.split(maxsplit=1)[0]
    baselines = ("--baselines",) if kind in {"vspw", "cityscapes"} else ()  # with a mask of the first frame and without
    assert bench(name, root, out, model, *baselines, *COARSE) == 0
    (main_row,) = [row for row in rows(out / "main.csv") if row["method"] == "ours, default"]
    assert 0 < float(main_row["mIoU"]) <= 100
    assert float(main_row["matched mIoU"]) >= float(main_row["mIoU per clip"]) - 1e-9
    assert (main_row["mVC8"] == "") == (name == "cityscapes")
    paper = [row["mIoU"] for row in rows(out / "main.csv") if row["method"].startswith("paper: Ours (SD),")]
    assert paper == {"vspw": ["60.6"], "cityscapes": ["37.3"], "camvid": ["20.6"], "folders": []}[name]
    if baselines:
        (color,) = [row for row in rows(out / "main.csv") if row["method"] == "color and position, K-means"]
        assert float(color["mIoU"]) > (20 if name == "cityscapes" else 60)  # a bright square on dark ground
        assert (out / "pictures" / "propagation.png").exists() == (name != "cityscapes")  # no first mask there
    with Image.open(out / "pictures" / "default.png") as picture:
        assert picture.width == 3 * 420
    assert r"\toprule" in (out / "main.tex").read_text(encoding="utf-8")


def test_ablation_prints_the_papers_rows_beside_ours_and_resumes(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = write_vspw(tmp_path / "data", ("1_a",), 3), tmp_path / "out"
    words = ("--ablation", "--max-frames", "2", "--preset", "default,paper", "--set", "cluster.num_clusters=2")
    assert bench("vspw", root, out, model, *words) == 0
    text = capsys.readouterr().out
    assert "| 14 | ✓ | ✓ | ✓ |" in text
    table = rows(out / "ablation.csv")
    assert [(row["batch size"], row["paper mIoU"]) for row in table] == [
        ("1", "33.4"),
        ("14", "43.4"),
        ("14", "45.6"),
        ("14", "46.6"),
        ("14", "47.4"),
        ("14", "46.5"),
    ]
    assert all(row["mIoU"] for row in table)
    parts = ["".join(row[part] for part in ("masked modulation", "feature aggregation", "CBR")) for row in table]
    assert parts == ["✗✗✗", "✗✗✗", "✓✗✗", "✓✓✗", "✓✗✓", "✓✓✓"]
    assert [row["method"] for row in rows(out / "main.csv")][-7] == "default: window 14, modulation, aggregation"
    results = {path: path.stat().st_mtime_ns for path in (out / "clips").rglob("*.json")}
    assert len(results) == 2 + 5 + 5
    gone = out / "clips" / "paper" / "1_a.json"
    gone.unlink()
    assert bench("vspw", root, out, model, *words) == 0
    assert "[100%] 1 of 1 clips" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in results if path != gone} == {
        path: time for path, time in results.items() if path != gone
    }


def test_results_are_the_same_again_and_other_settings_are_refused(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folders(tmp_path / "data", frames=4)
    for out in ("a", "b"):
        assert bench("folders", root, tmp_path / out, model, *COARSE) == 0
    for name in ("main.csv", "clips.csv", "classes.csv", "results.md"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()
    assert {row["class"] for row in rows(tmp_path / "a" / "classes.csv")} == {"ground", "square 0", "square 1"}
    capsys.readouterr()
    assert bench("folders", root, tmp_path / "a", model, *COARSE, "--set", "sampling.seed=2") == EXIT_BAD_INPUT
    error = capsys.readouterr().err
    assert "`settings.sampling.seed` of default/one is 2 and was 1" in error
    assert bench("folders", root, tmp_path / "a", model, *COARSE, "--set", "sampling.seed=2", "--overwrite") == 0
    for kind, number in (("masks", 0), ("frames", 1)):  # other content under the same names
        (root / "one" / kind / "00000.png").write_bytes((root / "two" / kind / f"0000{number}.png").read_bytes()[:-1])
        capsys.readouterr()
        assert bench("folders", root, tmp_path / "b", model, *COARSE) == EXIT_BAD_INPUT
        assert f"`content.{kind}` of default/one is " in capsys.readouterr().err
        (root / "one" / "masks" / "00000.png").write_bytes((root / "two" / "masks" / "00000.png").read_bytes())


def test_a_damaged_clip_ends_neither_the_others_nor_the_table(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folders(tmp_path / "data")
    (root / "two" / "frames" / "00004.png").write_bytes(b"no image")
    assert bench("folders", root, tmp_path / "out", model, *COARSE) == 2
    captured = capsys.readouterr()
    assert "default/two failed: `input` must hold readable images, but got 00004.png, which is damaged" in captured.err
    assert "Not all clips finished: ours, default." in captured.out
    (row,) = [row for row in rows(tmp_path / "out" / "clips.csv") if row["clip"] == "one"]
    assert float(row["ours, default"]) > 0


@pytest.mark.parametrize("number", [0, 3])
def test_a_mask_of_another_size_is_named_before_the_clip_is_segmented(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    root = write_folders(tmp_path / "data", ("one",), 4)
    Image.new("L", (32, 16)).save(root / "one" / "masks" / f"0000{number}.png")
    monkeypatch.setattr("vidseg.core.evaluation.bench.run.run_method", lambda *_: pytest.fail("the clip was segmented"))
    assert bench("folders", root, tmp_path / "out", model, *COARSE) == EXIT_BAD_INPUT
    error = capsys.readouterr().err
    assert f"0000{number}.png is 32x16. Write it in the size of the frames" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--preset", "nothing"), "`preset` must be one of"),
        (("--preset", "paper,paper"), "at most once"),
        (("--max-frames", "-1"), "must be at least 0"),
        (("--clips", "x"), "`--clips` must name clips"),
        (("--set", "cluster.num_clusters=many"), "must be a whole number"),
        (("--ablation", "--preset", "emerdiff"), "emerdiff and emerdiff-window-1 would both be window 1. Leave it out"),
        (("--ablation", "--quality", "draft"), "default-window-14 and default-modulation would both be window 14"),
        (("--ablation", *COARSE), "`--ablation` must have rows that differ"),
        (("--ablation", "--set", "refinement.enabled=false"), "default and default-modulation-aggregation"),
        (("--rows", "default,color"), "`--rows` must name rows that were asked for, but got ['color']"),
        (("--engine", "nothing"), None),
    ],
)
def test_wrong_options_are_refused_before_any_work(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str | None
) -> None:
    root = write_folders(tmp_path / "data")
    if message is None:
        with pytest.raises(SystemExit):
            bench("folders", root, tmp_path / "out", model, *words)
        return
    assert bench("folders", root, tmp_path / "out", model, *words) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "clips").exists()


def test_regions_without_names_are_measured_and_named_at_the_end(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = write_folders(tmp_path / "data", frames=4), tmp_path / "out"
    words = (*COARSE, "--nameless", "--baselines", "--rows", "default,color,slic,propagation")
    assert bench("folders", root, out, model, *words) == 0
    captured = capsys.readouterr()
    assert "no row 'label propagation of first-frame masks': it needs names." in captured.err
    assert "## data: regions without names" in captured.out
    table = rows(out / "nameless.csv")
    assert [row["clip"] for row in table] == ["one"] * 3 + ["two"] * 3 + ["mean of 2"] * 3
    named = {row["method"]: float(row["mIoU per clip"]) for row in rows(out / "main.csv")}
    for row in table[-3:]:
        assert float(row["best label mIoU"]) == pytest.approx(named[row["method"]])
    means = {row["method"]: row for row in table[-3:]}
    assert float(means["ours, default"]["regions"]) <= 4
    assert float(means["color and position, K-means"]["3D segmentation accuracy"]) > 80  # a bright square
    assert float(means["color and position, 3D SLIC"]["mean duration, frames"]) > 1
    before = (out / "results.md").read_text(encoding="utf-8")
    assert bench("folders", root, out, model, *words) == 0  # from what is stored
    assert (out / "results.md").read_text(encoding="utf-8") == before
    assert bench("folders", root, out, model, *words, "--rows", "slic") == 0
    capsys.readouterr()
    assert bench("folders", root, out, model, *COARSE) == EXIT_BAD_INPUT
    assert "`nameless` of default/one is None and was True" in capsys.readouterr().err


def test_slic_is_left_out_without_its_package(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    root = write_folders(tmp_path / "data", ("one",), 2)
    assert bench("folders", root, tmp_path / "out", model, "--baselines", "--rows", "color,slic") == 0
    captured = capsys.readouterr()
    assert "no row 'color and position, 3D SLIC': it needs scikit-image: pip install" in captured.err
    assert "| color and position, K-means |" in captured.out


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def stopped(job: Job, *rest: Any) -> Any:
        calls.append(job.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return attempt(job, *rest)

    monkeypatch.setattr("vidseg.core.engine.jobs.attempt", stopped)
    assert bench("folders", write_folders(tmp_path / "data"), tmp_path / "out", model, *COARSE) == 130
    error = capsys.readouterr().err
    assert "1 of 2 clips are done. Continue with: vidseg bench folders" in error


def test_cityscapes_clusters_are_named_by_the_labeled_frame(tmp_path: Path) -> None:
    clusters = torch.tensor([[[5, 5, 6, 6, 7]], [[5, 8, 6, 6, 7]]], dtype=torch.uint8)
    truth = torch.tensor([[7, 7, 26, 255, 255]], dtype=torch.uint8)
    named = name_by_majority(clusters, truth)
    assert named.tolist() == [[[7, 7, 26, 26, 255]], [[7, 255, 26, 26, 255]]]
    dataset = open_dataset("cityscapes", write_cityscapes(tmp_path))
    color = next(row for row in list_methods(["default"], ablation=False, baselines=True) if row.name == "color")
    settings = color.settings(dataset, ["frame.max_side=64", "cluster.num_clusters=4"])
    result = run_job(Job(color, dataset.clips[0], settings), None)
    assert result.record["frames"] == 28  # two windows of 14 reach the 20th frame
    assert result.record["scores"]["mIoU"] > 0.6
    assert result.picture.shape == (64, 128)


def test_propagation_needs_the_first_mask(tmp_path: Path) -> None:
    dataset = open_dataset("cityscapes", write_cityscapes(tmp_path))
    method = list_methods(["default"], ablation=False, baselines=True)[-1]
    job = Job(method, dataset.clips[0], method.settings(dataset, ["frame.max_side=64"]))
    with pytest.raises(InputError, match=r"`model` must name a model"):
        run_job(job, None)


def test_rows_fit_the_kind_of_model_and_the_quality(tmp_path: Path) -> None:
    dataset = open_dataset("folders", write_folders(tmp_path, frames=1))
    rows = {method.name: method for method in list_methods(["default"], ablation=True, baselines=True)}
    alone = rows["default-window-1"]
    assert alone.settings(dataset, []).feature.blocks == (7,)
    assert alone.settings(dataset, [], "svd").feature.blocks == (8,)
    assert alone.settings(dataset, []).window.length == 1
    assert rows["default"].settings(dataset, []).feature.blocks == (6, 7, 8)
    assert not rows["default"].settings(dataset, [], "sd", "fast").modulation.enabled
    assert rows["emerdiff-knn"].settings(dataset, [], "sd", "fast").modulation.enabled


def test_rows_are_those_of_the_paper() -> None:
    methods = list_methods(["paper"], ablation=True, baselines=True)
    assert [method.group for method in methods] == ["ours", *["ablation"] * 5, *["extra"] * 5, *["baseline"] * 5]
    assert len({method.name for method in methods}) == len(methods)
    named, regions = list_methods(["default"], ablation=False, baselines=True)[:2]
    assert (named.name, regions.name, regions.overrides) == ("default", "default-regions", ("cluster.named=regions",))
    assert [len(rows) for rows in TABLE_2.values()] == [len(ABLATION) + 1] * 2
    for name, dataset in (("vspw", 7), ("cityscapes", 6), ("camvid", 6), ("folders", 0)):
        assert len(list_table_1(name)) == dataset


def test_rows_with_the_same_settings_are_run_once(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folders(tmp_path / "data", ("one",), 3)
    changes = ("cluster.method=kmeans", "cluster.place=0", "cluster.motion=0", "sampling.noise=frame")
    as_paper = tuple(f"--set={each}" for each in changes)
    assert bench("folders", root, tmp_path / "out", model, "--ablation", "--baselines", *as_paper) == 0
    assert "[100%] 15 of 15 clips" in capsys.readouterr().err
    names = ("default-window-1", "emerdiff-knn")
    records = [json.loads((tmp_path / "out" / "clips" / name / "one.json").read_text()) for name in names]
    assert [(record["method"], record["made by"]["settings"]["preset"]) for record in records] == [
        ("default-window-1", "default"),
        ("emerdiff-knn", "emerdiff"),
    ]
    assert records[0]["tally"] == records[1]["tally"]


def test_rows_of_the_ablation_are_called_by_the_parts_that_run(tmp_path: Path) -> None:
    dataset = open_dataset("folders", write_folders(tmp_path, ("one",), 1))
    asked = list_methods(["default"], ablation=True, baselines=True)
    settings = [method.settings(dataset, ["window.length=2"], "sd", "balanced") for method in asked]
    assert [method.title for method in title_methods(asked, settings) if method.group in {"ours", "ablation"}] == [
        "ours, default",
        "default: window 1",
        "default: window 2",
        "default: window 2, modulation",
        "default: window 2, modulation, aggregation",
        "default: window 2, modulation, refinement",
    ]


def test_a_lack_of_memory_ends_one_clip(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(job: Job, *rest: Any) -> Any:
        if job.clip.name == "one":
            raise torch.OutOfMemoryError("out of memory")
        return run_job(job, *rest)

    monkeypatch.setattr("vidseg.core.evaluation.bench.run.run_job", full)
    assert bench("folders", write_folders(tmp_path / "data"), tmp_path / "out", model, *COARSE) == 2
    assert "default/one failed: out of memory" in capsys.readouterr().err
    assert (tmp_path / "out" / "clips" / "default" / "two.json").exists()


def test_records_hold_what_made_them(tmp_path: Path, model: Path) -> None:
    root = write_folders(tmp_path / "data", ("one",))
    assert bench("folders", root, tmp_path / "out", model, *COARSE, "--max-frames", "5") == 0
    record = json.loads((tmp_path / "out" / "clips" / "default" / "one.json").read_text())
    assert record["made by"]["settings"]["cluster"]["num_clusters"] == 4
    assert record["made by"]["frames"] == [5, "00000.png", "00004.png"]
    assert len(record["made by"]["model"]["fingerprint"]) == 64
    assert (record["frames"], record["labeled"]) == (5, 5)


def test_pictures_show_each_clip_once() -> None:
    assert doctest.testmod(pictures).failed == 0
    assert pictures.choose_notable({"a": 0.3}) == {"best": "a"}
