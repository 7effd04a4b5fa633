"""What conditions a model without a prompt: the empty prompt of SD, the embedded frame of SVD."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from ...checkpoints.describe import IMAGE_PREFIX, TEXT_PREFIX, ModelDescription
from ...checkpoints.files import list_part_files, read_config
from ...checkpoints.sizes import SD1_CONTEXT
from ...types import InputError
from .weights import Tensors, load_state_dict, move_tensor, read_tensors

IMAGE_HEAD_CHANNELS = 80
"""Channels of an attention head of ViT-H."""
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the colors that CLIP was trained with."""
_TOP = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
}
_IN_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def build_image_encoder(model: ModelDescription, device: torch.device, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """Return the model's image encoder, OpenCLIP's vision transformer, with its weights on ``device`` as ``dtype``."""
    if model.layout == "folder":
        folder = model.path / "image_encoder"
        config = CLIPVisionConfig(**read_config(folder / "config.json"))
        tensors = read_tensors(list_part_files(folder))
    else:
        original = read_tensors([model.path], IMAGE_PREFIX)
        tensors = {}
        for name, value in original.items():
            tensors |= _rename_image_tensors(name.removeprefix(IMAGE_PREFIX), value)
        config = _image_config(tensors, model.path.name)
    tensors = {name: value for name, value in tensors.items() if not name.endswith("position_ids")}
    encoder: Any = load_state_dict(
        lambda: CLIPVisionModelWithProjection(config), move_tensor(tensors, device, dtype), model.path.name
    )
    count = encoder.vision_model.embeddings.num_positions
    encoder.vision_model.embeddings.position_ids = torch.arange(count, device=device)[None]
    return encoder


@torch.no_grad()
def embed_frame(encoder: Any, frame: Tensor) -> Tensor:  # noqa: ANN401
    """Return the embedding ``(1,C)`` float32, on the CPU, of a whole frame ``(H,W,3)`` squeezed to a square (code)."""
    weight = encoder.vision_model.embeddings.patch_embedding.weight
    side = encoder.config.image_size
    picture = frame.to(weight.device, torch.float32).movedim(-1, 0)[None]  # (H,W,3) -> (1,3,H,W)
    if tuple(picture.shape[2:]) != (side, side):
        picture = F.interpolate(picture, (side, side), mode="bicubic", antialias=True)
    picture = (255 * picture).clamp(0, 255).round() / 255
    mean, deviation = (picture.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    embedding: Tensor = encoder(pixel_values=((picture - mean) / deviation).to(weight.dtype)).image_embeds
    return embedding.float().cpu()


def _rename_image_tensors(name: str, value: Tensor) -> Tensors:
    """Return a tensor of OpenCLIP's layout under the names of transformers."""
    if name in _TOP:
        return {_TOP[name]: value}
    if name == "proj":
        return {"visual_projection.weight": value.T.contiguous()}
    match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)", name)
    if match is None:
        return {name: value}
    layer, inner, kind = f"vision_model.encoder.layers.{match[1]}.", match[2], match[3]
    if inner == "attn.in_proj":
        return {f"{layer}self_attn.{x}_proj.{kind}": part for x, part in zip("qkv", value.chunk(3), strict=True)}
    return {f"{layer}{_IN_LAYER.get(inner, inner)}.{kind}": value}


def _image_config(tensors: Tensors, name: str) -> CLIPVisionConfig:
    """Return the sizes of an image encoder by its tensors' shapes."""
    patch = tensors.get("vision_model.embeddings.patch_embedding.weight")
    positions = tensors.get("vision_model.embeddings.position_embedding.weight")
    inner = tensors.get("vision_model.encoder.layers.0.mlp.fc1.weight")
    projection = tensors.get("visual_projection.weight")
    if patch is None or positions is None or inner is None or projection is None:
        raise InputError(
            f"`model` must have OpenCLIP's image encoder, but that of {name} has another layout. Use an unmodified "
            "checkpoint."
        )
    width, side = patch.shape[0], patch.shape[-1]
    layers = {key.split(".")[3] for key in tensors if key.startswith("vision_model.encoder.layers.")}
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=inner.shape[0],
        projection_dim=projection.shape[0],
        num_hidden_layers=len(layers),
        num_attention_heads=max(1, width // IMAGE_HEAD_CHANNELS),
        image_size=side * round((positions.shape[0] - 1) ** 0.5),
        patch_size=side,
        hidden_act="gelu",
    )


NUM_TOKENS = 77
BEGIN, END = 49406, 49407
"""Tokens around a prompt."""
OPEN_CLIP_PADDING = 0
"""SD 2.x pads with zero, SD 1.x with the end token."""
TEXT_HEAD_CHANNELS = 64
_OPEN_CLIP = f"{TEXT_PREFIX}model."
_CLIP = f"{TEXT_PREFIX}transformer."


def embed_empty_prompt(model: ModelDescription) -> Tensor:
    """Return the embedding ``(77,C)`` float32, on the CPU, of the empty prompt by the model's own text encoder."""
    # SD 1.x takes CLIP's last layer, SD 2.x the last but one of OpenCLIP; the final norm follows in both.
    if model.layout == "folder":
        encoder = _folder_encoder(model.path / "text_encoder")
    else:
        tensors = read_tensors([model.path], TEXT_PREFIX)
        encoder = _open_clip(tensors) if any(name.startswith(_OPEN_CLIP) for name in tensors) else _clip(tensors)
    padding = END if encoder.config.hidden_size == SD1_CONTEXT else OPEN_CLIP_PADDING
    tokens = torch.tensor([[BEGIN, END] + [padding] * (NUM_TOKENS - 2)])
    with torch.no_grad():
        embedding: Tensor = encoder(input_ids=tokens).last_hidden_state[0]
    return embedding


def _folder_encoder(folder: Path) -> Any:  # noqa: ANN401
    config = CLIPTextConfig(**read_config(folder / "config.json"))
    return _encoder(config, read_tensors(list_part_files(folder)))


def _clip(tensors: Tensors) -> Any:  # noqa: ANN401
    """SD 1.x: the layout of transformers under another prefix."""
    tensors = {name.removeprefix(_CLIP).removeprefix("text_model."): value for name, value in tensors.items()}
    layers = 1 + max((int(n.split(".")[2]) for n in tensors if n.startswith("encoder.layers.")), default=-1)
    return _encoder(_text_config(tensors, layers, "quick_gelu"), tensors)


def _open_clip(tensors: Tensors) -> Any:  # noqa: ANN401
    """SD 2.x: OpenCLIP without its last layer."""
    embedding = tensors.get(f"{_OPEN_CLIP}token_embedding.weight")
    if embedding is None:
        raise _unknown_encoder("token_embedding.weight")
    convert: Callable[..., Tensors] = convert_open_clip_checkpoint
    width = SimpleNamespace(config=SimpleNamespace(hidden_size=embedding.shape[1]))  # all that it reads of a model
    renamed = convert(width, tensors, prefix=_OPEN_CLIP)
    renamed = {name.removeprefix("text_model."): value for name, value in renamed.items()}
    blocks = {int(n.split(".")[4]) for n in tensors if n.startswith(f"{_OPEN_CLIP}transformer.resblocks.")}
    return _encoder(_text_config(renamed, len(blocks) - 1, "gelu"), renamed)


def _text_config(tensors: Tensors, num_layers: int, activation: str) -> CLIPTextConfig:
    """Return the sizes of a text encoder by its tensors' shapes."""
    needed = ("embeddings.token_embedding.weight", "encoder.layers.0.mlp.fc1.weight")
    for name in needed:
        if name not in tensors:
            raise _unknown_encoder(name)
    vocabulary, width = tensors[needed[0]].shape
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=tensors[needed[1]].shape[0],
        num_hidden_layers=num_layers,
        num_attention_heads=max(1, width // TEXT_HEAD_CHANNELS),
        max_position_embeddings=NUM_TOKENS,
        hidden_act=activation,
    )


def _encoder(config: CLIPTextConfig, tensors: Tensors) -> Any:  # noqa: ANN401
    """Return the text encoder in float32; tensors of a dropped last layer are left over."""
    encoder: Any = CLIPTextModel(config)
    prefix = "text_model." if hasattr(encoder, "text_model") else ""  # transformers below 5.6
    named = {prefix + name.removeprefix("text_model."): value.float() for name, value in tensors.items()}
    missing = encoder.load_state_dict(named, strict=False).missing_keys
    missing = [name for name in missing if not name.endswith("position_ids")]
    if missing:
        raise _unknown_encoder(missing[0])
    return encoder.eval()


def _unknown_encoder(missing: str) -> InputError:
    return InputError(
        f"`model` must have the text encoder of SD 1.x (CLIP) or 2.x (OpenCLIP), but its tensor {missing} is missing. "
        "Use an unmodified checkpoint."
    )
