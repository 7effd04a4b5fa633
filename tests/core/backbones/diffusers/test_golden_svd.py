"""The diffusers adapter gives the tensors that the paper's own SVD code produced from the same weights."""

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
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.backbones.diffusers.svd_backbone import DiffusersSvdBackbone
from vidseg.core.backbones.protocol import Denoiser
from vidseg.core.backbones.schedule import make_edm_sigmas
from vidseg.core.config.settings import preset, replace_parts
from vidseg.core.method.coarse import CoarseScan
from vidseg.core.method.features import extract_features
from vidseg.core.method.modulation import Batching, Inversion, ModulatedPair, UnitJob, modulate
from vidseg.core.method.modulation_jobs import plan_jobs
from vidseg.core.method.pipeline import label_anchor
from vidseg.core.method.published import draw_video_window_noise
from vidseg.core.method.sampling import step_euler

from ....golden_data import golden_dir
from ....narrow_checkpoint import NARROW_SVD

GUIDANCE = 2.5
REFERENCE = preset("reference", "svd")
SHAPE = (14, 4, 16, 32)
SIGMAS = make_edm_sigmas(25)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    arrays = np.load(golden_dir() / "svd_default.npz")
    return {name: torch.from_numpy(arrays[name]) for name in arrays if arrays[name].dtype.kind in "fiu"}


@pytest.fixture(scope="module")
def frames(golden: dict[str, Tensor]) -> Tensor:
    return golden["frames"].movedim(1, -1).float() / 255


@pytest.fixture(scope="module")
def backbone(golden: dict[str, Tensor], tmp_path_factory: Any) -> DiffusersSvdBackbone:
    path: Path = tmp_path_factory.mktemp("golden") / "svd.safetensors"
    main: Callable[[str, str], None] = runpy.run_path(str(golden_dir() / "make_weights.py"))["main"]
    main("svd", str(path))
    save_file(load_file(path), path, NARROW_SVD.to_metadata())
    loaded = load_diffusers(path, device="cpu", conditioning=(golden["cond_crossattn"], golden["uncond_crossattn"]))
    assert isinstance(loaded, DiffusersSvdBackbone)
    return loaded


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def test_noise_levels_and_latents_of_the_posterior_sample(
    backbone: DiffusersSvdBackbone, golden: dict[str, Tensor], frames: Tensor
) -> None:
    assert relative(SIGMAS.float(), golden["sigmas"]) < 1e-6
    posterior_noise, _, noise = draw_video_window_noise(1, SHAPE)
    assert torch.equal(noise, golden["noise_eps"])
    assert relative(backbone.encode(frames[:3], posterior_noise[:3]), golden["latents_clean"][:3]) < 1e-5


def test_plain_steps_and_queries(backbone: DiffusersSvdBackbone, golden: dict[str, Tensor], frames: Tensor) -> None:
    """The first step with the conditioning made from the frame, and the last ones with the queries."""
    conditioning = backbone.condition(frames[0], draw_video_window_noise(1, SHAPE)[1], REFERENCE.video)

    def job(denoiser: Any) -> None:
        for step, x in ((17, golden["latents_noised"]), (23, golden["xt_time_22"])):
            denoised = denoiser.predict(x, float(SIGMAS[step])).denoised
            after = step_euler(x, denoised, float(SIGMAS[step]), float(SIGMAS[step + 1]))
            assert relative(after, golden[f"xt_time_{step}"]) < 1e-5
        queries = denoiser.queries(after, float(SIGMAS[24]), (6, 7, 8))
        for block, query in zip((6, 7, 8), queries, strict=True):
            assert relative(query, golden[f"q_block{block}_t24"][14:]) < 1e-4

    backbone.conditioned(conditioning, REFERENCE.video, REFERENCE.variant).run(job, GUIDANCE, SHAPE)


@pytest.mark.slow
def test_coarse_maps_of_the_window(backbone: DiffusersSvdBackbone, golden: dict[str, Tensor], frames: Tensor) -> None:
    features = extract_features(backbone, frames, REFERENCE)
    anchor_labels = label_anchor(features, replace_parts(REFERENCE, cluster={"num_clusters": 4}))
    maps = CoarseScan(anchor_labels, REFERENCE).step(features).maps  # once: the code's windows repeat the only one
    assert torch.equal(maps, golden["cbr_labels"])


@pytest.mark.slow
def test_a_modulated_region(backbone: DiffusersSvdBackbone, golden: dict[str, Tensor], frames: Tensor) -> None:
    label = 1
    conditioning = backbone.condition(frames[0], draw_video_window_noise(1, SHAPE)[1], REFERENCE.video)
    (chosen,) = [job for job in plan_jobs(golden["cbr_labels"], REFERENCE) if int(job.owner.unique()) == label]
    start = Inversion(golden["latents_clean"], golden["noise_eps"], SIGMAS)

    def job(denoiser: Denoiser) -> list[ModulatedPair]:
        return modulate(denoiser, start, [UnitJob(0, chosen)], REFERENCE, Batching(1))

    (ours,) = backbone.conditioned(conditioning, REFERENCE.video, REFERENCE.variant).run(job, GUIDANCE, SHAPE)
    for latents, expected in zip((ours.plus, ours.minus), golden["modulated_latents_final"][:, label], strict=True):
        assert float((latents - expected).abs().max()) < 1e-4
    decoded = backbone.decode(ours.plus[:2])
    gray = (decoded.clamp(0, 1) * 255).to(torch.uint8).int()
    assert float(((gray - golden["decoded_plus_mask1"][:2].int()).abs() <= 1).float().mean()) > 0.999
