"""The diffusers adapter of Stable Video Diffusion against diffusers' own forward pass; folders; the image encoder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from vidseg.core.backbones.diffusers.encoders import DEVIATION, MEAN
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.backbones.diffusers.svd_backbone import DiffusersSvdBackbone, count_kept_bytes
from vidseg.core.backbones.protocol import Denoiser
from vidseg.core.checkpoints.describe import CONDITIONING_KEY, FRAME_ENCODER_PREFIX, IMAGE_PREFIX, describe_model
from vidseg.core.checkpoints.sizes import VAE_PREFIX
from vidseg.core.config.parts import ModulationConfig
from vidseg.core.config.settings import preset
from vidseg.core.types import Conditioning, InputError

from ..narrow_models import SVD, narrow_model
from ..test_contract import close

VIDEO = preset("default", "svd").video
SIGMA = 1.273
FRAMES, SHAPE = 3, (3, 4, 8, 16)


@pytest.fixture(scope="module")
def path(tmp_path_factory: Any) -> Path:
    return narrow_model(tmp_path_factory.mktemp("model") / "svd.safetensors", SVD)


@pytest.fixture(scope="module")
def backbone(path: Path) -> DiffusersSvdBackbone:
    loaded = load_diffusers(path, device="cpu")
    assert isinstance(loaded, DiffusersSvdBackbone)
    return loaded


@pytest.fixture(scope="module")
def latents() -> Tensor:
    return 1.6 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def conditioning(backbone: DiffusersSvdBackbone) -> Conditioning:
    generator = torch.Generator().manual_seed(2)
    frame = torch.rand(64, 128, 3, generator=generator)
    return backbone.condition(frame, torch.randn(3, 64, 128, generator=generator), VIDEO)


@torch.no_grad()
def own_forward(backbone: DiffusersSvdBackbone, latents: Tensor, conditioning: Conditioning) -> Tensor:
    """Predict the clean latents of the conditional half with the library's forward pass."""
    scaled = latents / math.hypot(1, SIGMA)
    sample = torch.cat([scaled, conditioning.image.expand_as(latents)], dim=1)[None]
    ids, level = torch.tensor([conditioning.numbers]), torch.tensor(math.log(SIGMA) / 4)
    output = backbone._unet(sample, level, conditioning.embedding[None], ids).sample[0]
    return latents / (1 + SIGMA**2) - output * (SIGMA / math.hypot(1, SIGMA))


def test_prediction_equals_the_library_s(
    backbone: DiffusersSvdBackbone, conditioning: Conditioning, latents: Tensor
) -> None:
    ours = backbone.conditioned(conditioning, VIDEO).run(lambda d: d.predict(latents, SIGMA).denoised, 1.0, SHAPE)
    close(ours, own_forward(backbone, latents, conditioning), 1e-5)


def test_modulation_equals_an_offset_on_both_attentions(
    backbone: DiffusersSvdBackbone, conditioning: Conditioning, latents: Tensor
) -> None:
    """The closed form ``(2 - alpha) * offset (x) r`` against adding the offset inside the library's forward pass."""
    offset = torch.zeros(FRAMES, 4, 8)
    offset[:, 1:3, 2:6], offset[1] = 50.0, 0.0
    layer = backbone._unet.up_blocks[2].attentions[2]
    cells = offset.flatten(1)  # (T,N)
    hooks = [
        layer.transformer_blocks[0].attn1.register_forward_hook(lambda _m, _i, out: out + cells[..., None]),
        layer.temporal_transformer_blocks[0].attn1.register_forward_hook(lambda _m, _i, out: out + cells.T[..., None]),
    ]
    try:
        explicit = own_forward(backbone, latents, conditioning)
    finally:
        for hook in hooks:
            hook.remove()

    def job(denoiser: Denoiser) -> Tensor:
        cache = denoiser.predict(latents, SIGMA, keep=ModulationConfig(block=8, inject=False)).cache
        assert cache is not None
        return denoiser.replay(latents, SIGMA, cache, torch.arange(FRAMES), offset)

    close(backbone.conditioned(conditioning, VIDEO).run(job, 1.0, SHAPE), explicit, 1e-5)
    assert float((explicit - own_forward(backbone, latents, conditioning)).abs().max()) > 1e-2


def test_what_is_kept_may_lie_elsewhere_and_its_size_is_known(
    backbone: DiffusersSvdBackbone, conditioning: Conditioning, latents: Tensor
) -> None:
    def job(denoiser: Any) -> int:
        halves = denoiser.predict(latents, SIGMA, keep=ModulationConfig(block=8)).cache.halves
        tensors = [
            t for half in halves for t in (half.hidden, *half.skips, *(x for r in half.attention.values() for x in r))
        ]
        return sum(tensor.nbytes for tensor in tensors)

    kept = backbone.conditioned(conditioning, VIDEO).run(job, 2.5, SHAPE)
    bound = count_kept_bytes(backbone.description, SHAPE, 4)
    assert 0.6 * bound < kept <= bound


def save_folder(backbone: DiffusersSvdBackbone, folder: Path) -> Path:
    backbone._unet.save_pretrained(folder / "unet")
    backbone._vae.save_pretrained(folder / "vae")
    return folder


def image_encoder() -> CLIPVisionModelWithProjection:
    torch.manual_seed(3)
    config = CLIPVisionConfig(
        hidden_size=80, intermediate_size=160, projection_dim=64, num_hidden_layers=2, num_attention_heads=1,
        image_size=28, patch_size=14, hidden_act="gelu",
    )  # fmt: skip
    return CLIPVisionModelWithProjection(config).eval()


