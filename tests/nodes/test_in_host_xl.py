"""SDXL in the host: the contract of features, labels of the command, what its descendants change, what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import pytest
import torch
from torch import Tensor
from vidseg.core.backbones.comfy.load import model_kind, open_backbone
from vidseg.core.backbones.comfy.xl import ComfyXl
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.backbones.schedule import make_training_sigmas
from vidseg.core.config.settings import Settings, preset
from vidseg.core.method.features import extract_features
from vidseg.core.method.pipeline import segment
from vidseg.core.types import InputError
from vidseg.nodes.demo_model import LoadedModel

from ..core.backbones import test_feature_contract as contract
from ..core.backbones.narrow_models import XL, narrow_model
from .graphs import call, wired
from .narrow_xl import load_xl

globals().update({name: test for name, test in vars(contract).items() if name.startswith("test_")})
latents, sigma = contract.latents, contract.sigma


@pytest.fixture(scope="module")
def xl_file(tmp_path_factory: Any) -> Path:
    return narrow_model(tmp_path_factory.mktemp("model") / "xl.safetensors", XL)


@pytest.fixture(scope="module")
def xl(xl_file: Path) -> LoadedModel:
    return load_xl(xl_file)


@pytest.fixture(scope="module")
def case(xl: LoadedModel) -> contract.Case:
    return contract.XL_CASE._replace(backbone=open_backbone(*xl))


def test_same_numbers_and_labels_as_the_command(xl_file: Path, xl: LoadedModel, frames: Tensor) -> None:
    host, other, frames = open_backbone(*xl), load_diffusers(xl_file, device="cpu"), frames[:2]
    assert model_kind(xl.model) == host.info.kind == "sdxl"
    assert torch.equal(host.encode(frames), other.encode(frames))
    assert torch.equal(host.training_sigmas, other.training_sigmas)
    ours, theirs = (extract_features(model, frames, preset("default", "sdxl")) for model in (host, other))
    assert torch.allclose(ours.queries, theirs.queries, atol=1e-6)
    wide, tiled = torch.cat([frames[:1]] * 2, 2), Settings.of(kind="sdxl", tiles=128)  # each is told the size of a tile
    ours, theirs = (extract_features(model, wide, tiled) for model in (host, other))
    assert torch.allclose(ours.queries, theirs.queries, atol=1e-6)
    source = SimpleNamespace(num_frames=len(frames), read=lambda start, stop: frames[start:stop])
    for quality in ("fast", "draft"):
        labels = call(
            "SegmentVideo", **wired(xl), frames=frames, quality=quality, num_clusters=4, preset="default"
        ).maps
        settings = Settings.of("default", quality, kind="sdxl", num_clusters=4)
        assert torch.equal(labels, segment(other, source, settings).maps)


def test_stages_give_the_labels_of_the_whole(xl: LoadedModel, frames: Tensor) -> None:
    whole = call("SegmentVideo", **wired(xl), frames=frames, quality="fast", num_clusters=4, preset="default")
    features = call("ExtractDiffusionFeatures", **wired(xl), frames=frames)
    anchor = call("KMeansInit", features=features, num_clusters=4)
    labels = call("SceneContextKNN", features=features, anchor_labels=anchor)
    labels = call("CorrespondenceRefine", labels=labels)
    full = call("MaskedModulationUpsample", **wired(xl), features=features, labels=labels, quality="fast")
    assert torch.equal(full.maps, whole.maps)


def test_layers_are_widgets(xl: LoadedModel, frames: Tensor) -> None:
    features = call(
        "ExtractDiffusionFeatures", **wired(xl), frames=frames, layers="3.0.query, 3.0.key", matching_layers="5.1.key"
    )
    assert (features.queries.shape[-1], features.matching.shape[-1]) == (128, 64)


@pytest.mark.parametrize("quality", ["exact", "balanced"])
def test_modulation_is_refused_before_any_work(
    xl: LoadedModel, frames: Tensor, quality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ComfyXl, "encode", None)
    with pytest.raises(InputError, match=r"`quality` must be fast or draft with NarrowXl.*features"):
        call("SegmentVideo", **wired(xl), frames=frames, quality=quality)


def test_velocity_and_zero_terminal_snr_are_as_the_host_has_them(
    xl_file: Path, xl: LoadedModel, latents: Tensor
) -> None:
    plain = ComfyXl(*xl)
    velocity = ComfyXl(*load_xl(xl_file, v_pred=torch.zeros(0), ztsnr=torch.zeros(0)))
    assert (plain.info.prediction, velocity.info.prediction) == ("epsilon", "v_prediction")
    assert torch.equal(plain.training_sigmas, make_training_sigmas())
    assert torch.equal(velocity.training_sigmas, make_training_sigmas(zero_snr=True))
    answers = [contract.predict(model, latents, 0.3).denoised for model in (plain, velocity)]
    assert not torch.allclose(*answers, atol=1e-3)


def test_lora_and_freeu_of_the_host_take_part(xl: LoadedModel, latents: Tensor, sigma: float) -> None:
    def read(model: Any) -> Tensor:
        return contract.read(ComfyXl(model, *xl[1:]), latents, sigma, ("3.0.query",))[0]

    plain = read(xl.model)
    tuned = xl.model.clone()
    key = "diffusion_model.output_blocks.0.1.transformer_blocks.0.attn1.to_q.weight"
    tuned.add_patches({key: (torch.randn(64, 64, generator=torch.Generator().manual_seed(1)),)}, 1.0)
    assert not torch.allclose(read(tuned), plain, atol=1e-3)
    freed = xl.model.clone()
    freed.set_model_output_block_patch(lambda h, skip, _options: (1.5 * h, skip))
    assert not torch.allclose(read(freed), plain, atol=1e-3)
    assert torch.equal(read(xl.model), plain)
    assert not any(module._forward_hooks for module in xl.model.model.diffusion_model.modules())


def test_interrupt_stops_within_a_call(xl: LoadedModel, latents: Tensor, sigma: float) -> None:
    def job(denoiser: Any) -> None:
        comfy.model_management.interrupt_current_processing()
        denoiser.queries(latents, sigma, ("0.0.query",))

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        ComfyXl(*xl).run(job, 1.0, latents.shape)


def test_prompt_without_pooled_text_is_refused(xl: LoadedModel) -> None:
    with pytest.raises(InputError, match=r"`positive` must hold the pooled text"):
        ComfyXl(xl.model, xl.vae, [[xl.positive[0][0], {}]])


def test_relatives_are_refused_by_name(xl: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = xl.model.model.diffusion_model
    monkeypatch.setattr(unet, "in_channels", 9)
    with pytest.raises(InputError, match="an inpainting model"):
        open_backbone(*xl)
    monkeypatch.undo()
    monkeypatch.setattr(unet.output_blocks[0][1], "transformer_blocks", unet.output_blocks[0][1].transformer_blocks[:4])
    with pytest.raises(InputError, match="decoder block 0 holds attention in another arrangement"):
        open_backbone(*xl)
