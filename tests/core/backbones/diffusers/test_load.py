"""Loading with the diffusers adapter: folders, the embedding of the empty prompt, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel
from vidseg.core.backbones.diffusers.backbone import DiffusersBackbone
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.checkpoints.describe import CONDITIONING_KEY, describe_model
from vidseg.core.types import InputError

from ..narrow_models import SD1, SD2, narrow_model

GUIDANCE = 5.0


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match=r"`device` must be one that this machine has, but got cuda:1\."):
        load_diffusers(narrow_model(tmp_path / "m.safetensors"), device="cuda:1")


def test_arguments_are_checked(tmp_path: Path) -> None:
    path = narrow_model(tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="`dtype`"):
        load_diffusers(path, dtype=torch.float64)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="`device`"):
            load_diffusers(path, device="cuda")
    with pytest.raises(InputError, match="positive"):
        load_diffusers(path, device="cpu", conditioning=(torch.zeros(77, 8), torch.zeros(77, 64)))


def save_folder(backbone: DiffusersBackbone, folder: Path, prediction: str = "epsilon") -> Path:
    backbone._unet.save_pretrained(folder / "unet")
    backbone._vae.save_pretrained(folder / "vae")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": prediction}))
    return folder


def test_folder_gives_the_same_as_the_file(backbone: DiffusersBackbone, latents: Tensor, tmp_path: Path) -> None:
    folder = save_folder(backbone, tmp_path, backbone.info.prediction)
    negative, positive = backbone._conditioning
    other = load_diffusers(folder, device="cpu", conditioning=(positive, negative))
    assert other.description.sizes.unet.heads == backbone.description.sizes.unet.heads
    assert other.description.sizes.vae == backbone.description.sizes.vae
    assert other.description.num_parameters["unet"] == backbone.description.num_parameters["unet"]
    assert len(other.info.fingerprint) == 64
    one, two = (b.run(lambda d: d.predict(latents, 0.4).denoised, GUIDANCE, latents.shape) for b in (backbone, other))
    assert torch.equal(one, two)
    assert torch.equal(backbone.decode(latents), other.decode(latents))
    with pytest.raises(InputError, match="empty prompt"):
        load_diffusers(folder, device="cpu")


def test_old_names_of_the_autoencoder_are_read(backbone: DiffusersBackbone, latents: Tensor, tmp_path: Path) -> None:
    folder = save_folder(backbone, tmp_path)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(weights)
    for new, name in old.items():
        tensors = {key.replace(f".{new}.", f".{name}."): value for key, value in tensors.items()}
    save_file(tensors, weights)
    other = load_diffusers(folder, device="cpu", conditioning=(backbone._conditioning[1], backbone._conditioning[0]))
    assert torch.equal(backbone.decode(latents[:1]), other.decode(latents[:1]))


def text_encoder(width: int, layers: int, activation: str) -> CLIPTextModel:
    torch.manual_seed(3)
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        hidden_act=activation,
    )
    return CLIPTextModel(config).eval()


def rewritten(path: Path, extra: dict[str, Tensor], sizes: Any) -> Path:
    tensors = {name: value for name, value in load_file(path).items() if name != CONDITIONING_KEY}
    save_file({**tensors, **extra}, path, sizes.to_metadata())
    return path


def sized(base: Any, context: int) -> Any:
    values = json.loads(base.to_metadata()["vidseg.config"])
    values["unet"]["context_dim"] = context
    return type(base).from_metadata(json.dumps(values))


def bare(model: CLIPTextModel) -> dict[str, Tensor]:
    return {name.removeprefix("text_model."): value for name, value in model.state_dict().items()}


def test_empty_prompt_of_sd1_is_computed_by_its_text_encoder(tmp_path: Path) -> None:
    encoder = text_encoder(768, 2, "quick_gelu")
    sizes = sized(SD1, 768)
    extra = {f"cond_stage_model.transformer.text_model.{n}": v for n, v in bare(encoder).items()}
    extra["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    path = rewritten(narrow_model(tmp_path / "m.safetensors", sizes), extra, sizes)
    tokens = torch.tensor([[49406] + 76 * [49407]])
    with torch.no_grad():
        expected = encoder(input_ids=tokens).last_hidden_state[0]
    assert describe_model(path).conditioning == "text encoder"
    negative, positive = load_diffusers(path, device="cpu")._conditioning
    assert torch.allclose(positive, expected, atol=1e-6)
    assert not bool(negative.any())


def open_clip(encoder: CLIPTextModel) -> dict[str, Tensor]:
    """Rename to OpenCLIP's layout, written from its definition."""
    names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    state, out = bare(encoder), {}
    prefix = "cond_stage_model.model."
    out[f"{prefix}token_embedding.weight"] = state["embeddings.token_embedding.weight"]
    out[f"{prefix}positional_embedding"] = state["embeddings.position_embedding.weight"]
    out[f"{prefix}text_projection"] = torch.zeros(encoder.config.hidden_size, encoder.config.hidden_size)
    for part in ("weight", "bias"):
        out[f"{prefix}ln_final.{part}"] = state[f"final_layer_norm.{part}"]
        for layer in range(encoder.config.num_hidden_layers):
            old, new = f"encoder.layers.{layer}.", f"{prefix}transformer.resblocks.{layer}."
            qkv = [state[f"{old}self_attn.{x}_proj.{part}"] for x in "qkv"]
            out[f"{new}attn.in_proj_{part}"] = torch.cat(qkv)
            out[f"{new}attn.out_proj.{part}"] = state[f"{old}self_attn.out_proj.{part}"]
            for name, renamed in names.items():
                out[f"{new}{renamed}.{part}"] = state[f"{old}{name}.{part}"]
    return out


