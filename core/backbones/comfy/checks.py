"""Which of the host's models can be read, what may be wired to them, and messages for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.ldm.modules.attention as host_attention
import comfy.ldm.modules.diffusionmodules.openaimodel as host_unet
import comfy.ldm.modules.temporal_ae as host_autoencoder
import comfy.model_sampling
import torch

from ...config.parts import ATTENTION_BLOCKS
from ...types import InputError
from ..layers import XL_DEPTHS
from .patches import require_noise_levels

SUPPORTED = (
    "VidSeg reads Stable Diffusion 1.x and 2.x, for example v2-1_512-ema-pruned.safetensors, and SDXL through "
    "'Load Checkpoint', Stable Video Diffusion through 'Image Only Checkpoint Loader', or the bundled model through "
    "'Load Demo Model'"
)
VIDEO_REMEDY = (
    "Load svd.safetensors with 'Image Only Checkpoint Loader' ('Load Checkpoint Image Only') and wire its CLIP_VISION "
    "to `clip_vision`, or the outputs of 'SVD_img2vid_Conditioning' to `positive` and `negative`"
)
XL_NUMBERS, NUMBER_CHANNELS = 6, 256
"""Numbers that SDXL is told about a picture beside its pooled text, and channels of each."""
INPAINTING_CHANNELS = 9
"""Channels into the UNet of an inpainting model: two pictures and a mask."""
VIDEO_CHANNELS = (8, 4)
"""Channels into and out of SVD's UNet."""
VECTOR_CHANNELS = 768
"""Channels of the numbers that SVD is told about a window."""
NUM_TRAINING_STEPS = 1000
"""Length of the training schedule of Stable Diffusion."""
OTHER_PREDICTIONS = ("X0", "EDM")
"""The host's kinds of prediction that are neither noise nor velocity, though they derive from these."""
_WHOLE_SCHEDULE = {"start_percent": 0.0, "end_percent": 1.0}
"""What the host writes on a prompt that holds for all steps."""
_TRANSFORMERS = [[1] if block in ATTENTION_BLOCKS else [] for block in range(12)]
"""Depths of the transformers in each decoder block."""
_XL_DEPTHS = [[XL_DEPTHS[block]] if block in XL_DEPTHS else [] for block in range(9)]
"""The same of SDXL."""
_FAMILIES = ("WAN", "LTX", "Hunyuan", "Cosmos", "Lumina", "PixArt", "AuraFlow", "Chroma", "QwenImage", "SD3", "Flux")
"""How the names of the host's classes begin that have variants."""
_FOREIGN = {
    "SDXL": "Stable Diffusion XL",
    "SDXLRefiner": "the refiner of Stable Diffusion XL",
    "SSD1B": "SSD-1B (an SDXL model)",
    "Segmind_Vega": "Segmind Vega (an SDXL model)",
    "SVD_img2vid": "Stable Video Diffusion",
    "SV3D_u": "Stable Video 3D",
    "SV3D_p": "Stable Video 3D",
    "SD3": "Stable Diffusion 3",
    "Flux": "Flux",
    "FluxInpaint": "Flux",
    "FluxSchnell": "Flux",
    "Stable_Cascade_C": "Stable Cascade",
    "Stable_Cascade_B": "Stable Cascade",
    "Stable_Zero123": "Stable Zero123",
    "SD_X4Upscaler": "the Stable Diffusion x4 upscaler",
    "SD15_instructpix2pix": "InstructPix2Pix",
}


def model_name(model: Any) -> str:
    """Return what kind of model the host holds, in words."""
    config = type(getattr(model.model, "model_config", model.model)).__name__
    return _FOREIGN.get(config) or next((name for name in _FAMILIES if config.startswith(name)), config)


def require_readable(model: Any) -> None:
    """Check that ``model`` is a MODEL whose UNet has the shape of Stable Diffusion 1.x or 2.x."""
    if not hasattr(model, "get_model_object") or not hasattr(model, "model"):
        raise InputError(f"`model` must be a MODEL of ComfyUI, but got {type(model).__name__}. {SUPPORTED}.")
    problem = _unet_problem(model.model.diffusion_model)
    if problem:
        raise InputError(
            f"`model` must be a Stable Diffusion 1.x or 2.x model, but got {model_name(model)} ({problem}). "
            f"{SUPPORTED}."
        )
    require_schedule(model)


