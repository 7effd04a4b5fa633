"""A narrow SDXL as the host holds it; its own loaders know the full size only."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
from safetensors.torch import load_file
from vidseg.core.checkpoints.describe import CONDITIONING_KEY, POOLED_KEY
from vidseg.core.checkpoints.sizes import UNET_PREFIX, VAE_PREFIX
from vidseg.nodes.demo_model import LoadedModel, _vae

from ..core.backbones.narrow_models import XL


class NarrowXl(comfy.supported_models.SDXL):
    """The layout of SDXL at any width; created directly, never registered for detection."""

    unet_extra_config: ClassVar[dict[str, Any]] = {
        **comfy.supported_models.SDXL.unet_extra_config,
        "num_head_channels": 32,
    }


def load_xl(path: Path, **marks: Any) -> LoadedModel:
    """Load a file of `narrow_model(path, XL)`; ``marks`` are tensors that tell its prediction, such as ``v_pred``."""
    weights = load_file(path)
    unet = {name.removeprefix(UNET_PREFIX): value for name, value in weights.items() if name.startswith(UNET_PREFIX)}
    vae = {name.removeprefix(VAE_PREFIX): value for name, value in weights.items() if name.startswith(VAE_PREFIX)}
    tokens, pooled = weights[CONDITIONING_KEY][None], weights[POOLED_KEY][None]
    positive = [[tokens, {"pooled_output": pooled}]]
    negative = [[0 * tokens, {"pooled_output": 0 * pooled}]]
    return LoadedModel(_model(unet, marks), _vae(vae, XL), positive, negative)


def _model(weights: dict[str, Any], marks: dict[str, Any]) -> Any:
    host = comfy.model_management
    config = NarrowXl(comfy.model_detection.detect_unet_config(weights, ""))
    device = host.unet_offload_device()
    dtype = host.unet_dtype(model_params=10**6, supported_dtypes=config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, host.unet_manual_cast(dtype, device, config.supported_inference_dtypes))
    model = config.get_model({**weights, **marks}, "", device=device)
    make = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    patcher = make(model, load_device=host.get_torch_device(), offload_device=device)
    dynamic = {"assign": patcher.is_dynamic()} if hasattr(patcher, "is_dynamic") else {}
    model.load_model_weights(dict(weights), "", **dynamic)
    return patcher
