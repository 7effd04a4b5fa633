"""Which of the host's video models can be read, what may be wired to them, and messages for the rest."""

from __future__ import annotations

from typing import Any

import comfy.ldm.modules.attention as host_attention
import comfy.ldm.modules.diffusionmodules.openaimodel as host_unet
import comfy.ldm.modules.temporal_ae as host_autoencoder
import comfy.model_sampling
import torch

from ...config.parts import ATTENTION_BLOCKS
from ...types import InputError
from .checks import model_name, predicts_otherwise

REMEDY = (
    "Load svd.safetensors with 'Image Only Checkpoint Loader' ('Load Checkpoint Image Only') and wire its CLIP_VISION "
    "to `clip_vision`, or the outputs of 'SVD_img2vid_Conditioning' to `positive` and `negative`"
)
NUM_CHANNELS = (8, 4)
"""Channels into and out of SVD's UNet."""
VECTOR_CHANNELS = 768
"""Channels of the numbers that SVD is told about a window."""


def is_video_model(model: Any) -> bool:
    """Return whether ``model`` is a MODEL whose UNet has temporal layers."""
    unet = getattr(getattr(model, "model", None), "diffusion_model", None)
    return isinstance(unet, host_unet.UNetModel) and any(
        isinstance(layer, host_attention.SpatialVideoTransformer) for block in unet.output_blocks for layer in block
    )


def is_video_vae(vae: Any) -> bool:
    """Return whether ``vae`` decodes with layers over time."""
    decoder = getattr(getattr(vae, "first_stage_model", None), "decoder", None)
    return isinstance(decoder, host_autoencoder.VideoDecoder)


def require_video_readable(model: Any) -> None:
    """Check that the video model is Stable Video Diffusion.

    Raises:
        InputError: it is another one, such as Stable Video 3D.
    """
    problem = _problem(model.model.diffusion_model)
    sampling = model.get_model_object("model_sampling")
    wanted = (comfy.model_sampling.V_PREDICTION, comfy.model_sampling.ModelSamplingContinuousEDM)
    if not problem and (not all(isinstance(sampling, kind) for kind in wanted) or predicts_otherwise(sampling)):
        problem = "its sampling was changed; remove the node that does it"
    if problem:
        raise InputError(
            f"`model` must be Stable Video Diffusion among video models, but got {model_name(model)} ({problem}). "
            f"{REMEDY}."
        )


def _problem(unet: Any) -> str:
    """Return why a UNet with temporal layers is not SVD's, or an empty string."""
    vector = unet.label_emb[0][0].in_features if unet.num_classes == "sequential" else 0
    layers = [
        [layer for layer in block if isinstance(layer, host_attention.SpatialVideoTransformer)]
        for block in unet.output_blocks
    ]
    depths = [[len(layer.time_stack) for layer in block] for block in layers]
    problems = {
        f"its UNet takes {unet.in_channels} channels in": (unet.in_channels, unet.out_channels) != NUM_CHANNELS,
        f"it is told {vector} numbers instead of {VECTOR_CHANNELS}": vector != VECTOR_CHANNELS,
        "its attention is arranged otherwise": depths != [[1] if i in ATTENTION_BLOCKS else [] for i in range(12)],
    }
    return next((problem for problem, found in problems.items() if found), "")


def require_video_conditioning(name: str, conditioning: Any, width: int) -> None:
    """Check that ``conditioning`` is that of SVD: an embedded frame, and the frame's latent.

    Raises:
        InputError: a text prompt, another width, or no frame.
    """
    if not conditioning:
        raise InputError(f"`{name}` must hold the conditioning of SVD, but got an empty list. {REMEDY}.")
    tokens, extras = conditioning[0]
    if tokens.ndim != 3 or tuple(tokens.shape[1:]) != (1, width) or "concat_latent_image" not in extras:
        what = f"{tokens.shape[1]} tokens of a prompt" if tokens.ndim == 3 and tokens.shape[1] > 1 else "something else"
        raise InputError(
            f"`{name}` must be the conditioning of Stable Video Diffusion, an embedded frame, but got {what}. {REMEDY}."
        )
    if name == "negative" and bool(torch.any(tokens != 0)):
        raise InputError(
            "`negative` must be the second output of 'SVD_img2vid_Conditioning', zeros, but got an embedded frame. "
            "Swap positive and negative, or leave `negative` unconnected."
        )