def require_xl_readable(model: Any) -> None:
    """Check that ``model`` is a MODEL whose UNet has the shape of SDXL."""
    problem = _xl_problem(model.model.diffusion_model)
    if problem:
        raise InputError(f"`model` must be SDXL, but got {model_name(model)} ({problem}). {SUPPORTED}.")
    require_schedule(model)


def require_schedule(model: Any) -> None:
    """Check that ``model`` predicts noise or velocity on the training schedule of Stable Diffusion."""
    sampling = model.get_model_object("model_sampling")
    if not isinstance(sampling, comfy.model_sampling.EPS) or predicts_otherwise(sampling):
        raise InputError(
            f"`model` must predict noise (eps) or velocity (v), but got {type(sampling).__bases__[-1].__name__}. "
            "Remove the node that changes the model's sampling, or load another checkpoint."
        )
    if len(getattr(sampling, "sigmas", ())) != NUM_TRAINING_STEPS:
        raise InputError(
            f"`model` must have a schedule of {NUM_TRAINING_STEPS} noise levels, but got "
            f"{len(getattr(sampling, 'sigmas', ()))}. Remove the node that changes the model's sampling."
        )
    require_noise_levels(sampling)


def predicts_otherwise(sampling: Any) -> bool:
    """Return whether the host's ``sampling`` is of `OTHER_PREDICTIONS`."""
    return any(kind.__name__ in OTHER_PREDICTIONS for kind in type(sampling).__mro__)


def _unet_problem(unet: Any) -> str:
    """Return why ``unet`` cannot be read, or an empty string."""
    if not isinstance(unet, host_unet.UNetModel):
        return f"its network is {type(unet).__name__}, not a UNet"
    channels, blocks = (unet.in_channels, unet.out_channels), len(unet.output_blocks)
    problems = {
        "its UNet takes a vector besides the text": unet.num_classes is not None,
        f"its UNet takes {channels[0]} channels in and gives {channels[1]}, instead of 4 and 4": channels != (4, 4),
        f"its UNet has {blocks} decoder blocks instead of 12": blocks != len(_TRANSFORMERS),
    }
    return next((problem for problem, found in problems.items() if found), "") or _attention_problem(unet)


def _xl_problem(unet: Any) -> str:
    """Return why a UNet of three levels is not SDXL's, or an empty string."""
    told = unet.label_emb[0][0].in_features if unet.num_classes == "sequential" else 0
    problems = {
        "an inpainting model, which takes a mask in": unet.in_channels == INPAINTING_CHANNELS,
        f"its UNet takes {unet.in_channels} channels in and gives {unet.out_channels}, instead of 4 and 4":
            (unet.in_channels, unet.out_channels) != (4, 4),
        f"it is told {told} numbers beside the text": told <= XL_NUMBERS * NUMBER_CHANNELS,
    }  # fmt: skip
    return next((problem for problem, found in problems.items() if found), "") or _attention_problem(unet, _XL_DEPTHS)


def _attention_problem(unet: Any, depths: Sequence[list[int]] = _TRANSFORMERS) -> str:
    """Return what is unusual about the attention in the decoder of ``unet``, or an empty string."""
    for number, (block, expected) in enumerate(zip(unet.output_blocks, depths, strict=True)):
        layers = [layer for layer in block if isinstance(layer, host_attention.SpatialTransformer)]
        if any(isinstance(layer, host_attention.SpatialVideoTransformer) for layer in layers):
            return "its UNet has temporal layers"
        if [len(layer.transformer_blocks) for layer in layers] != expected:
            return f"its decoder block {number} holds attention in another arrangement"
    return ""


def require_vae(vae: Any) -> None:
    """Check that ``vae`` is a VAE with 4 latent channels at an eighth of the size."""
    channels, ratio = getattr(vae, "latent_channels", None), getattr(vae, "downscale_ratio", None)
    if not hasattr(vae, "first_stage_model") or (channels, ratio) != (4, 8):
        raise InputError(
            "`vae` must be the VAE of Stable Diffusion (4 latent channels, an eighth of the size), but got "
            f"{channels} channels and ratio {ratio}. Take the VAE of the same checkpoint as the model."
        )


