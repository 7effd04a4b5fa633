"""Which of the host's models can be read, and messages for those that cannot."""

from __future__ import annotations

from typing import Any

import comfy.ldm.modules.attention as host_attention
import comfy.ldm.modules.diffusionmodules.openaimodel as host_unet
import comfy.model_sampling

from ...config.parts import ATTENTION_BLOCKS
from ...types import InputError

SUPPORTED = (
    "VidSeg reads Stable Diffusion 1.x and 2.x, for example v2-1_512-ema-pruned.safetensors through "
    "'Load Checkpoint', Stable Video Diffusion through 'Image Only Checkpoint Loader', or the bundled model through "
    "'Load Demo Model'"
)
NUM_TRAINING_STEPS = 1000
"""Length of the training schedule of Stable Diffusion."""
OTHER_PREDICTIONS = ("X0", "EDM")
"""The host's kinds of prediction that are neither noise nor velocity, though they derive from these."""
_WHOLE_SCHEDULE = {"start_percent": 0.0, "end_percent": 1.0}
"""What the host writes on a prompt that holds for all steps."""
_TRANSFORMERS = [[1] if block in ATTENTION_BLOCKS else [] for block in range(12)]
"""Depths of the transformers in each decoder block."""
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
    return _FOREIGN.get(config, config)


def require_readable(model: Any) -> None:
    """Check that ``model`` is a MODEL whose UNet has the shape of Stable Diffusion 1.x or 2.x.

    Raises:
        InputError: it is another kind of model, with the kind and what is supported.
    """
    if not hasattr(model, "get_model_object") or not hasattr(model, "model"):
        raise InputError(f"`model` must be a MODEL of ComfyUI, but got {type(model).__name__}. {SUPPORTED}.")
    problem = _unet_problem(model.model.diffusion_model)
    if problem:
        raise InputError(
            f"`model` must be a Stable Diffusion 1.x or 2.x model, but got {model_name(model)} ({problem}). "
            f"{SUPPORTED}."
        )
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


def _attention_problem(unet: Any) -> str:
    """Return what is unusual about the attention in the decoder of ``unet``, or an empty string."""
    for number, (block, expected) in enumerate(zip(unet.output_blocks, _TRANSFORMERS, strict=True)):
        layers = [layer for layer in block if isinstance(layer, host_attention.SpatialTransformer)]
        if any(isinstance(layer, host_attention.SpatialVideoTransformer) for layer in layers):
            return "its UNet has temporal layers"
        if [len(layer.transformer_blocks) for layer in layers] != expected:
            return f"its decoder block {number} holds attention in another arrangement"
    return ""


def require_vae(vae: Any) -> None:
    """Check that ``vae`` is a VAE with 4 latent channels at an eighth of the size.

    Raises:
        InputError: it belongs to another family of models.
    """
    channels, ratio = getattr(vae, "latent_channels", None), getattr(vae, "downscale_ratio", None)
    if not hasattr(vae, "first_stage_model") or (channels, ratio) != (4, 8):
        raise InputError(
            "`vae` must be the VAE of Stable Diffusion 1.x or 2.x (4 latent channels, an eighth of the size), but got "
            f"{channels} channels and ratio {ratio}. Take the VAE of the same checkpoint as the model."
        )


def require_conditioning(name: str, conditioning: Any, width: int) -> None:
    """Check that ``conditioning`` is plain text conditioning of the model's width.

    Raises:
        InputError: another width, an empty list, or extras that change single parts of the image or of the schedule.
    """
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
