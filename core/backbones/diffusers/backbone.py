"""Adapter over diffusers: Stable Diffusion 1.x and 2.x from a file or a folder, and what other models share with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...checkpoints.describe import ModelDescription
from ...config.parts import Variant, VideoConfig
from ...types import Conditioning, InputError, require_shape
from ..memory import find_budget, is_out_of_memory, keep_freed_memory
from ..protocol import PIXELS_PER_LATENT, BackboneInfo, Denoiser, Result, halve_on_out_of_memory
from ..schedule import make_training_sigmas
from .denoiser import DiffusersDenoiser
from .unet import run_decoder
from .weights import align, build_unet, build_vae, fold_doublings, use_contiguous_tokens, use_plain_attention

_Self = TypeVar("_Self", bound="DiffusersFeatures")
MAX_BATCH = 64
CPU_COMPUTE_BATCH = 1
"""Frames of a UNet or autoencoder call on the CPU: as fast as more, and results cannot depend on the batch."""
ACTIVATION_TENSORS = 40
"""Finest-level activations of a UNet call that live at a time, rounded up, counted in maps of ``model_channels``."""
VAE_ACTIVATION_TENSORS = 10
"""Likewise for the autoencoder, counted in maps of ``ch`` channels in the size of the frame."""


class DiffusersFeatures:
    """What diffusers models have in common: weights, latents of frames, memory; all of `FeatureBackbone` but `run`."""

    def __init__(
        self, description: ModelDescription, conditioning: Tensor, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.description = description
        self.device = device
        self._conditioning = conditioning.to(device, dtype)
        self._unet: Any = self._make_unet(dtype)
        vae_dtype = torch.bfloat16 if device.type == "cuda" and dtype != torch.float32 else torch.float32
        self._vae: Any = self._make_vae(vae_dtype)
        self._training_sigmas = make_training_sigmas()
        if device.type == "cpu":
            keep_freed_memory()
            align(self._unet)
            align(self._vae)
            use_contiguous_tokens(self._unet)
            use_plain_attention(self._vae)
            fold_doublings(self._vae)

    @cached_property
    def info(self) -> BackboneInfo:
        """What the model is; the first use reads the file for its fingerprint."""
        model = self.description
        return BackboneInfo(model.path.name, model.kind, model.sizes.prediction_type, model.fingerprint)

    @property
    def training_sigmas(self) -> Tensor:
        """Noise levels of the training schedule, ``(1000,)`` float64, rising."""
        return self._training_sigmas

    @torch.no_grad()
    def encode(self, frames: Tensor, posterior_noise: Tensor | None = None) -> Tensor:
        """Return scaled latents of ``(T,H,W,3)``, with sides that are multiples of 8; see `FeatureBackbone.encode`."""
        sizes = require_shape("frames", frames, "T H W 3")
        if sizes["T"] < 1 or sizes["H"] % PIXELS_PER_LATENT or sizes["W"] % PIXELS_PER_LATENT:
            raise InputError(
                f"`frames` must be at least one, with sides that are multiples of 8, but got {tuple(frames.shape)}. "
                "Resize them to multiples of 64 pixels."
            )
        if posterior_noise is not None:
            shape = {"T": sizes["T"], "h": sizes["H"] // PIXELS_PER_LATENT, "w": sizes["W"] // PIXELS_PER_LATENT}
            require_shape("posterior_noise", posterior_noise, "T 4 h w", **shape)
        moments = self._in_chunks(self._moments, frames, sizes["H"] * sizes["W"])
        mean, deviation = moments.unbind(1)
        latents = mean if posterior_noise is None else mean + deviation * posterior_noise.to(mean)
        return latents * self.description.sizes.scale_factor

    def condition(self, frame: Tensor, noise: Tensor, config: VideoConfig) -> Conditioning | None:  # noqa: ARG002
        """Return None: frames are independent, and nothing is told about them."""
        return None

    def conditioned(
        self: _Self,
        conditioning: Conditioning | None,  # noqa: ARG002
        config: VideoConfig,  # noqa: ARG002
        variant: Variant = "paper",  # noqa: ARG002
    ) -> _Self:
        """Return this backbone, which is that of every frame."""
        return self

    def batch_size(self, latent_shape: Sequence[int]) -> int:
        """Return how many latents ``(4,H/8,W/8)`` in work fit into the free memory, what is kept of them included."""
        activations = 0 if self.device.type == "cpu" else self._activation_bytes(latent_shape)
        return _fitting(find_budget(self.device), activations + self._cache_bytes(latent_shape))

    def _make_unet(self, dtype: torch.dtype) -> Any:  # noqa: ANN401
        return build_unet(self.description, self.device, dtype)

    def _make_vae(self, dtype: torch.dtype) -> Any:  # noqa: ANN401
        return build_vae(self.description, self.device, dtype)

    def _compute_batch(self, latent_shape: Sequence[int]) -> int:
        """Return how many latents go into one UNet call."""
        if self.device.type == "cpu":
            return CPU_COMPUTE_BATCH
        return self.batch_size(latent_shape)

    def _activation_bytes(self, latent_shape: Sequence[int]) -> int:
        """Estimate the activations of one latent in a UNet call with guidance."""
        cells = int(latent_shape[-1]) * int(latent_shape[-2])
        return 2 * cells * self.description.sizes.unet.model_channels * ACTIVATION_TENSORS * self._element_size

    def _cache_bytes(self, latent_shape: Sequence[int]) -> int:
        """Return what is kept of one latent: three tensors per block with attention, and skips of about another."""
        pixels = int(latent_shape[-1]) * int(latent_shape[-2]) * 64
        values = sum(pixels // block.grid_divisor**2 * block.channels * 4 for block in self.description.blocks)
        return 2 * values * self._element_size

    @property
    def _element_size(self) -> int:
        return self._conditioning.element_size()

    def _in_chunks(self, call: Callable[[Tensor], Tensor], inputs: Tensor, pixels: int) -> Tensor:
        """Call the autoencoder on chunks of ``inputs``, of ``pixels`` each, that fit into memory; join the results."""
        each = pixels * self.description.sizes.vae.ch * VAE_ACTIVATION_TENSORS * self._vae.dtype.itemsize
        size = CPU_COMPUTE_BATCH if self.device.type == "cpu" else _fitting(find_budget(self.device), each)

        def run(size: int) -> Tensor:
            return torch.cat([call(part) for part in torch.split(inputs, size)])

        return halve_on_out_of_memory(run, max(1, min(size, len(inputs))), is_out_of_memory)

    def _moments(self, frames: Tensor) -> Tensor:
        """Return mean and standard deviation ``(T,2,4,H/8,W/8)`` float32 of the posterior, on the CPU."""
        pixels = (2 * frames.to(self.device, torch.float32) - 1).movedim(-1, 1).contiguous()
        posterior = self._vae.encode(pixels.to(self._vae.dtype)).latent_dist
        return torch.stack([posterior.mean, posterior.std], dim=1).float().cpu()


class DiffusersBackbone(DiffusersFeatures):
    """Stable Diffusion 1.x or 2.x as a `Backbone`. Use `load_diffusers` to make one."""

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return frames ``(T,H,W,3)`` of scaled ``latents`` ``(T,4,H/8,W/8)``; see `Backbone.decode`."""
        sizes = require_shape("latents", latents, "T 4 h w")
        if sizes["T"] < 1:
            raise InputError("`latents` must hold at least one frame, but got none.")
        return self._in_chunks(self._decoded, latents, sizes["h"] * sizes["w"] * 64)

    def run(self, job: Callable[[Denoiser], Result], guidance_scale: float, latent_shape: Sequence[int]) -> Result:
        """Call ``job`` with a denoiser; see `Backbone.run`. The model is used as it is and stays so."""
        denoiser = DiffusersDenoiser(
            self._unet,
            self._conditioning,
            guidance_scale,
            self._training_sigmas,
            self.description.sizes.prediction_type,
            self._compute_batch(latent_shape[-3:]),
        )
        return job(denoiser)

    def _decoded(self, latents: Tensor) -> Tensor:
        scaled = latents.to(self.device, torch.float32) / self.description.sizes.scale_factor
        if self.device.type in {"cpu", "cuda"}:  # as the decoder's weights lie
            scaled = scaled.contiguous(memory_format=torch.channels_last)
        pixels = run_decoder(self._vae, scaled.to(self._vae.dtype))
        return (pixels.float().movedim(1, -1) + 1) / 2


def _fitting(budget: int, each: int) -> int:
    """Return how many elements of ``each`` bytes fit into ``budget`` bytes, in [1, `MAX_BATCH`]."""
    return max(1, min(MAX_BATCH, budget // max(1, each)))
