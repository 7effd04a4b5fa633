"""What is recognized as a model, and what is refused with which remedy."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from vidseg.core.checkpoints.describe import describe_model
from vidseg.core.checkpoints.files import list_part_files
from vidseg.core.checkpoints.sizes import METADATA_KEY, XL_SCALE_FACTOR, ModelSizes, UNetSizes, VAESizes
from vidseg.core.types import InputError

from ... import narrow_checkpoint
from ..backbones.narrow_models import SD1, SD2, narrow_model, sparse_model

SD21_SIZES = ModelSizes(UNetSizes(320, num_head_channels=64, context_dim=1024), VAESizes())
SD15_SIZES = ModelSizes(UNetSizes(320, num_heads=8, context_dim=768, use_linear_in_transformer=False), VAESizes())
SVD_SIZES = ModelSizes(
    UNetSizes(320, num_head_channels=64, context_dim=1024, in_channels=8, adm_in_channels=768),
    VAESizes(),
    prediction_type="v_prediction",
)
PROBE = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"


def full_size(path: Path, sizes: ModelSizes, **filled: Any) -> Path:
    """Write a file with every tensor of a full-size model, without its disk space."""
    shapes = [*narrow_checkpoint._unet(sizes.unet), *narrow_checkpoint._autoencoder(sizes.vae)]
    return sparse_model(path, shapes, filled)


@pytest.mark.parametrize(
    ("sizes", "family", "parameters"), [(SD21_SIZES, "SD 2.x", 865_910_724), (SD15_SIZES, "SD 1.x", 859_520_964)]
)
def test_full_models_are_recognized_by_their_shapes(
    tmp_path: Path, sizes: ModelSizes, family: str, parameters: int
) -> None:
    model = describe_model(full_size(tmp_path / "m.safetensors", sizes))
    assert model.sizes == sizes
    assert (model.family, model.kind) == (family, "sd")
    assert model.num_parameters == {"unet": parameters, "vae": 83_653_863, "text encoder": 0}
    assert model.dtype == "F16"
    assert model.conditioning == "none"
    assert model.num_bytes > 1.8e9
    assert [tuple(block) for block in model.blocks[::3]] == [(3, 32, 1280), (6, 16, 640), (9, 8, 320)]


XL_SIZES = ModelSizes(
    UNetSizes(
        320, channel_mult=(1, 2, 4), attention_resolutions=(4, 2), num_head_channels=64, context_dim=2048,
        transformer_depth=(0, 2, 10), adm_in_channels=2816,
    ),
    VAESizes(),
    XL_SCALE_FACTOR,
)  # fmt: skip


@pytest.mark.parametrize(
    ("marks", "prediction", "zero_snr"),
    [((), "epsilon", False), (("v_pred",), "v_prediction", False), (("v_pred", "ztsnr"), "v_prediction", True)],
)
def test_sdxl_is_recognized_by_its_shapes(
    tmp_path: Path, marks: tuple[str, ...], prediction: str, zero_snr: bool
) -> None:
    shapes = [*narrow_checkpoint.list_shapes(XL_SIZES), *((mark, (1,)) for mark in marks)]
    shapes.append(("conditioner.embedders.1.model.ln_final.weight", (1280,)))
    model = describe_model(sparse_model(tmp_path / "xl.safetensors", shapes, {}))
    assert model.sizes == dataclasses.replace(XL_SIZES, prediction_type=prediction, zero_snr=zero_snr)
    assert (model.family, model.kind, model.conditioning) == ("SDXL", "sdxl", "zeros")
    assert model.qualities == ("fast", "draft")
    assert model.num_parameters["unet"] == 2_567_463_684
    assert [tuple(block) for block in model.blocks[::3]] == [(0, 32, 1280), (3, 16, 640)]


def test_svd_is_recognized_by_its_shapes(tmp_path: Path) -> None:
    image = {
        f"conditioner.embedders.0.open_clip.model.visual.{name}": torch.zeros(1) for name in ("proj", "class_embedding")
    }
    shapes = [*narrow_checkpoint._unet(SVD_SIZES.unet), *narrow_checkpoint._autoencoder(SVD_SIZES.vae, is_video=True)]
    shapes += [(name, tuple(value.shape)) for name, value in image.items()]
    path = sparse_model(tmp_path / "svd.safetensors", shapes, {})
    model = describe_model(path)
    assert model.sizes == SVD_SIZES
    assert (model.family, model.conditioning, model.kind) == ("SVD", "image encoder", "svd")
    assert model.num_parameters == {"unet": 1_524_623_082, "vae": 97_742_775, "image encoder": 2}
    assert model.num_bytes > 3.2e9


@pytest.mark.parametrize(
    ("name", "num_frames"),
    [("svd", 0), ("svd_xt", 25), ("SVD_XT_1_1", 25), ("svdxt-fp16", 25), ("img2vid-xt", 25), ("next_text", 0)],
)
def test_svd_xt_is_told_by_the_name_of_its_file(tmp_path: Path, name: str, num_frames: int) -> None:
    shapes = [*narrow_checkpoint._unet(SVD_SIZES.unet), *narrow_checkpoint._autoencoder(SVD_SIZES.vae, is_video=True)]
    path = sparse_model(tmp_path / f"{name}.safetensors", shapes, {})
    assert describe_model(path).num_frames == num_frames
    assert describe_model(narrow_model(tmp_path / "image_xt.safetensors", SD2)).num_frames == 0


@pytest.mark.parametrize(("channels", "message"), [(1280, "numbers about the window"), (256, "numbers about")])
def test_other_video_models_of_its_family_are_refused(tmp_path: Path, channels: int, message: str) -> None:
    unet = dataclasses.replace(SVD_SIZES.unet, adm_in_channels=channels)
    shapes = [*narrow_checkpoint._unet(unet), *narrow_checkpoint._autoencoder(SVD_SIZES.vae, is_video=True)]
    with pytest.raises(InputError, match=message):
        describe_model(sparse_model(tmp_path / "sv3d.safetensors", shapes, {}))


@pytest.mark.parametrize(("spread", "prediction"), [(0.05, "epsilon"), (0.2, "v_prediction")])
def test_sd2_tells_its_prediction_by_one_bias(tmp_path: Path, spread: float, prediction: str) -> None:
    bias = spread * torch.randn(320, generator=torch.Generator().manual_seed(1))
    model = describe_model(full_size(tmp_path / "m.safetensors", SD21_SIZES, **{PROBE: bias}))
    assert model.sizes.prediction_type == prediction


@pytest.mark.parametrize("sizes", [SD2, SD1])
def test_metadata_names_the_sizes_of_a_narrow_model(tmp_path: Path, sizes: ModelSizes) -> None:
    path = narrow_model(tmp_path / "m.safetensors", sizes)
    model = describe_model(path)
    assert model.sizes == sizes
    assert model.conditioning == "tensor"
    assert model.layout == "file"
    assert model.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()


def test_narrow_model_without_metadata_is_refused(tmp_path: Path) -> None:
    path = narrow_model(tmp_path / "m.safetensors")
    shapes = [*narrow_checkpoint._unet(SD2.unet), *narrow_checkpoint._autoencoder(SD2.vae)]
    sparse_model(path, shapes, {})
    with pytest.raises(InputError, match=rf"context .* got 64.*{METADATA_KEY}"):
        describe_model(path)


def changed(part: str, **values: Any) -> dict[str, str]:
    sizes = json.loads(SD2.to_metadata()[METADATA_KEY])
    (sizes if part == "all" else sizes[part]).update(values)
    return {METADATA_KEY: json.dumps(sizes)}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (changed("unet", transformer_depth=2), "transformer depth"),
        (changed("unet", channel_mult=[1, 2, 4]), "number of levels"),
        (changed("unet", in_channels=9), "input channels"),
        (changed("unet", attention_resolutions=[2, 4]), "levels with attention"),
        (changed("unet", num_head_channels=48), "multiples"),
        (changed("unet", num_head_channels=None, num_heads=5), "multiples"),
        (changed("unet", color=1), "unknown sizes: color"),
        (changed("vae", z_channels=16), "latent channels"),
        (changed("all", prediction_type="flow"), "epsilon or v_prediction"),
        ({METADATA_KEY: "{"}, "must be the JSON"),
        ({METADATA_KEY: "[]"}, "must be the JSON"),
        ({METADATA_KEY: '{"unet": {}}'}, "must be the JSON"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(tmp_path: Path, metadata: dict[str, str], message: str) -> None:
    shapes = [*narrow_checkpoint._unet(SD2.unet), *narrow_checkpoint._autoencoder(SD2.vae)]
    path = tmp_path / "m.safetensors"
    save_file({name: torch.zeros(1) for name, _ in shapes}, path, metadata)
    with pytest.raises(InputError, match=message):
        describe_model(path)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "Flux"),
        ("double_blocks.0.img_attn.qkv.weight", "is Flux or another transformer model"),
        ("model.diffusion_model.joint_blocks.0.x", "Stable Diffusion 3"),
        ("model.diffusion_model.blocks.0.self_attn.norm_q.weight", "no UNet"),
        ("transformer_blocks.0.attn.to_q.weight", "is a diffusion transformer"),
        ("first_stage_model.decoder.conv_in.weight", "is a VAE, with no UNet"),
        ("text_model.embeddings.token_embedding.weight", "is a text encoder alone"),
        ("edm_mean", "EDM's noise levels, such as Playground"),
        ("conditioner.embedders.1.model.ln_final.weight", "SDXL"),
        ("model.diffusion_model.label_emb.0.0.weight", "SDXL"),
        ("lora_unet_down_blocks_0.alpha", "LoRA"),
        ("control_model.input_hint_block.0.weight", "ControlNet"),
        ("decoder.conv_in.weight", "is a VAE, with no UNet"),
        ("lora_A.weight", "LoRA"),
        ("model.diffusion_model.input_blocks.0.0.weight", "no UNet with attention"),
    ],
)
def test_other_models_are_refused_by_name(tmp_path: Path, tensor: str, message: str) -> None:
    path = tmp_path / "other.safetensors"
    save_file({tensor: torch.zeros(1)}, path)
    with pytest.raises(InputError, match=message) as error:
        describe_model(path)
    assert "v2-1_512-ema-pruned.safetensors" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 9}, "is an inpainting model, whose UNet takes a mask in"),
        ({"in_channels": 8}, "is InstructPix2Pix"),
        ({"transformer_depth": (0, 2, 4)}, r"shaped like SDXL, with transformer depth \(0, 2, 10\)"),
        (
            {"model_channels": 384, "channel_mult": (1, 2, 4, 4), "context_dim": 1280, "adm_in_channels": 2560,
             "transformer_depth": (0, 4, 4, 4)},
            "is the refiner of Stable Diffusion XL",
        ),
    ],
)  # fmt: skip
def test_relatives_of_sdxl_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    sizes = dataclasses.replace(XL_SIZES, unet=dataclasses.replace(XL_SIZES.unet, **changes))
    path = sparse_model(tmp_path / "other.safetensors", narrow_checkpoint.list_shapes(sizes), {})
    with pytest.raises(InputError, match=message):
        describe_model(path)


def test_wan_is_refused_by_name(tmp_path: Path) -> None:
    names = ("blocks.0.self_attn.norm_q.weight", "blocks.0.cross_attn.q.weight", "patch_embedding.weight")
    path = sparse_model(tmp_path / "wan.safetensors", [(f"model.diffusion_model.{name}", (1,)) for name in names], {})
    with pytest.raises(InputError, match=r"wan\.safetensors is Wan"):
        describe_model(path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"model_index.json": {"_class_name": "FluxPipeline"}}, "is Flux"),
        ({"model_index.json": {"_class_name": "WanPipeline"}}, "is Wan"),
        ({"transformer/config.json": {"_class_name": "SD3Transformer2DModel"}}, "is Stable Diffusion 3"),
        ({"config.json": {"_class_name": "AutoencoderKL"}}, "is a VAE, with no UNet"),
        ({"config.json": {"model_type": "t5"}}, r"is a model of transformers \(t5\)"),
        ({"pytorch_lora_weights.safetensors": {}}, "is a LoRA"),
    ],
)
def test_other_folders_are_named(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        describe_model(tmp_path)


def test_the_refiner_as_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    config = {**SD21_FOLDER, "addition_embed_type": "text_time", "cross_attention_dim": 1280}
    with pytest.raises(InputError, match="holds the refiner of Stable Diffusion XL"):
        describe_model(folder(tmp_path, config))


def test_checkpoint_without_autoencoder_is_refused(tmp_path: Path) -> None:
    path = sparse_model(tmp_path / "m.safetensors", narrow_checkpoint._unet(SD2.unet), {})
    with pytest.raises(InputError, match="no encoder of the autoencoder"):
        describe_model(path)


@pytest.mark.parametrize("name", ["m.ckpt", "m.pt", "m.pth", "m.bin", "m.CKPT"])
def test_pickles_are_refused_with_the_way_to_convert(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything at all")
    with pytest.raises(InputError, match=r"pickle.*save_file"):
        describe_model(tmp_path / name)


def test_pickle_under_another_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="pickle"):
        describe_model(path)


@pytest.mark.parametrize(
    "content", [b"", b"abc", b"Just some text, longer than a header.", struct.pack("<Q", 5) + b"12345"]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"notes.txt is not one"):
        describe_model(path)


@pytest.mark.parametrize("keep", [0.9999, 0.5, 20])
def test_truncated_files_are_refused(tmp_path: Path, keep: float) -> None:
    path = narrow_model(tmp_path / "m.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    with pytest.raises(InputError, match="complete"):
        describe_model(path)


@pytest.mark.parametrize(
    "entries",
    [{"a": 1}, {"a": {}}, {"a": {"dtype": "F16", "shape": 3, "data_offsets": [0, 0]}},
     {"a": {"dtype": "F16", "shape": [3], "data_offsets": []}}, {"__metadata__": 1}],
)  # fmt: skip
def test_damaged_headers_are_refused(tmp_path: Path, entries: dict[str, Any]) -> None:
    path = tmp_path / "m.safetensors"
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(InputError, match="has a damaged header"):
        describe_model(path)


@pytest.mark.parametrize("start", [b"PK", b"\x80\x02", b"\x80\x04"])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, start: bytes) -> None:
    path = narrow_model(tmp_path / "m.safetensors")
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header, longer = content[8 : 8 + length], int.from_bytes(start, "little")
    while longer < length:
        longer += 1 << 16
    path.write_bytes(struct.pack("<Q", longer) + header.ljust(longer) + content[8 + length :])
    assert describe_model(path).family == "SD 2.x"


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        describe_model(tmp_path / "no.safetensors")


def folder(path: Path, unet: dict[str, Any], vae: dict[str, Any] | None = None) -> Path:
    """Write a diffusers folder with configuration files and empty weights."""
    for part, config in (("unet", unet), ("vae", vae or {"block_out_channels": [128, 256, 512, 512]})):
        (path / part).mkdir(parents=True)
        (path / part / "config.json").write_text(json.dumps(config))
        save_file({"x": torch.zeros(3)}, path / part / "diffusion_pytorch_model.safetensors")
    return path


ATTENDED = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
SD21_FOLDER = {
    "_class_name": "UNet2DConditionModel",
    "attention_head_dim": [5, 10, 20, 20],
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 1024,
    "down_block_types": ATTENDED,
    "use_linear_projection": True,
}


def test_folder_is_read_by_its_configuration(tmp_path: Path) -> None:
    model = describe_model(folder(tmp_path, SD21_FOLDER))
    assert model.sizes.unet.heads == SD21_SIZES.unet.heads
    assert model.sizes.unet.num_head_channels == 64
    assert model.sizes.vae == SD21_SIZES.vae
    assert model.layout == "folder"
    assert model.num_parameters == {"unet": 3, "vae": 3}
    (unet,) = list_part_files(tmp_path / "unet")
    assert model.files == (unet, *list_part_files(tmp_path / "vae"))
    assert model.fingerprint != hashlib.sha256(unet.read_bytes()).hexdigest()


@pytest.mark.parametrize(("spread", "prediction"), [(0.05, "epsilon"), (0.2, "v_prediction")])
def test_folder_without_scheduler_tells_its_prediction_by_one_bias(
    tmp_path: Path, spread: float, prediction: str
) -> None:
    folder(tmp_path, SD21_FOLDER)
    bias = spread * torch.randn(320, generator=torch.Generator().manual_seed(1))
    tensors = {"up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias": bias}
    save_file(tensors, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    assert describe_model(tmp_path).sizes.prediction_type == prediction


@pytest.mark.parametrize(
    ("unet", "vae", "message"),
    [
        ({**SD21_FOLDER, "_class_name": "SD3Transformer2DModel"}, None, "SD3Transformer2DModel"),
        ({**SD21_FOLDER, "addition_embed_type": "text_time"}, None, "SDXL"),
        (SD21_FOLDER, {"_class_name": "AutoencoderTiny"}, "AutoencoderTiny"),
        ({**SD21_FOLDER, "in_channels": 9}, None, "input channels"),
        ({"block_out_channels": [320]}, None, "complete configuration"),
        ({**SD21_FOLDER, "attention_head_dim": [0, 10, 20, 20]}, None, "complete configuration"),
        ({**SD21_FOLDER, "attention_head_dim": [5, 5, 20, 20]}, None, "constant"),
    ],
)
def test_other_folders_are_refused(
    tmp_path: Path, unet: dict[str, Any], vae: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        describe_model(folder(tmp_path, unet, vae))


def test_folder_without_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        describe_model(tmp_path)


def test_folder_with_pickles_alone_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, SD21_FOLDER)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InputError, match="safe_serialization"):
        describe_model(tmp_path)


def test_folder_with_broken_json_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, SD21_FOLDER)
    (tmp_path / "vae" / "config.json").write_text("{")
    with pytest.raises(InputError, match="is no JSON"):
        describe_model(tmp_path)


def test_plain_weights_are_preferred_to_variants(tmp_path: Path) -> None:
    names = ["m.fp16.safetensors", "m.non_ema.safetensors"]
    for name in names:
        (tmp_path / name).touch()
    assert [file.name for file in list_part_files(tmp_path)] == names[:1]
    (tmp_path / "m.safetensors").touch()
    assert [file.name for file in list_part_files(tmp_path)] == ["m.safetensors"]


def test_shards_are_taken_together(tmp_path: Path) -> None:
    names = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"]
    for name in names:
        (tmp_path / name).touch()
    assert [file.name for file in list_part_files(tmp_path)] == names
