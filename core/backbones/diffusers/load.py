"""Load Stable Diffusion 1.x, 2.x, SDXL or Stable Video Diffusion from a file or a folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ...checkpoints.describe import CONDITIONING_KEY, ModelDescription, describe_model
from ...checkpoints.vision import VisionDescription
from ...types import InputError, SettingError, require_shape
from ..memory import choose_device
from .backbone import DiffusersBackbone
from .encoders import NUM_TOKENS, embed_empty_prompt
from .svd_backbone import DiffusersSvdBackbone, make_video_embeddings
from .vision import VisionModel
from .weights import read_tensors
from .xl import DiffusersXl, make_xl_prompt

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def load_diffusers(
    model: str | Path | ModelDescription | VisionDescription,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    conditioning: tuple[Tensor, Tensor] | None = None,
) -> DiffusersBackbone | DiffusersXl | VisionModel:
    """Load a model from the disk; nothing is downloaded.

    Args:
        model: single `.safetensors` file in the original layout, diffusers folder, or the description of one.
        dtype: float32, float16 or bfloat16, for the UNet. Elsewhere than on CUDA the autoencoder stays in float32.
        device: None takes CUDA, MPS or the CPU, whichever comes first.
        conditioning: positive and negative embedding, each ``(77,C)``. By default the positive one is that of the
            empty prompt, stored in the file or computed by its text encoder, and the negative one zero. For Stable
            Video Diffusion, each ``(1,C)``, for all windows; by default its image encoder embeds their first frames.

    Returns:
        The model on its device, as a `Backbone`; SDXL as a `FeatureBackbone`, a vision model as a `VisionBackbone`.

    Raises:
        InputError: not a Stable Diffusion 1.x/2.x, SDXL or Stable Video Diffusion model, or no embedding to be had.
    """
    if dtype not in DTYPES:
        raise InputError(f"`dtype` must be one of {DTYPES}, but got {dtype}.")
    target = torch.device(device) if device is not None else choose_device()
    has_cuda = torch.cuda.is_available() and (target.index or 0) < torch.cuda.device_count()
    if (target.type == "cuda" and not has_cuda) or (target.type == "mps" and not torch.backends.mps.is_available()):
        raise SettingError("device", "be one that this machine has", target, "Use cpu")
    if isinstance(model, VisionDescription):
        return VisionModel(model, dtype, target)
    description = model if isinstance(model, ModelDescription) else describe_model(model)
    if description.kind == "sdxl":
        return DiffusersXl(description, make_xl_prompt(description, conditioning), dtype, target)
    if description.kind == "svd":
        return DiffusersSvdBackbone(description, make_video_embeddings(description, conditioning), dtype, target)
    return DiffusersBackbone(description, _make_conditioning(description, conditioning), dtype, target)


def _make_conditioning(model: ModelDescription, given: tuple[Tensor, Tensor] | None) -> Tensor:
    """Return the embeddings ``(2,77,C)`` float32, negative first."""
    if given is not None:
        positive, negative = given
    else:
        positive = find_embedding(model)
        negative = torch.zeros_like(positive)
    width = model.sizes.unet.context_dim
    pair = []
    for name, embedding in (("negative", negative), ("positive", positive)):
        flat = embedding[0] if embedding.ndim == 3 and len(embedding) == 1 else embedding
        require_shape(f"conditioning ({name})", flat, "N C", N=NUM_TOKENS, C=width)
        pair.append(flat.detach().float().cpu())
    return torch.stack(pair)


def find_embedding(model: ModelDescription) -> Tensor:
    """Return the embedding of the empty prompt ``(77,C)`` that a model has."""
    if model.conditioning == "tensor":
        return read_tensors([model.path], CONDITIONING_KEY)[CONDITIONING_KEY].float()
    if model.conditioning == "text encoder":
        return embed_empty_prompt(model)
    raise InputError(
        f"`model` must hold the embedding of the empty prompt, but {model.path.name} has neither a text encoder nor a "
        f"tensor {CONDITIONING_KEY}. Use a full checkpoint, or pass `conditioning`."
    )
