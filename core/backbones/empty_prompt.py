"""The embedding of the empty prompt, which conditions the model; no tokenizer is needed for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from ..checkpoints.describe import TEXT_PREFIX, ModelDescription
from ..checkpoints.folders import part_files
from ..checkpoints.sizes import SD1_CONTEXT
from ..types import InputError
from .diffusers_weights import Tensors, read_tensors

NUM_TOKENS = 77
BEGIN, END = 49406, 49407
"""Tokens around a prompt."""
OPEN_CLIP_PADDING = 0
"""SD 2.x pads with zero, SD 1.x with the end token."""
HEAD_CHANNELS = 64
_OPEN_CLIP = f"{TEXT_PREFIX}model."
_CLIP = f"{TEXT_PREFIX}transformer."


def empty_prompt_embedding(model: ModelDescription) -> Tensor:
    """Compute the embedding of the empty prompt with the model's own text encoder.

    SD 1.x takes CLIP's last layer, SD 2.x the last but one of OpenCLIP; the final norm follows in both.

    Returns:
        ``(77,C)`` float32 on the CPU.

    Raises:
        InputError: the text encoder is neither.
    """
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
    config = CLIPTextConfig(**json.loads((folder / "config.json").read_text()))
    return _encoder(config, read_tensors(part_files(folder)))


def _clip(tensors: Tensors) -> Any:  # noqa: ANN401
    """SD 1.x: the layout of transformers under another prefix."""
    tensors = {name.removeprefix(_CLIP).removeprefix("text_model."): value for name, value in tensors.items()}
    layers = 1 + max((int(n.split(".")[2]) for n in tensors if n.startswith("encoder.layers.")), default=-1)
    return _encoder(_config(tensors, layers, "quick_gelu"), tensors)


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
    return _encoder(_config(renamed, len(blocks) - 1, "gelu"), renamed)


def _config(tensors: Tensors, num_layers: int, activation: str) -> CLIPTextConfig:
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
        num_attention_heads=max(1, width // HEAD_CHANNELS),
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
