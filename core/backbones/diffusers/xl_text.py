"""The empty prompt as the two text encoders of an SDXL folder embed it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ...checkpoints.files import list_part_files, read_config
from ...types import InputError
from .encoders import BEGIN, END, NUM_TOKENS, OPEN_CLIP_PADDING
from .weights import move_tensor, read_tensors

_LAST_BUT_ONE = -2
"""Layer of hidden states, not normalized, that both encoders give."""


@torch.no_grad()
def embed_empty_xl_prompt(folder: Path) -> tuple[Tensor, Tensor]:
    """Return the embedding ``(77,C)`` of the empty prompt and its pooled text ``(C,)``, float32, on the CPU."""
    hidden, pooled = [], torch.empty(0)
    parts = (("text_encoder", CLIPTextModel, END), ("text_encoder_2", CLIPTextModelWithProjection, OPEN_CLIP_PADDING))
    for part, kind, padding in parts:
        encoder = _load(kind, folder / part)
        last = encoder.config.vocab_size - 1
        begin, end = min(BEGIN, last - 1), min(END, last)
        tokens = torch.tensor([[begin, end] + [min(padding, last)] * (NUM_TOKENS - 2)])
        output = encoder(input_ids=tokens, output_hidden_states=True)
        hidden.append(output.hidden_states[_LAST_BUT_ONE][0])
        pooled = output.text_embeds[0] if kind is CLIPTextModelWithProjection else pooled
    return torch.cat(hidden, dim=-1), pooled


def _load(kind: Any, folder: Path) -> Any:  # noqa: ANN401, modules of transformers
    config = CLIPTextConfig(**read_config(folder / "config.json"))
    stored = move_tensor(read_tensors(list_part_files(folder)), torch.device("cpu"), torch.float32)
    encoder = kind(config)
    missing = encoder.load_state_dict(stored, strict=False).missing_keys
    missing = [name for name in missing if not name.endswith("position_ids")]
    if missing:
        raise InputError(
            f"`model` must have both text encoders of SDXL, but the tensor {missing[0]} of {folder.name} is missing. "
            "Save the pipeline again with `save_pretrained`."
        )
    return encoder.eval()
