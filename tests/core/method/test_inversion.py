"""Values of `sampling.noise` and of `modulation.blending`: what the model is given, and what stays outside a region."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from vidseg.core.backbones.diffusers.backbone import DiffusersBackbone
from vidseg.core.backbones.diffusers.denoiser import DiffusersDenoiser
from vidseg.core.backbones.diffusers.svd_backbone import DiffusersSvdBackbone
from vidseg.core.config.settings import PRESETS, Settings, preset, replace_parts
from vidseg.core.method.features import extract_features
from vidseg.core.method.frames import HeldFrames
from vidseg.core.method.pipeline import segment
from vidseg.core.method.published import draw_window_noise
from vidseg.core.types import Features

FRAMES = torch.rand(5, 64, 64, 3, generator=torch.Generator().manual_seed(0))
SHAPE = (4, 8, 8)


def with_noise(noise: str, **parts: dict[str, Any]) -> Settings:
    small = {"cluster": {"num_clusters": 2, "num_leaves": 4}, "window": {"length": 2}, **parts}
    return replace_parts(Settings(), sampling={"noise": noise}, **small)


def extract(backbone: DiffusersBackbone, noise: str, first: int = 0) -> Features:
    return extract_features(backbone, FRAMES[first:], with_noise(noise), first_frame=first)


def test_shared_noise_is_one_map_however_the_clip_is_cut(thin_backbone: DiffusersBackbone) -> None:
    whole, rest = extract(thin_backbone, "shared"), extract(thin_backbone, "shared", 3)
    assert torch.equal(whole.noise, whole.noise[:1].expand(5, *SHAPE))
    assert torch.equal(whole.queries[3:], rest.queries)
    assert torch.equal(whole.noise[0], extract(thin_backbone, "frame").noise[0])


def test_noise_by_windows_is_that_of_the_published_code(thin_backbone: DiffusersBackbone) -> None:
    found, by_frame = extract(thin_backbone, "window"), extract(thin_backbone, "frame")
    assert torch.equal(found.noise[:2], draw_window_noise(1, (2, *SHAPE))[1])
    assert torch.equal(found.noise[2:4], found.noise[:2])
    assert torch.equal(found.noise[4:], draw_window_noise(1, (1, *SHAPE))[1])
    assert torch.equal(found.latents, by_frame.latents)  # the mode of the posterior, which the published code samples
    published = replace(with_noise("frame"), variant="published")
    sampled = extract_features(thin_backbone, FRAMES[:2], published)
    assert torch.equal(sampled.noise, by_frame.noise[:2])
    assert not torch.equal(sampled.latents, by_frame.latents[:2])


def test_the_default_of_image_models_alone_has_no_noise_and_the_reference_has_it_by_windows() -> None:
    for kind in ("sd", "svd", "sdxl"):
        noises = {name: preset(name, kind).sampling.noise for name in PRESETS}
        usual = dict.fromkeys(PRESETS, "frame") | {"reference": "window"}
        assert noises == (usual | {"default": "none"} if kind == "sd" else usual)


def test_without_noise_the_unet_reads_the_clean_latents_once(
    thin_backbone: DiffusersBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Tensor] = []
    original = DiffusersDenoiser._inputs

    def inputs(self: DiffusersDenoiser, *arguments: Any) -> Any:
        found = original(self, *arguments)
        given.append(found[1])
        return found

    monkeypatch.setattr(DiffusersDenoiser, "_inputs", inputs)
    found = extract(thin_backbone, "none")
    torch.testing.assert_close(torch.cat(given), found.latents)
    assert torch.equal(found.noise, extract_features(thin_backbone, FRAMES, with_noise("frame")).noise)
    assert with_noise("none").steps_to_features == 0
    assert with_noise("frame").steps_to_features == 2


@pytest.mark.parametrize("noise", ["shared", "window", "none"])
def test_a_video_model_takes_each_noise(thin_svd_backbone: DiffusersSvdBackbone, noise: str) -> None:
    parts: dict[str, dict[str, Any]] = {"sampling": {"noise": noise}, "video": {"frames": 2}, "window": {"length": 2}}
    settings = replace_parts(preset("default", "svd"), **parts, modulation={"step": 24})
    features = extract_features(thin_svd_backbone, FRAMES[:2], settings)
    assert bool(features.queries.isfinite().all())
    assert torch.equal(features.noise[0], features.noise[1]) == (noise == "shared")


@pytest.mark.parametrize("noise", ["shared", "none"])
def test_regions_are_modulated_with_each_noise_and_blended_with_encoded_latents(
    thin_backbone: DiffusersBackbone, noise: str
) -> None:
    settings = with_noise(noise, modulation={"blending": "encoded", "step": 23})
    labels = segment(thin_backbone, HeldFrames(FRAMES[:2]), settings)
    assert labels.maps.shape == (2, 64, 64)
    assert len(labels.maps.unique()) == 2
    plain = segment(thin_backbone, HeldFrames(FRAMES[:2]), with_noise(noise, modulation={"step": 23}))
    assert not torch.equal(labels.maps, plain.maps)
