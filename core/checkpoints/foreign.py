"""What a file or folder is that holds no model of ours, in words, told by the names of its tensors or its classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..types import InputError
from .sizes import SUPPORTED, UNET_PREFIX, VAE_PREFIX, Shapes

REFINER = "the refiner of Stable Diffusion XL, which only finishes pictures"
VISION = "a vision model of transformers: give it as --features"
_ATTENTION = "transformer_blocks.0.attn2.to_k.weight"
_REFINER_CONTEXT = 1280
_VIDEO_PARTS = ("conditioner.embedders.1.", "label_emb.")


def _has(*parts: str) -> Callable[[Shapes], bool]:
    """Return whether each part occurs in some tensor's name."""
    return lambda shapes: all(any(part in name for name in shapes) for part in parts)


def _starts(*starts: str) -> Callable[[Shapes], bool]:
    """Return whether all names begin with one of some starts."""
    return lambda shapes: bool(shapes) and all(name.startswith(starts) for name in shapes)


def _is_refiner(shapes: Shapes) -> bool:
    is_narrow = shapes.get(f"{UNET_PREFIX}input_blocks.4.1.{_ATTENTION}", (0, 0))[-1] == _REFINER_CONTEXT
    return is_narrow and f"{UNET_PREFIX}label_emb.0.0.weight" in shapes


def _takes_channels(count: int) -> Callable[[Shapes], bool]:
    """Return whether an image model takes ``count`` channels in."""
    first = f"{UNET_PREFIX}input_blocks.0.0.weight"
    return lambda shapes: shapes.get(first, (0, 0))[1:2] == (count,) and not is_video(shapes)


def _is_told_a_class(shapes: Shapes) -> bool:
    """Return whether an image model is told something beside the text, but is none of SDXL's shape."""
    is_told = any("label_emb." in name or "conditioner.embedders.1." in name for name in shapes)
    return is_told and f"{UNET_PREFIX}input_blocks.4.1.norm.weight" not in shapes and not is_video(shapes)


def is_video(shapes: Shapes) -> bool:
    """Return whether the UNet has temporal layers."""
    return any(name.startswith(UNET_PREFIX) and ".time_stack." in name for name in shapes)


_FILES: tuple[tuple[str, Callable[[Shapes], bool]], ...] = (
    ("a LoRA, not a whole model", lambda s: any(x in name for name in s for x in ("lora_", ".lora_A.", ".lokr_"))),
    ("a ControlNet", lambda s: any(x in name for name in s for x in ("control_model.", "controlnet_"))),
    ("Stable Diffusion 3", _has("joint_blocks.")),
    ("HunyuanVideo", _has("double_blocks.", "txt_in.individual_token_refiner")),
    ("Flux or another transformer model", _has("double_blocks.")),
    ("Wan", _has("blocks.0.self_attn.norm_q", "blocks.0.cross_attn")),
    ("a diffusion transformer", _starts("transformer_blocks.", "model.diffusion_model.transformer_blocks.")),
    (REFINER, _is_refiner),
    ("an inpainting model, whose UNet takes a mask in", _takes_channels(9)),
    ("InstructPix2Pix, whose UNet takes a picture in", _takes_channels(8)),
    ("a model with EDM's noise levels, such as Playground 2.5 or CosXL", _has("edm_mean")),
    ("a model with EDM's noise levels, such as Playground 2.5 or CosXL", _has("edm_vpred.sigma_max")),
    ("a model with class or size conditioning, of SDXL's kind but not of its shape", _is_told_a_class),
    ("a VAE, with no UNet", _starts("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", VAE_PREFIX)),
    ("a text encoder alone", _starts("text_model.", "text_projection", "encoder.block.", "shared.", "logit_scale")),
)
"""What a file may be, the most telling first."""
_CLASSES = {
    "SD3": "Stable Diffusion 3",
    "StableDiffusion3": "Stable Diffusion 3",
    "Flux": "Flux",
    "Wan": "Wan",
    "StableDiffusionXLInpaint": "an inpainting model of SDXL",
    "Autoencoder": "a VAE, with no UNet",
    "ControlNet": "a ControlNet",
    "PixArt": "PixArt",
    "HunyuanVideo": "HunyuanVideo",
    "LTX": "LTX-Video",
    "UNet": "a UNet alone",
}
"""What a diffusers class that begins so belongs to."""


def refuse_foreign_file(name: str, shapes: Shapes) -> None:
    """Refuse a file of another model, by name, or of a part of one."""
    for what, matches in _FILES:
        if matches(shapes):
            raise InputError(f"`model` must be a Stable Diffusion model, but {name} is {what}. Use {SUPPORTED}.")
    attention = [f"{UNET_PREFIX}input_blocks.{block}.1.proj_in.weight" for block in (1, 4)]
    needed = {
        f"{UNET_PREFIX}input_blocks.0.0.weight": "UNet",
        next((tensor for tensor in attention if tensor in shapes), attention[0]): "UNet with attention",
        f"{UNET_PREFIX}out.2.weight": "UNet",
        f"{VAE_PREFIX}encoder.conv_in.weight": "encoder of the autoencoder",
        f"{VAE_PREFIX}decoder.conv_in.weight": "decoder of the autoencoder",
        f"{VAE_PREFIX}decoder.conv_out.weight": "decoder of the autoencoder",
    }
    for tensor, what in needed.items():
        if tensor not in shapes:
            raise InputError(
                f"`model` must be a whole Stable Diffusion checkpoint, but {name} has no {what} ({tensor}). "
                f"Use {SUPPORTED}, or a diffusers folder with unet/ and vae/."
            )


def name_class(kind: str) -> str:
    """Return what a diffusers class belongs to, in words, or the class itself.

    >>> name_class("FluxPipeline"), name_class("UNet2DModel")
    ('Flux', 'a UNet alone')
    """
    return next((what for start, what in _CLASSES.items() if kind.startswith(start)), kind)


def name_folder(folder: Path, read: Callable[[Path], Mapping[str, Any]]) -> str:
    """Return what a folder without unet/ is, by its configuration files, or an empty string."""
    for part in ("model_index.json", "transformer/config.json", "config.json"):
        if (folder / part).is_file():
            config = read(folder / part)
            if "model_type" in config:
                return VISION if "patch_size" in config else f"a model of transformers ({config['model_type']})"
            return name_class(str(config.get("_class_name", "")))
    files = [path.name for path in folder.glob("*.safetensors")]
    return "a LoRA, not a whole model" if any("lora" in name or "adapter" in name for name in files) else ""
