"""The diffusers adapter gives the tensors that the paper's own code produced from the same weights."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from vidseg.core.backbones.diffusers.backbone import DiffusersBackbone
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.backbones.protocol import REPLAYED_TOGETHER
from vidseg.core.backbones.schedule import make_sigmas
from vidseg.core.config.settings import preset
from vidseg.core.method.modulation import Batching, Inversion, ModulatedPair, UnitJob, modulate
from vidseg.core.method.modulation_jobs import plan_jobs
from vidseg.core.method.published import draw_window_noise
from vidseg.core.method.sampling import step_euler

from ....golden_data import golden_dir
from ....narrow_checkpoint import NARROW

GUIDANCE = 5.0
REFERENCE = preset("reference")
SHAPE = (14, 4, 16, 32)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    arrays = np.load(golden_dir() / "sd_default.npz")
    return {name: torch.from_numpy(arrays[name]) for name in arrays if arrays[name].dtype.kind in "fiu"}


@pytest.fixture(scope="module")
def backbone(golden: dict[str, Tensor], tmp_path_factory: Any) -> DiffusersBackbone:
    path: Path = tmp_path_factory.mktemp("golden") / "sd.safetensors"
    main: Callable[[str, str], None] = runpy.run_path(str(golden_dir() / "make_weights.py"))["main"]
    main("sd", str(path))
    save_file(load_file(path), path, NARROW.to_metadata())
    conditioning = (golden["cond_crossattn"], golden["uncond_crossattn"])
    return load_diffusers(path, device="cpu", conditioning=conditioning)


@pytest.fixture(scope="module")
def sigmas(backbone: DiffusersBackbone) -> Tensor:
    return make_sigmas(backbone.training_sigmas, 25)


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def test_latents_of_the_posterior_sample(backbone: DiffusersBackbone, golden: dict[str, Tensor]) -> None:
    posterior_noise, noise = draw_window_noise(1, SHAPE)
    frames = golden["frames"].movedim(1, -1).float() / 255
    assert torch.equal(noise, golden["noise_eps"])
    assert relative(backbone.encode(frames[:4], posterior_noise[:4]), golden["latents_clean"][:4]) < 1e-5


def test_plain_steps_and_queries(backbone: DiffusersBackbone, golden: dict[str, Tensor], sigmas: Tensor) -> None:
    chosen = [0, 6, 13]

    def job(denoiser: Any) -> None:
        x = golden["latents_noised"][chosen]
        for step in (22, 23, 24):
            queries = denoiser.queries(x, float(sigmas[step]), (6, 7, 8))
            prediction = denoiser.predict(x, float(sigmas[step]))
            x = step_euler(x, prediction.denoised, float(sigmas[step]), float(sigmas[step + 1]))
            assert relative(x, golden[f"xt_time_{step}"][chosen]) < 1e-5
        for block, query in zip((6, 7, 8), queries, strict=True):
            assert relative(query, golden[f"q_block{block}_t24"][14:][chosen]) < 1e-4

    backbone.run(job, GUIDANCE, SHAPE)


def modulated(
    backbone: DiffusersBackbone, golden: dict[str, Tensor], sigmas: Tensor, frames: list[int]
) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
    """Return plus and minus latents by (frame, label), by the reference's settings."""
    maps = golden["cbr_labels"][frames]
    start = Inversion(golden["latents_clean"][frames], golden["noise_eps"][frames], sigmas)
    jobs = [UnitJob(unit, job) for unit, cells in enumerate(maps) for job in plan_jobs(cells[None], REFERENCE)]

    def job(denoiser: Any) -> list[ModulatedPair]:
        return modulate(denoiser, start, jobs, REFERENCE, Batching(8, REPLAYED_TOGETHER))

    pairs = backbone.run(job, GUIDANCE, SHAPE)
    return {
        (frames[unit], int(job.owner.unique())): (pair.plus[0], pair.minus[0])
        for (unit, job), pair in zip(jobs, pairs, strict=True)
    }


def test_modulated_latents_and_frames(backbone: DiffusersBackbone, golden: dict[str, Tensor], sigmas: Tensor) -> None:
    """In two frames; those of all frames are compared where the whole pipeline makes them."""
    frames = [0, 9]
    final, labels = golden["modulated_latents_final"], golden["labels"].tolist()
    ours = modulated(backbone, golden, sigmas, frames)
    assert {label for _, label in ours} == set(golden["cbr_labels"][frames].unique().tolist())
    for (frame, label), pair in ours.items():
        for sign, latents in enumerate(pair):
            assert float((latents - final[sign, labels.index(label), frame]).abs().max()) < 1e-4
    for label in (0, 1):
        found = [frame for frame in frames if (frame, label) in ours][:2]
        for sign, name in enumerate(("plus", "minus")):
            decoded = backbone.decode(torch.stack([ours[frame, label][sign] for frame in found]))
            gray = (decoded.clamp(0, 1) * 255).to(torch.uint8).int()
            differences = (gray - golden[f"decoded_{name}_mask{label}"][found].int()).abs()
            assert float((differences <= 1).float().mean()) > 0.999


def test_an_absent_label_leaves_the_unmodulated_latents(golden: dict[str, Tensor]) -> None:
    """What lets us skip (frame, label) pairs without a cell: the reference's own outcome."""
    labels = golden["labels"].tolist()
    absent = [
        (index, frame)
        for index, label in enumerate(labels)
        for frame in range(14)
        if not bool((golden["cbr_labels"][frame] == label).any())
    ]
    for index, frame in absent:
        plus, minus = golden["modulated_latents_final"][:, index, frame]
        assert float((plus - minus).abs().max()) < 1e-5
