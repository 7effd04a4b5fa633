"""Models as people load them: with a LoRA, in other number formats, and streamed from the host's memory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_management
import comfy.model_sampling
import comfy.sd
import comfy.taesd.taesd
import pytest
import torch
from comfy.cli_args import args
from safetensors.torch import load_file, save_file
from torch import Tensor
from vidseg.core.backbones.comfy.backbone import ComfyBackbone
from vidseg.core.backbones.protocol import Denoiser
from vidseg.core.checkpoints.sizes import UNET_PREFIX
from vidseg.core.config.parts import ModulationConfig
from vidseg.core.types import Features, InputError
from vidseg.nodes.demo_model import LoadedModel, load_narrow_model

from ..core.backbones.narrow_models import SD1, SD2, narrow_model
from ..core.backbones.test_contract import close
from .graphs import call, coarse_labels, wired

TRANSFORMER = "output_blocks.{}.1.transformer_blocks.0."
LAYERS = (
    "input_blocks.1.1.transformer_blocks.0.attn1.to_v",
    "middle_block.1.transformer_blocks.0.attn2.to_k",
    TRANSFORMER.format(6) + "attn1.to_q",
    TRANSFORMER.format(7) + "attn1.to_q",
    TRANSFORMER.format(7) + "attn2.to_out.0",
    "output_blocks.7.1.proj_out",
    TRANSFORMER.format(9) + "ff.net.2",
)
"""Layers with a LoRA: the last projection of the modulated block among them, whose row sums the short call needs."""
RANK, ALPHA, STRENGTH = 2, 4.0, 0.7


class Pair(NamedTuple):
    """One model without a LoRA, with it through the host, and with weights changed by hand."""

    plain: LoadedModel
    lora: LoadedModel
    by_hand: LoadedModel


def low_rank(name: str, weight: Tensor, seed: int) -> dict[str, Tensor]:
    """Return a LoRA of one layer as its files name it; its change is about as large as ``weight``."""
    generator = torch.Generator().manual_seed(seed)
    rest = (1,) * (weight.ndim - 2)
    up = torch.randn((weight.shape[0], RANK, *rest), generator=generator) * weight.std()
    down = torch.randn((RANK, weight.shape[1], *rest), generator=generator)
    key = f"diffusion_model.{name}"
    return {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down, f"{key}.alpha": torch.tensor(ALPHA)}


def changed_by_hand(path: Path, lora: dict[str, Tensor]) -> Path:
    """Write the model of ``path`` with the LoRA added to its weights."""
    weights = load_file(path)
    for layer in LAYERS:
        up, down = (lora[f"diffusion_model.{layer}.lora_{part}.weight"] for part in ("up", "down"))
        weight = weights[f"{UNET_PREFIX}{layer}.weight"]
        weight += STRENGTH * ALPHA / RANK * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    target = path.with_name(f"changed_{path.name}")
    save_file(weights, target, (SD2 if "SD2" in path.name else SD1).to_metadata())
    return target


@pytest.fixture(scope="module", params=["SD2", "SD1"])
def pair(request: Any, tmp_path_factory: Any) -> Pair:
    path = tmp_path_factory.mktemp("model") / f"{request.param}.safetensors"
    narrow_model(path, SD2 if request.param == "SD2" else SD1)
    weights = load_file(path)
    lora = {}
    for seed, layer in enumerate(LAYERS):
        lora |= low_rank(layer, weights[f"{UNET_PREFIX}{layer}.weight"], seed)
    plain, by_hand = load_narrow_model(path), load_narrow_model(changed_by_hand(path, lora))
    patched, _ = comfy.sd.load_lora_for_models(plain.model, None, lora, STRENGTH, 0)
    assert len(patched.patches) == len(LAYERS)
    return Pair(plain, plain._replace(model=patched), by_hand)


@pytest.fixture(params=["at once", "streamed"])
def loading(request: Any, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> str:
    """Load models at once, or as with little GPU memory: weights and LoRA are fetched in each call of a layer."""
    if request.param == "streamed":
        kind = type(pair.plain.model)
        load = kind.load

        def streamed(self: Any, device_to: Any = None, *_args: Any, **_options: Any) -> Any:
            return load(self, device_to, lowvram_model_memory=1, full_load=False)

        comfy.model_management.unload_all_models()
        monkeypatch.setattr(kind, "load", streamed)
    return str(request.param)


def extracted(loaded: LoadedModel, frames: Tensor) -> Features:
    features: Features = call("ExtractDiffusionFeatures", **wired(loaded), frames=frames)
    return features


def upsampled(loaded: LoadedModel, features: Features, **options: Any) -> Tensor:
    """Return maps ``(T,H,W)`` of the last stage, which modulates in the last step alone."""
    inputs = {**wired(loaded), "features": features, "labels": coarse_labels(features), **options}
    maps: Tensor = call("MaskedModulationUpsample", **inputs, modulation_step=24).maps
    return maps


def segmented(loaded: LoadedModel, frames: Tensor) -> tuple[Features, Tensor]:
    """Run the five stages; returns features and maps ``(T,H,W)`` of the last stage."""
    features = extracted(loaded, frames)
    return features, upsampled(loaded, features)


@pytest.fixture(scope="module")
def maps(loaded: LoadedModel, features: Features) -> Tensor:
    """Maps ``(T,H,W)`` by the model that nothing was done to."""
    return upsampled(loaded, features)


def agreement(maps: Tensor, others: Tensor) -> float:
    return float((maps == others).float().mean())


def distance(features: Features, others: Features) -> float:
    """Return the largest relative difference (RMS) of queries and matching queries."""
    parts = ((features.queries, others.queries), (features.matching, others.matching))
    return max(float((a - b).norm() / b.norm()) for a, b in parts)


@pytest.fixture(scope="module")
def expected_of_pair(pair: Pair, frames: Tensor) -> tuple[Features, Tensor]:
    """Features and maps of two frames by the weights changed by hand."""
    return segmented(pair.by_hand, frames[:2])


@pytest.mark.slow
def test_lora_equals_weights_changed_by_hand(
    pair: Pair, expected_of_pair: tuple[Features, Tensor], loading: str, frames: Tensor
) -> None:
    frames = frames[:2]
    before = extracted(pair.plain, frames)
    features, maps = segmented(pair.lora, frames)
    expected, expected_maps = expected_of_pair
    close(features.queries, expected.queries, 1e-4)
    close(features.matching, expected.matching, 1e-4)
    assert agreement(maps, expected_maps) > 0.999
    assert distance(features, before) > 0.05
    after = extracted(pair.plain, frames)
    assert torch.equal(after.queries, before.queries)
    if loading == "streamed":
        comfy.model_management.unload_all_models()


@pytest.mark.parametrize("block", [5, 7, 8])
def test_short_call_holds_with_a_lora(pair: Pair, loading: str, block: int) -> None:
    latents = torch.randn((2, 4, 8, 16), generator=torch.Generator().manual_seed(1))
    offset = torch.zeros(2, 4, 8)
    offset[:, 1:3, 2:6] = 50.0
    backbone = ComfyBackbone(*pair.lora)
    sigma = float(backbone.training_sigmas[119])

    def job(denoiser: Denoiser) -> list[Tensor]:
        cache = denoiser.predict(latents, sigma, keep=ModulationConfig(block=block)).cache
        assert cache is not None
        frames = torch.tensor([0, 1])
        short = denoiser.replay(latents, sigma, cache, frames, offset)
        assert denoiser._short_calls, "the short call was found wrong"  # type: ignore[attr-defined]
        denoiser._short_calls = False  # type: ignore[attr-defined]
        full = denoiser.replay(latents, sigma, cache, frames, offset)
        return [short, full, denoiser.replay(latents, sigma, cache, frames, None)]

    short, full, plain = backbone.run(job, 5.0, (2, 4, 8, 16))
    close(short, full, 1e-4)
    assert float((full - plain).abs().max() / plain.abs().max()) > 1e-3, f"{loading}: the offset has no effect"


@pytest.mark.parametrize("kind", ["X0", "IMG_TO_IMG", "EDM"])
def test_models_that_predict_neither_noise_nor_velocity_are_refused(loaded: LoadedModel, kind: str) -> None:
    schedule, prediction = comfy.model_sampling.ModelSamplingDiscrete, getattr(comfy.model_sampling, kind)
    model = loaded.model.clone()
    model.add_object_patch("model_sampling", type("Changed", (schedule, prediction), {})(model.model.model_config))
    with pytest.raises(InputError, match=f"must predict noise .* got {kind}. Remove the node"):
        ComfyBackbone(*loaded._replace(model=model))


def test_noise_levels_are_read_from_a_device_without_float64(loaded: LoadedModel) -> None:
    model = loaded.model.clone()
    sampling = copy.deepcopy(model.get_model_object("model_sampling"))
    sampling.sigmas = sampling.sigmas.as_subclass(LikeMps)
    model.add_object_patch("model_sampling", sampling)
    expected = ComfyBackbone(*loaded).training_sigmas
    assert torch.equal(ComfyBackbone(*loaded._replace(model=model)).training_sigmas, expected)


class LikeMps(Tensor):
    """A tensor on a device without float64."""

    def double(self, *_args: Any, **_options: Any) -> Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self, *_args: Any, **_options: Any) -> Tensor:
        return self.as_subclass(Tensor)


def tiny_autoencoder() -> Any:
    """Return a VAE of the kind TAESD with random weights, as *Load VAE* makes one from two files in `vae_approx`."""
    generator = torch.Generator().manual_seed(1)
    shapes = {name: tensor.shape for name, tensor in comfy.taesd.taesd.TAESD().state_dict().items()}
    weights = {name: 0.06 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return comfy.sd.VAE(sd={**weights, "vae_scale": torch.tensor(0.18215), "vae_shift": torch.tensor(0.0)})


def test_a_tiny_autoencoder_can_stand_for_the_models_own(
    loaded: LoadedModel, frames: Tensor, features: Features, maps: Tensor
) -> None:
    tiny = tiny_autoencoder()
    other = upsampled(loaded, features, vae=tiny)
    assert maps.shape == other.shape == frames.shape[:3]
    assert set(other.unique().tolist()) <= {region.label for region in coarse_labels(features).regions}
    assert agreement(maps, other) < 1, "the other decoder was not used"
    assert torch.isfinite(extracted(loaded._replace(vae=tiny), frames).queries).all()


FORMATS = {
    "float16": ("fp16_unet", torch.float16, False, 3e-3, 0.97),
    "bfloat16": ("bf16_unet", torch.bfloat16, False, 3e-2, 0.9),
    "float8_e4m3fn": ("fp8_e4m3fn_unet", torch.float8_e4m3fn, False, 0.2, 0.7),
    "float16 throughout": ("fp16_unet", torch.float16, True, 1e-2, 0.95),
    "bfloat16 throughout": ("bf16_unet", torch.bfloat16, True, 6e-2, 0.85),
}
"""Option of the host, type of the weights, whether layers compute in it too; tolerances: features (relative RMS
against float32) and labels (agreeing pixels, same coarse maps)."""


@pytest.mark.parametrize("name", FORMATS)
def test_other_number_formats_stay_close(
    model_file: Path, frames: Tensor, features: Features, maps: Tensor, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    option, dtype, throughout, tolerance, share = FORMATS[name]
    monkeypatch.setattr(args, option, True)
    if throughout:
        monkeypatch.setattr(comfy.model_management, "unet_manual_cast", lambda *_args, **_options: None)
    other = load_narrow_model(model_file)
    assert other.model.model.diffusion_model.output_blocks[7][1].proj_out.weight.dtype == dtype
    assert other.model.model.manual_cast_dtype == (None if throughout else torch.float32)
    assert distance(extracted(other, frames), features) < tolerance
    found = upsampled(other, features)
    assert found.shape == frames.shape[:3]
    assert agreement(found, maps) > share
