"""A narrow Stable Video Diffusion as the host holds it; its own loaders know the full size only."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import comfy.ldm.models.autoencoder
import comfy.model_base
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import torch
from safetensors.torch import load_file
from torch import Tensor
from vidseg.core.checkpoints.describe import CONDITIONING_KEY
from vidseg.core.checkpoints.sizes import UNET_PREFIX, VAE_PREFIX, VAESizes

from ..core.backbones.narrow_models import SVD

LAYERS = "comfy.ldm.modules"


class LoadedSvd(NamedTuple):
    """MODEL and VAE, and what stands for the CLIP_VISION: it gives the file's embedding for every frame."""

    model: Any
    vae: Any
    clip_vision: Any


class NarrowSvd(comfy.supported_models.SVD_img2vid):
    """The layout of SVD at any width; created directly, never registered for detection."""

    unet_extra_config: ClassVar[dict[str, Any]] = {
        **comfy.supported_models.SVD_img2vid.unet_extra_config,
        "num_head_channels": 32,
    }


class OneEmbedding:
    """Gives the same embedding whatever the frame, as the narrow file does, which has no image encoder."""

    def __init__(self, embedding: Tensor) -> None:
        self.embedding = embedding

    def encode_image(self, image: Tensor, crop: bool = True) -> dict[str, Tensor]:
        assert not crop
        return {"image_embeds": self.embedding.clone()}


def load_svd(path: Path) -> LoadedSvd:
    """Load a file of `narrow_model(path, SVD)`."""
    weights = load_file(path)
    unet = {name.removeprefix(UNET_PREFIX): value for name, value in weights.items() if name.startswith(UNET_PREFIX)}
    vae = {name.removeprefix(VAE_PREFIX): value for name, value in weights.items() if name.startswith(VAE_PREFIX)}
    return LoadedSvd(_model(unet), _vae(vae, SVD.vae), OneEmbedding(weights[CONDITIONING_KEY]))


def conditioning(loaded: LoadedSvd, latent: Tensor, **numbers: float) -> tuple[Any, Any]:
    """Return what the host's SVD_img2vid_Conditioning gives: ``latent`` ``(1,4,h,w)`` is that of the frame."""
    told = {"motion_bucket_id": 127, "fps": 15, "augmentation_level": 0.02, **numbers}
    tokens = loaded.clip_vision.embedding[None]
    positive = [[tokens, {**told, "concat_latent_image": latent}]]
    return positive, [[torch.zeros_like(tokens), {**told, "concat_latent_image": torch.zeros_like(latent)}]]


def _model(weights: dict[str, Tensor]) -> Any:
    host = comfy.model_management
    config = NarrowSvd(comfy.model_detection.detect_unet_config(weights, ""))
    device = host.unet_offload_device()
    dtype = host.unet_dtype(model_params=10**6, supported_dtypes=config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, host.unet_manual_cast(dtype, device, config.supported_inference_dtypes))
    model = config.get_model(weights, "", device=device)
    make = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    patcher = make(model, load_device=host.get_torch_device(), offload_device=device)
    dynamic = {"assign": patcher.is_dynamic()} if hasattr(patcher, "is_dynamic") else {}
    model.load_model_weights(dict(weights), "", **dynamic)
    return patcher


def _vae(weights: dict[str, Tensor], sizes: VAESizes) -> Any:
    """Return the host's VAE with a narrow temporal decoder, put together as the host does for the full size."""
    ddconfig = {**asdict(sizes), "attn_resolutions": [], "ch_mult": list(sizes.ch_mult)}
    engine = comfy.ldm.models.autoencoder.AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
        encoder_config={"target": f"{LAYERS}.diffusionmodules.model.Encoder", "params": ddconfig},
        decoder_config={
            "target": f"{LAYERS}.temporal_ae.VideoDecoder",
            "params": {**ddconfig, "video_kernel_size": [3, 1, 1], "alpha": 0.0},
        },
    )
    missing, unexpected = engine.load_state_dict(weights, strict=False)
    assert not missing
    assert not unexpected
    plain = {name: value for name, value in weights.items() if name.startswith("encoder.")}
    vae = comfy.sd.VAE(sd=plain, config={"params": {"ddconfig": ddconfig, "embed_dim": sizes.z_channels}})
    vae.first_stage_model = engine.eval().to(vae.vae_dtype)
    make = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    vae.patcher = make(vae.first_stage_model, load_device=vae.device, offload_device=torch.device("cpu"))
    return vae
