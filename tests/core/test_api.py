from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vidseg
from PIL import Image
from torch import Tensor
from vidseg.core.backbones.protocol import Backbone
from vidseg.core.command.main import main
from vidseg.core.config.keywords import list_keywords
from vidseg.core.config.settings import SETTINGS
from vidseg.core.files.result_folder import ResultFolder
from vidseg.core.types import InputError

from ..narrow_checkpoint import random_model
from ..sources import ROOT

QUICK: dict[str, Any] = {"quality": "draft", "num_clusters": 3, "length": 3}
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    random_model(path)
    return path


@pytest.fixture(scope="module")
def model(path: Path) -> Backbone:
    return vidseg.load_model(path, device="cpu")


def squares(count: int = 5) -> Tensor:
    """A bright square that moves over a dark slope, ``(T,64,64,3)`` uint8."""
    slope = torch.arange(64, dtype=torch.uint8)[None, :, None].expand(64, 64, 3)
    frames = slope.repeat(count, 1, 1, 1)
    for number in range(count):
        frames[number, 16:48, 4 * number : 4 * number + 32] = torch.tensor([250, 200, 20], dtype=torch.uint8)
    return frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    for number, frame in enumerate(squares()):
        Image.fromarray(frame.numpy()).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def result(model: Backbone) -> vidseg.Segmentation:
    return vidseg.segment(squares(), model, **QUICK)


def test_result_holds_labels_of_all_frames(result: vidseg.Segmentation) -> None:
    assert result.frames == range(5)
    assert result.maps.shape == (5, 64, 64)
    assert result.maps.dtype == torch.uint8
    assert {int(label) for label in result.maps.unique()} <= {region.label for region in result.regions}
    assert len(result.regions) == 3


def test_the_number_of_regions_changes_without_another_run(result: vidseg.Segmentation) -> None:
    five = result.cut(5)
    assert [region.name for region in five.regions] == [f"region {label}" for label in range(5)]
    assert torch.equal(five.cut(3).maps, result.maps)
    assert five.frames == result.frames
    with pytest.raises(vidseg.InputError, match="must know the small clusters"):
        result._replace(leaves=None).cut(2)


@pytest.mark.parametrize(
    "kind",
    [
        lambda: squares().float() / 255,
        lambda: (squares().float() / 255).double().numpy(),
        lambda: squares().numpy(),
        lambda: np.frombuffer(squares().numpy().tobytes(), np.uint8).reshape(5, 64, 64, 3),
        lambda: np.ascontiguousarray(squares().numpy()[..., ::-1])[..., ::-1],
    ],
    ids=["float", "double array", "array", "array not to be written", "array read backwards"],
)
def test_frames_of_every_form_give_the_same(
    kind: Callable[[], Any], model: Backbone, result: vidseg.Segmentation
) -> None:
    again = vidseg.segment(kind(), model, **QUICK)
    assert torch.equal(again.maps, result.maps)
    assert again.regions == result.regions


def test_paths_of_frames_and_model_give_the_same(folder: Path, path: Path, result: vidseg.Segmentation) -> None:
    stages = []
    again = vidseg.segment(
        str(folder), path, device="cpu", progress=lambda stage, _done, _total: stages.append(stage), **QUICK
    )
    assert torch.equal(again.maps, result.maps)
    assert stages[0] == "check input"
    assert "features" in stages


def test_labels_are_those_of_the_command(
    folder: Path, path: Path, result: vidseg.Segmentation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(path), "--quality", "draft", "--clusters", "3", "--window", "3", "--device", "cpu"]
    assert main(["segment", str(folder), "--out", str(tmp_path / "out"), *options]) == 0
    capsys.readouterr()
    assert torch.equal(torch.stack(list(ResultFolder(tmp_path / "out").read_label_maps(5))), result.maps)
    record = json.loads((tmp_path / "out" / "segmentation.json").read_text())
    assert [(region["label"], region["name"]) for region in record["regions"]] == list(result.regions)