def require_conditioning(name: str, conditioning: Any, width: int) -> None:
    """Check that ``conditioning`` is plain text conditioning of the model's width."""
    if not conditioning:
        raise InputError(f"`{name}` must hold one prompt, but got an empty list. Wire CLIP Text Encode to it.")
    for tokens, extras in conditioning:
        if tokens.ndim != 3 or tokens.shape[-1] != width:
            raise InputError(
                f"`{name}` must have width {width} as `model` has, but got {tokens.shape[-1]}. "
                "Encode the prompt with the CLIP of the same checkpoint as the model."
            )
        found = [extra for extra in ("control", "area", "mask", "gligen", "concat_latent_image") if extra in extras]
        found += [part for part, whole in _WHOLE_SCHEDULE.items() if extras.get(part, whole) != whole]
        if found:
            raise InputError(
                f"`{name}` must be a plain prompt, but got one with {', '.join(found)}. Segmentation reads the whole "
                "frame at any step: wire CLIP Text Encode directly to this input."
            )


def is_video_model(model: Any) -> bool:
    """Return whether ``model`` is a MODEL whose UNet has temporal layers."""
    unet = getattr(getattr(model, "model", None), "diffusion_model", None)
    return isinstance(unet, host_unet.UNetModel) and any(
        isinstance(layer, host_attention.SpatialVideoTransformer) for block in unet.output_blocks for layer in block
    )


def is_xl_model(model: Any) -> bool:
    """Return whether ``model`` is a MODEL whose UNet has three levels, as SDXL and its relatives."""
    unet: Any = getattr(getattr(model, "model", None), "diffusion_model", None)
    is_image = isinstance(unet, host_unet.UNetModel) and not is_video_model(model)
    return is_image and len(unet.output_blocks) == len(_XL_DEPTHS)


def is_video_vae(vae: Any) -> bool:
    """Return whether ``vae`` decodes with layers over time."""
    decoder = getattr(getattr(vae, "first_stage_model", None), "decoder", None)
    return isinstance(decoder, host_autoencoder.VideoDecoder)


def require_video_readable(model: Any) -> None:
    """Check that the video model is Stable Video Diffusion."""
    problem = _video_problem(model.model.diffusion_model)
    sampling = model.get_model_object("model_sampling")
    wanted = (comfy.model_sampling.V_PREDICTION, comfy.model_sampling.ModelSamplingContinuousEDM)
    if not problem and (not all(isinstance(sampling, kind) for kind in wanted) or predicts_otherwise(sampling)):
        problem = "its sampling was changed; remove the node that does it"
    if problem:
        raise InputError(
            f"`model` must be Stable Video Diffusion among video models, but got {model_name(model)} ({problem}). "
            f"{VIDEO_REMEDY}."
        )


def _video_problem(unet: Any) -> str:
    """Return why a UNet with temporal layers is not SVD's, or an empty string."""
    vector = unet.label_emb[0][0].in_features if unet.num_classes == "sequential" else 0
    layers = [
        [layer for layer in block if isinstance(layer, host_attention.SpatialVideoTransformer)]
        for block in unet.output_blocks
    ]
    depths = [[len(layer.time_stack) for layer in block] for block in layers]
    problems = {
        f"its UNet takes {unet.in_channels} channels in": (unet.in_channels, unet.out_channels) != VIDEO_CHANNELS,
        f"it is told {vector} numbers instead of {VECTOR_CHANNELS}": vector != VECTOR_CHANNELS,
        "its attention is arranged otherwise": depths != [[1] if i in ATTENTION_BLOCKS else [] for i in range(12)],
    }
    return next((problem for problem, found in problems.items() if found), "")


def require_video_conditioning(name: str, conditioning: Any, width: int) -> None:
    """Check that ``conditioning`` is that of SVD: an embedded frame, and the frame's latent."""
    if not conditioning:
        raise InputError(f"`{name}` must hold the conditioning of SVD, but got an empty list. {VIDEO_REMEDY}.")
    tokens, extras = conditioning[0]
    if tokens.ndim != 3 or tuple(tokens.shape[1:]) != (1, width) or "concat_latent_image" not in extras:
        what = f"{tokens.shape[1]} tokens of a prompt" if tokens.ndim == 3 and tokens.shape[1] > 1 else "something else"
        raise InputError(
            f"`{name}` must be the conditioning of Stable Video Diffusion, an embedded frame, but got {what}. "
            f"{VIDEO_REMEDY}."
        )
    if name == "negative" and bool(torch.any(tokens != 0)):
        raise InputError(
            "`negative` must be the second output of 'SVD_img2vid_Conditioning', zeros, but got an embedded frame. "
            "Swap positive and negative, or leave `negative` unconnected."
        )
