"""The bundled narrow checkpoint and its clip."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import torch
from comfy_api.latest import io
from safetensors import safe_open
from torch import Tensor

from ..core.checkpoints.describe import CONDITIONING_KEY
from ..core.checkpoints.sizes import METADATA_KEY, UNET_PREFIX, VAE_PREFIX, ModelSizes
from ..core.files.clip import open_clip
from ..core.files.package import DEMO_CLIP, DEMO_MODEL
from ..core.types import InputError
from .host.schema import schema

NUM_PROMPT_TOKENS = 77
Conditioning = list[list[Any]]


class LoadedModel(NamedTuple):
    """What a checkpoint gives: the host's MODEL and VAE, and conditioning of the empty prompt and of none."""

    model: Any
    vae: Any
    positive: Conditioning
    negative: Conditioning


class NarrowStableDiffusion(comfy.supported_models.SD20):  # type: ignore[misc]
    """The layout of SD 2.x at any width, predicting noise; created directly, never registered for detection."""

    def model_type(self, _weights: dict[str, Tensor], _prefix: str = "") -> Any:
        """Return the host's name of the prediction type; the host would guess it from the weights."""
        return comfy.model_base.ModelType.EPS


class NarrowStableDiffusionV(NarrowStableDiffusion):
    """The same, predicting velocity."""

    def model_type(self, _weights: dict[str, Tensor], _prefix: str = "") -> Any:
        """Return the host's name of the prediction type."""
        return comfy.model_base.ModelType.V_PREDICTION


def load_narrow_model(path: Path) -> LoadedModel:
    """Load a file in the original layout that names its sizes in its metadata."""
    if not path.is_file():
        raise InputError(f"`path` must be a model file, but {path.name} is missing. Install the node pack again.")
    with safe_open(path, "pt") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        metadata = file.metadata() or {}
    if METADATA_KEY not in metadata:
        raise InputError(
            f"`path` must name its sizes as {METADATA_KEY}, but {path.name} does not. Load it as checkpoint."
        )
    sizes = ModelSizes.from_metadata(metadata[METADATA_KEY])
    model = _model(_part(weights, UNET_PREFIX), sizes)
    model.cached_patcher_init = (_reloaded_model, (path,))
    vae = _vae(_part(weights, VAE_PREFIX), sizes)
    width = sizes.unet.context_dim
    positive = weights.get(CONDITIONING_KEY, torch.zeros(NUM_PROMPT_TOKENS, width)).float().reshape(1, -1, width)
    return LoadedModel(model, vae, [[positive, {}]], [[torch.zeros_like(positive), {}]])


def _reloaded_model(path: Path) -> Any:
    """Load the MODEL alone again; the host calls this when it needs a second copy."""
    return load_narrow_model(path).model


def _part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    part = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    if not part:
        raise InputError(f"`path` must hold tensors named {prefix}*, but got none. Choose another file.")
    return part


def _model(weights: dict[str, Tensor], sizes: ModelSizes) -> Any:
    """Return the host's MODEL of UNet ``weights`` (names without prefix)."""
    host = comfy.model_management
    kind = NarrowStableDiffusionV if sizes.prediction_type == "v_prediction" else NarrowStableDiffusion
    config = kind(comfy.model_detection.detect_unet_config(weights, ""))
    heads = {"num_head_channels": sizes.unet.num_head_channels or -1, "num_heads": sizes.unet.num_heads or -1}
    config.unet_config.update(heads)
    load_device, offload_device = host.get_torch_device(), host.unet_offload_device()
    count = sum(value.numel() for value in weights.values())
    stored, supported = next(iter(weights.values())).dtype, config.supported_inference_dtypes
    dtype = host.unet_dtype(model_params=count, supported_dtypes=supported, weight_dtype=stored)
    config.set_inference_dtype(dtype, host.unet_manual_cast(dtype, load_device, supported))
    model = config.get_model(weights, "", device=offload_device)
    make = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    patcher = make(model, load_device=load_device, offload_device=offload_device)
    dynamic = {"assign": patcher.is_dynamic()} if hasattr(patcher, "is_dynamic") else {}
    model.load_model_weights(dict(weights), "", **dynamic)
    return patcher


def _vae(weights: dict[str, Tensor], sizes: ModelSizes) -> Any:
    """Return the host's VAE of ``weights`` (names without prefix)."""
    ddconfig = {**asdict(sizes.vae), "attn_resolutions": [], "ch_mult": list(sizes.vae.ch_mult)}
    return comfy.sd.VAE(sd=weights, config={"params": {"ddconfig": ddconfig, "embed_dim": sizes.vae.z_channels}})


class LoadDemoModel(io.ComfyNode):
    """The bundled narrow checkpoint."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "files",
            node_id="LoadDemoModel",
            display_name="Load Demo Model",
            description="A very small Stable Diffusion that comes with VidSeg, so that examples run without a "
            "download, on a CPU too; and a short clip to try it on. A real checkpoint segments far better.",
            search_aliases=["vidseg", "checkpoint", "tiny model", "example model"],
            inputs=[],
            outputs=[
                io.Model.Output("model", display_name="model"),
                io.Vae.Output("vae", display_name="vae"),
                io.Conditioning.Output("positive", display_name="positive"),
                io.Conditioning.Output("negative", display_name="negative"),
                io.Image.Output("frames", display_name="frames"),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """Load the model and the clip."""
        loaded = load_narrow_model(DEMO_MODEL)
        with open_clip(DEMO_CLIP) as clip:
            return io.NodeOutput(*loaded, clip.read(0, clip.num_frames))