def open_clip(encoder: CLIPVisionModelWithProjection) -> dict[str, Tensor]:
    """Rename to OpenCLIP's layout, written from its definition."""
    state = encoder.state_dict()
    embeddings, out = "vision_model.embeddings.", {}
    names = {
        "class_embedding": f"{embeddings}class_embedding", "conv1.weight": f"{embeddings}patch_embedding.weight",
        "positional_embedding": f"{embeddings}position_embedding.weight",
    }  # fmt: skip
    for part in ("weight", "bias"):
        names[f"ln_pre.{part}"] = f"vision_model.pre_layrnorm.{part}"
        names[f"ln_post.{part}"] = f"vision_model.post_layernorm.{part}"
        for layer in range(2):
            old, new = f"vision_model.encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
            pairs = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
                     "attn.out_proj": "self_attn.out_proj"}  # fmt: skip
            names |= {f"{new}{a}.{part}": f"{old}{b}.{part}" for a, b in pairs.items()}
            out[f"{new}attn.in_proj_{part}"] = torch.cat([state[f"{old}self_attn.{x}_proj.{part}"] for x in "qkv"])
    out |= {name: state[source] for name, source in names.items()}
    out["proj"] = state["visual_projection.weight"].T
    return {f"{IMAGE_PREFIX}{name}": value.contiguous() for name, value in out.items()}


def test_each_frame_is_embedded_by_the_image_encoder(path: Path, tmp_path: Path) -> None:
    encoder = image_encoder()
    tensors = {name: value for name, value in load_file(path).items() if name != CONDITIONING_KEY}
    file = tmp_path / "svd.safetensors"
    save_file({**tensors, **open_clip(encoder)}, file, SVD.to_metadata())
    assert describe_model(file).conditioning == "image encoder"
    loaded = load_diffusers(file, device="cpu")
    assert isinstance(loaded, DiffusersSvdBackbone)
    frame = (torch.rand(28, 28, 3, generator=torch.Generator().manual_seed(4)) * 255).round() / 255
    pixels = (frame - torch.tensor(MEAN)) / torch.tensor(DEVIATION)
    with torch.no_grad():
        expected = encoder(pixel_values=pixels.movedim(-1, 0)[None]).image_embeds
    big = frame.repeat_interleave(8, 0).repeat_interleave(16, 1)[:192, :448]
    assert loaded.condition(big, torch.zeros(3, 192, 448), VIDEO).embedding.shape == (1, 64)
    from vidseg.core.backbones.diffusers.encoders import embed_frame  # noqa: PLC0415

    close(embed_frame(loaded._encoder, frame), expected)
    folder = save_folder(loaded, tmp_path / "folder")
    assert describe_model(folder).num_frames == json.loads((folder / "unet" / "config.json").read_text())["num_frames"]
    encoder.save_pretrained(folder / "image_encoder")
    other = load_diffusers(folder, device="cpu")
    assert isinstance(other, DiffusersSvdBackbone)
    close(embed_frame(other._encoder, frame), expected)


def test_folder_gives_the_same_as_the_file(
    backbone: DiffusersSvdBackbone, conditioning: Conditioning, latents: Tensor, tmp_path: Path
) -> None:
    folder = save_folder(backbone, tmp_path)
    embeddings = backbone._conditioning
    other = load_diffusers(folder, device="cpu", conditioning=(embeddings[1], embeddings[0]))
    assert isinstance(other, DiffusersSvdBackbone)
    assert (other.description.family, other.info.kind) == ("SVD", "svd")
    assert other.description.sizes.unet == backbone.description.sizes.unet
    one, two = (
        b.conditioned(conditioning, VIDEO).run(lambda d: d.predict(latents, SIGMA).denoised, 2.5, SHAPE)
        for b in (backbone, other)
    )
    assert torch.equal(one, two)
    assert torch.equal(backbone.decode(latents[:1]), other.decode(latents[:1]))
    with pytest.raises(InputError, match="image encoder"):
        load_diffusers(folder, device="cpu")
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_class_name": "AutoencoderKL"}))
    with pytest.raises(InputError, match="AutoencoderKLTemporalDecoder"):
        load_diffusers(folder, device="cpu")


def test_the_file_s_own_encoder_conditions_a_window(path: Path, tmp_path: Path) -> None:
    tensors = load_file(path)
    prefix = f"{VAE_PREFIX}encoder."
    encoder = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    copy = {f"{FRAME_ENCODER_PREFIX}encoder.{name}": value.clone() for name, value in encoder.items()}
    copy[f"{FRAME_ENCODER_PREFIX}quant_conv.weight"] = 2 * torch.eye(8)[..., None, None]
    copy[f"{FRAME_ENCODER_PREFIX}quant_conv.bias"] = torch.ones(8)
    file = tmp_path / "svd.safetensors"
    save_file({**tensors, **copy}, file, SVD.to_metadata())
    frame, noise = torch.rand(64, 128, 3), torch.zeros(3, 64, 128)
    plain, own = (load_diffusers(each, device="cpu") for each in (path, file))
    assert isinstance(plain, DiffusersSvdBackbone)
    assert isinstance(own, DiffusersSvdBackbone)
    close(own.condition(frame, noise, VIDEO).image, 2 * plain.condition(frame, noise, VIDEO).image + 1)
