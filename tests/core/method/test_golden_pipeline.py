"""The whole pipeline with the ``reference`` preset gives the label maps that the paper's own code produced."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from vidseg.core.backbones.diffusers.backbone import DiffusersBackbone
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.config.settings import preset, replace_parts
from vidseg.core.method import upsampling
from vidseg.core.method.modulation import Inversion, ModulatedPair, UnitJob, modulate
from vidseg.core.method.pipeline import segment_windows

from ...golden_data import golden_dir
from ...narrow_checkpoint import NARROW


class Frames:
    """Frames that are held in memory."""

    def __init__(self, frames: Tensor) -> None:
        self.frames = frames
        self.num_frames = len(frames)

    def read(self, start: int, stop: int) -> Tensor:
        return self.frames[start:stop]


def arrays(name: str) -> dict[str, Tensor]:
    loaded = np.load(golden_dir() / f"{name}.npz")
    return {key: torch.from_numpy(loaded[key]) for key in loaded if loaded[key].dtype.kind in "fiu"}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> DiffusersBackbone:
    path: Path = tmp_path_factory.mktemp("golden") / "sd.safetensors"
    runpy.run_path(str(golden_dir() / "make_weights.py"))["main"]("sd", str(path))
    save_file(load_file(path), path, NARROW.to_metadata())
    golden = arrays("sd_default")
    return load_diffusers(path, device="cpu", conditioning=(golden["cond_crossattn"], golden["uncond_crossattn"]))


@pytest.mark.slow
def test_three_windows_named_by_ground_truth(backbone: DiffusersBackbone) -> None:
    golden = [arrays(f"sd_windows_{index}") for index in range(3)]
    spans = [range(6), range(6, 12), range(8, 14)]
    frames = torch.empty((14, 128, 256, 3))
    for span, window in zip(spans, golden, strict=True):
        frames[span.start : span.stop] = window["frames"].movedim(1, -1).float() / 255
    reference = torch.from_numpy(np.array(Image.open(golden_dir() / "sd_windows_gt_frame0.png")))
    settings = replace_parts(preset("reference"), window={"length": 6}, cluster={"num_clusters": 6})
    results = list(segment_windows(backbone, Frames(frames), settings, reference=reference))
    assert [result.frames for result in results] == spans
    equal = []
    for result, window in zip(results, golden, strict=True):
        assert torch.equal(result.coarse.maps, window["cbr_labels"])
        equal.append(result.labels.maps == window["seg_filtered"])
        agreement = equal[-1].float().mean()
        # In one frame of the first window answers tie in 8 bits: rounding, which differs from one number of threads
        # and one processor to the next, decides on up to half a percent of the window's pixels.
        assert agreement >= 0.99, f"frames {result.frames} agree on {agreement:.4f} of the pixels"
    agreement = torch.cat(equal).float().mean()
    assert agreement >= 0.995, f"{agreement:.4f} of the pixels agree"


@pytest.mark.slow
def test_one_window_of_clusters(backbone: DiffusersBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the way each region of each frame gets the modulated latents of the paper's code."""
    golden = arrays("sd_default")
    final, labels = golden["modulated_latents_final"], golden["labels"].tolist()
    starts, met = [0], set()  # first frames of what is modulated together

    def compare(denoiser: Any, start: Inversion, jobs: Sequence[UnitJob], *rest: Any) -> list[ModulatedPair]:
        pairs = modulate(denoiser, start, jobs, *rest)
        for (unit, job), pair in zip(jobs, pairs, strict=True):
            frame, label = starts[-1] + unit, int(job.owner.unique())
            expected = final[:, labels.index(label), frame]
            assert float((torch.cat(pair) - expected).abs().max()) < 1e-4
            met.add((frame, label))
        starts.append(starts[-1] + len(start.latents))
        return pairs

    monkeypatch.setattr(upsampling, "modulate", compare)
    frames = golden["frames"].movedim(1, -1).float() / 255
    settings = replace_parts(preset("reference"), cluster={"num_clusters": 5})
    result = next(segment_windows(backbone, Frames(frames), settings))
    maps = golden["cbr_labels"]
    assert met == {(frame, label) for frame, seen in enumerate(maps) for label in seen.unique().tolist()}
    assert torch.equal(result.coarse.maps, golden["cbr_labels"])
    agreement = (result.labels.maps == golden["seg_filtered"]).float().mean()
    assert agreement >= 0.995, f"{agreement:.4f} of the pixels agree"