def test_empty_prompt_of_sd2_is_that_of_the_last_layer_but_one(tmp_path: Path) -> None:
    encoder = text_encoder(128, 3, "gelu")
    sizes = sized(SD2, 128)
    path = rewritten(narrow_model(tmp_path / "m.safetensors", sizes), open_clip(encoder), sizes)
    tokens = torch.tensor([[49406, 49407] + 75 * [0]])
    with torch.no_grad():
        hidden = encoder(input_ids=tokens, output_hidden_states=True).hidden_states[-2]
        expected = getattr(encoder, "text_model", encoder).final_layer_norm(hidden)[0]
    positive = load_diffusers(path, device="cpu")._conditioning[1]
    assert torch.allclose(positive, expected, atol=1e-5)


def test_empty_prompt_of_a_folder(backbone: DiffusersBackbone, tmp_path: Path) -> None:
    width = backbone.description.sizes.unet.context_dim
    if width % 64:
        pytest.skip("the text encoder needs heads of 64 channels")
    folder = save_folder(backbone, tmp_path)
    encoder = text_encoder(width, 1, "gelu")
    encoder.save_pretrained(folder / "text_encoder")
    with torch.no_grad():
        expected = encoder(input_ids=torch.tensor([[49406, 49407] + 75 * [0]])).last_hidden_state[0]
    assert torch.allclose(load_diffusers(folder, device="cpu")._conditioning[1], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["cond_stage_model.model.other", "cond_stage_model.transformer.other"])
def test_unknown_text_encoder_is_refused(tmp_path: Path, name: str) -> None:
    path = rewritten(narrow_model(tmp_path / "m.safetensors"), {name: torch.zeros(1)}, SD2)
    with pytest.raises(InputError, match="text encoder"):
        load_diffusers(path, device="cpu")


def test_missing_tensor_is_reported_in_one_line(tmp_path: Path) -> None:
    path = narrow_model(tmp_path / "m.safetensors")
    tensors = load_file(path)
    del tensors["model.diffusion_model.middle_block.0.in_layers.2.weight"]
    save_file(tensors, path, SD2.to_metadata())
    with pytest.raises(InputError, match="does not fit") as error:
        load_diffusers(path, device="cpu")
    assert "\n" not in str(error.value)