@pytest.mark.parametrize("from_disk", [True, False], ids=["folder", "tensor"])
def test_windows_hold_what_the_whole_holds(
    from_disk: bool, folder: Path, model: Backbone, result: vidseg.Segmentation
) -> None:
    windows = list(vidseg.segment_windows(folder if from_disk else squares(), model, **QUICK))
    assert [window.frames for window in windows] == [range(3), range(3, 5)]
    assert torch.equal(torch.cat([window.maps for window in windows]), result.maps)
    assert windows[-1].regions == result.regions


def test_windows_are_read_when_it_is_their_turn(folder: Path, model: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    original = vidseg.core.files.clip.Clip.read

    def spy(self: Any, start: int, stop: int) -> Tensor:
        read.append((start, stop))
        return original(self, start, stop)

    monkeypatch.setattr(vidseg.core.files.clip.Clip, "read", spy)
    windows = vidseg.segment_windows(folder, model, **{**QUICK, "length": 1})
    assert not read
    next(windows)
    assert max(stop for _, stop in read) <= 2  # the next window is read ahead, no more
    windows.close()  # type: ignore[attr-defined]  # a generator


def test_anchor_mask_names_the_regions(model: Backbone, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = torch.full((64, 64), 7, dtype=torch.int64)
    mask[16:48, :32] = 9
    Image.fromarray(mask.to(torch.uint8).numpy()).save(tmp_path / "mask.png")
    results = [
        vidseg.segment(squares(), model, anchor_mask=given, **QUICK)
        for given in (mask, mask.numpy().astype(np.uint16), str(tmp_path / "mask.png"))
    ]
    assert {region.label for region in results[0].regions} <= {7, 9}
    assert all(torch.equal(results[0].maps, other.maps) for other in results[1:])
    assert not caplog.records
    white = vidseg.segment(squares(), model, anchor_mask=((mask == 9) * 255).numpy(), **QUICK)
    assert torch.equal(white.maps, (results[0].maps == 9).to(torch.uint8))
    assert "255 (white) is read as class 1" in caplog.text


def test_settings_come_from_names_or_at_once(model: Backbone, result: vidseg.Segmentation) -> None:
    dotted = {"cluster.num_clusters": 3, "window__length": 3}
    settings = vidseg.Settings.of(quality="draft", **dotted)
    assert settings == vidseg.Settings.of("default", "draft", num_clusters=3, length=3)
    assert torch.equal(vidseg.segment(squares(), model, settings=settings).maps, result.maps)
    changed = vidseg.Settings.of(kind="svd", blocks=[7, 8], factor=10, new_regions=True, enlarging__method="guided")
    assert changed.video.frames == 14
    assert changed.feature.blocks == (7, 8)
    assert changed.modulation.factor == 10
    assert changed.scene.new_regions is True
    assert changed.enlarging.method == "guided"


def test_every_setting_has_one_keyword() -> None:
    keywords = list_keywords()
    assert tuple(keywords.values()) == tuple(SETTINGS)
    assert keywords["num_clusters"] == "cluster.num_clusters"
    assert keywords["modulation__step"] == "modulation.step"
    assert keywords["video__frames"] == "video.frames"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max_sid": 3}, "`max_sid` must be a setting, but there is none of that name. Use max_side, tiles, "),
        ({"step": 3}, "`step` must be a setting, .*feature__step.*modulation__step"),
        ({"num_clusters": 12.5}, "`num_clusters` must be a whole number, but got '12.5'"),
        ({"modulation__enabled": 1}, "`modulation__enabled` must be true or false"),
        ({"memory": "all"}, "`memory` must be one of previous, anchor"),
        ({"seed": -1}, "`seed` must lie in"),
        ({"num_clusters": 100}, "`num_clusters` must be at most the number of tokens, 80"),
        ({"preset": "none"}, "`preset` must be one of default"),
        ({"quality": "best"}, "`quality` must be one of exact"),
        ({"settings": vidseg.Settings(), "quality": "fast"}, "`settings` must not be combined"),
        ({"device": "gpu"}, "`device` must be cuda, mps or cpu, but got 'gpu'"),
        ({"dtype": torch.int8}, "`dtype` must be one of"),
        ({"model": "none.safetensors"}, "`model` must be an existing file"),
        ({"model": torch.nn.Identity()}, "`model` must be a path or what `load_model` returns, but got Identity"),
        ({"frames": [squares()]}, "`frames` must be a tensor, an array or a path, but got list"),
        (
            {"frames": "none.mp4"},
            "`frames` must be a video file or a folder of frames, but got none.mp4, which does not exist",
        ),
        ({"frames": squares()[0]}, r"`frames` must have shape \(T, H, W, 3"),
        ({"frames": squares()[:0]}, "`frames` must hold at least one frame"),
        ({"frames": squares().long()}, "Divide by 255"),
        ({"frames": squares().float()}, r"`frames` must hold finite values in \[0, 1\]"),
        ({"frames": np.array([["a"]])}, "`frames` must hold numbers"),
        ({"anchor_mask": "none.png"}, "`anchor_mask` must be a label image"),
        ({"anchor_mask": torch.zeros(64, 64).long()}, "`anchor_mask` must tell regions apart"),
        ({"anchor_mask": torch.eye(32).long()}, "`anchor_mask` must have the size of the frames, 64x64"),
        ({"anchor_mask": torch.rand(64, 64)}, "`anchor_mask` must hold whole numbers"),
        ({"anchor_mask": torch.eye(64).long() * 300}, "`anchor_mask` must hold whole numbers"),
        ({"anchor_mask": torch.zeros(3, 64, 64).long()}, "`anchor_mask` must have shape"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
@pytest.mark.parametrize("function", [vidseg.segment, vidseg.segment_windows])
def test_what_does_not_fit_is_refused_before_a_model_is_loaded(
    function: Callable[..., object], arguments: dict[str, Any], said: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "vidseg.core.backbones.diffusers.backbone.DiffusersBackbone.__init__",
        lambda *_: pytest.fail("a model is loaded"),
    )
    with pytest.raises(InputError, match=said):
        function(**{"frames": squares(), "model": path, **arguments})


def test_a_loaded_model_has_its_device(model: Backbone) -> None:
    with pytest.raises(InputError, match="`device` must not be given with a loaded model"):
        vidseg.segment(squares(), model, device="cpu", settings=vidseg.Settings())
    with pytest.raises(InputError, match="`video__frames` must be 0 for an image model"):
        vidseg.segment(squares(), model, settings=vidseg.Settings.of(kind="svd"))


def test_a_missing_bundled_model_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidseg.core.api.DEMO_MODEL", tmp_path / "none")
    with pytest.raises(InputError, match="`model` must name a model, since none is bundled here"):
        vidseg.load_model()


@pytest.mark.parametrize("code", EXAMPLES, ids=["segment", "segment_windows"])
def test_examples_of_the_docs_run(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(code.splitlines()) <= 15
    exec(compile(code, "docs/python.md", "exec"), {})  # noqa: S102, our own text
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(("16 frames of (256, 448) pixels", "frames 0 to 7: labels [0,"))
    assert len(lines) in {2, 7}


def run_python(*words: str) -> str:
    """Return what Python prints, started where the package is found as it is here."""
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, cwd=ROOT / "tests", timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, vidseg; print(vidseg.__version__, *{'torch', 'numpy', 'diffusers', 'av'} & set(sys.modules))"
    assert run_python("-c", code) == vidseg.__version__


def test_the_package_runs_as_a_command() -> None:
    told = run_python("-m", "vidseg", "--version")
    assert re.fullmatch(r"vidseg \d+\.\d+\.\d+", told)
    assert told == f"vidseg {vidseg.__version__}"
