"""The image encoder of Stable Video Diffusion (OpenCLIP ViT-H), which embeds the first frame of a window."""

from __future__ import annotations

import json
import re
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ..checkpoints.describe import IMAGE_PREFIX, ModelDescription
from ..checkpoints.folders import part_files
from ..types import InputError
from .diffusers_weights import Tensors, filled, moved, read_tensors

HEAD_CHANNELS = 80
"""Channels of an attention head of ViT-H."""
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the colours that CLIP was trained with."""
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
    """Return the model's image encoder with its weights on ``device`` as ``dtype``.

    Raises:
        InputError: it is not OpenCLIP's vision transformer.
    """
    if model.layout == "folder":
        folder = model.path / "image_encoder"
        config = CLIPVisionConfig(**json.loads((folder / "config.json").read_text()))
        tensors = read_tensors(part_files(folder))
    else:
        original = read_tensors([model.path], IMAGE_PREFIX)
        tensors = {}
        for name, value in original.items():
            tensors |= _renamed(name.removeprefix(IMAGE_PREFIX), value)
        config = _config(tensors, model.path.name)
    tensors = {name: value for name, value in tensors.items() if not name.endswith("position_ids")}
    encoder: Any = filled(lambda: CLIPVisionModelWithProjection(config), moved(tensors, device, dtype), model.path.name)
    count = encoder.vision_model.embeddings.num_positions
    encoder.vision_model.embeddings.position_ids = torch.arange(count, device=device)[None]
    return encoder


@torch.no_grad()
def embed_frame(encoder: Any, frame: Tensor) -> Tensor:  # noqa: ANN401
    """Return the embedding ``(1,C)`` float32, on the CPU, of a frame.

    The whole frame is squeezed into the encoder's square, as the reference code does.

    Args:
        encoder: of `build_image_encoder`.
        frame: ``(H,W,3)`` float32 in [0, 1].
    """
    weight = encoder.vision_model.embeddings.patch_embedding.weight
    side = encoder.config.image_size
    picture = frame.to(weight.device, torch.float32).movedim(-1, 0)[None]  # (H,W,3) -> (1,3,H,W)
    if tuple(picture.shape[2:]) != (side, side):
        picture = F.interpolate(picture, (side, side), mode="bicubic", antialias=True)
    picture = (255 * picture).clamp(0, 255).round() / 255
    mean, deviation = (picture.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    embedding: Tensor = encoder(pixel_values=((picture - mean) / deviation).to(weight.dtype)).image_embeds
    return embedding.float().cpu()


def _renamed(name: str, value: Tensor) -> Tensors:
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


def _config(tensors: Tensors, name: str) -> CLIPVisionConfig:
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
        num_attention_heads=max(1, width // HEAD_CHANNELS),
        image_size=side * round((positions.shape[0] - 1) ** 0.5),
        patch_size=side,
        hidden_act="gelu",
    )
