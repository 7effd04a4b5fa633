"""SDXL with the diffusers adapter: layers against plain hooks, folders, prompts, what a file says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.backbones.diffusers.weights import build_vae
from vidseg.core.backbones.diffusers.xl import DiffusersXl
from vidseg.core.backbones.schedule import make_training_sigmas
from vidseg.core.checkpoints.describe import CONDITIONING_KEY, POOLED_KEY, describe_model
from vidseg.core.checkpoints.sizes import METADATA_KEY, ModelSizes
from vidseg.core.types import InputError

from ..narrow_models import XL, narrow_model
from ..test_feature_contract import predict, read

SHAPE = (4, 8, 16)
STEP = 49
LAYERS = ("0.5.output", "0.7.output", "3.0.cross_query", "3.0.query", "4.1.key", "5.0.output")


@pytest.fixture(scope="module")
def path(tmp_path_factory: Any) -> Path:
    return narrow_model(tmp_path_factory.mktemp("model") / "xl.safetensors", XL)


@pytest.fixture(scope="module")
def backbone(path: Path) -> DiffusersXl:
    return load_diffusers(path, device="cpu")


@pytest.fixture(scope="module")
def folder(backbone: DiffusersXl, tmp_path_factory: Any) -> Path:
    """The same as a diffusers folder."""
    folder: Path = tmp_path_factory.mktemp("folder")
    backbone._unet.save_pretrained(folder / "unet")
    vae: Any = build_vae(backbone.description, torch.device("cpu"), torch.float32)
    assert isinstance(vae, AutoencoderKL)
    vae.register_to_config(scaling_factor=XL.scale_factor)
    vae.save_pretrained(folder / "vae")
    (folder / "model_index.json").write_text(json.dumps({"force_zeros_for_empty_prompt": True}))
    return folder


@pytest.fixture(scope="module")
def latents() -> Tensor:
    return torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def call_plainly(backbone: DiffusersXl, latents: Tensor, stored: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what diffusers' own UNet predicts of noised latents at `STEP`, and what plain hooks see of `LAYERS`."""
    unet, seen, hooks = backbone._unet, {}, []
    for name in LAYERS:
        block, depth, kind = name.split(".")
        layer = unet.up_blocks[int(block) // 3].attentions[int(block) % 3].transformer_blocks[int(depth)]
        paths = {"query": "attn1.to_q", "key": "attn1.to_k", "cross_query": "attn2.to_q", "output": ""}
        module = layer.get_submodule(paths[kind])
        hooks.append(module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out)))
    sigma = float(make_training_sigmas()[STEP])
    numbers = torch.tensor([[64.0, 128.0, 0.0, 0.0, 64.0, 128.0]]).expand(len(latents), -1)
    told = {"text_embeds": stored[POOLED_KEY].expand(len(latents), -1), "time_ids": numbers}
    context = stored[CONDITIONING_KEY].expand(len(latents), -1, -1)
    scaled = latents / (sigma**2 + 1) ** 0.5
    noise = unet(scaled, STEP, encoder_hidden_states=context, added_cond_kwargs=told).sample
    for hook in hooks:
        hook.remove()
    return latents - sigma * noise, seen


def test_layers_are_those_that_plain_hooks_see(backbone: DiffusersXl, path: Path, latents: Tensor) -> None:
    denoised, seen = call_plainly(backbone, latents, load_file(path))
    sigma = float(make_training_sigmas()[STEP])
    for name, found in zip(LAYERS, read(backbone, latents, sigma, LAYERS), strict=True):
        assert torch.allclose(found, seen[name], atol=1e-4), name
    assert torch.allclose(predict(backbone, latents, sigma, 1.0).denoised, denoised, atol=1e-4)


def test_folder_gives_the_same_as_the_file(backbone: DiffusersXl, folder: Path, latents: Tensor) -> None:
    negative, positive = backbone._conditioning
    other = load_diffusers(folder, device="cpu", conditioning=(positive, negative))
    assert other.description.sizes == backbone.description.sizes
    assert (other.description.family, other.description.conditioning) == ("SDXL", "zeros")
    other._pooled = backbone._pooled
    assert all(map(torch.equal, read(other, latents, 0.2, LAYERS), read(backbone, latents, 0.2, LAYERS)))
    frames = torch.rand(1, 64, 128, 3)
    assert torch.equal(other.encode(frames), backbone.encode(frames))


def test_zeros_stand_for_the_empty_prompt_where_they_were_trained(path: Path, folder: Path, tmp_path: Path) -> None:
    tensors = load_file(path)
    for key in (CONDITIONING_KEY, POOLED_KEY):
        del tensors[key]
    save_file(tensors, tmp_path / "m.safetensors", {METADATA_KEY: XL.to_metadata()[METADATA_KEY]})
    for model in (tmp_path / "m.safetensors", folder):
        loaded = load_diffusers(model, device="cpu")
        assert not loaded._conditioning.any()
        assert not loaded._pooled.any()


def test_text_encoders_embed_the_empty_prompt_where_zeros_were_not_trained(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for part in ("unet", "vae"):
        (other / part).symlink_to(folder / part)
    (other / "model_index.json").write_text(json.dumps({"force_zeros_for_empty_prompt": False}))
    with pytest.raises(InputError, match="no text encoders"):
        load_diffusers(other, device="cpu")
    torch.manual_seed(4)
    sizes = {"vocab_size": 49408, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    first = CLIPTextModel(CLIPTextConfig(hidden_size=16, **sizes)).eval()
    second = CLIPTextModelWithProjection(CLIPTextConfig(hidden_size=48, projection_dim=48, **sizes)).eval()
    first.save_pretrained(other / "text_encoder")
    second.save_pretrained(other / "text_encoder_2")
    loaded = load_diffusers(other, device="cpu")
    prompt = [49406, 49407]
    with torch.no_grad():
        one = first(input_ids=torch.tensor([prompt + 75 * [49407]]), output_hidden_states=True)
        two = second(input_ids=torch.tensor([prompt + 75 * [0]]), output_hidden_states=True)
    expected = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)[0]
    assert torch.allclose(loaded._conditioning[1], expected, atol=1e-6)
    assert torch.allclose(loaded._pooled[1], two.text_embeds[0], atol=1e-6)
    assert not loaded._conditioning[0].any()
    assert not loaded._pooled[0].any()


def test_a_file_tells_velocity_and_zero_terminal_snr(path: Path, tmp_path: Path, latents: Tensor) -> None:
    sizes = ModelSizes(XL.unet, XL.vae, XL.scale_factor, "v_prediction", zero_snr=True)
    other = tmp_path / "v.safetensors"
    save_file(load_file(path), other, {METADATA_KEY: sizes.to_metadata()[METADATA_KEY]})
    loaded = load_diffusers(other, device="cpu")
    assert loaded.info.prediction == "v_prediction"
    assert torch.equal(loaded.training_sigmas, make_training_sigmas(zero_snr=True))
    plain = load_diffusers(path, device="cpu")
    answers = [predict(model, latents, 0.2).denoised for model in (plain, loaded)]
    assert not torch.allclose(*answers, atol=1e-3)
    assert describe_model(path).qualities == ("fast", "draft")
    assert not hasattr(loaded, "decode")
