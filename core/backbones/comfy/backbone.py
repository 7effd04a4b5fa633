"""Adapter over ComfyUI's MODEL, VAE and CONDITIONING.

The model is loaded, patched and freed by the host. Everything that a call changes lives in the options of that call,
so that the user's MODEL is untouched. The host's own guidance functions (rescaling and the like) do not take part.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

import comfy.model_management
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ... import types
from ...config.parts import Variant, VideoConfig
from ...types import InputError, require_shape
from .. import schedule
from ..protocol import BackboneInfo, Denoiser, Result
from .calls import Loaded
from .checks import model_name, require_conditioning, require_readable, require_vae
from .decoding import Doublings
from .denoiser import HostDenoiser
from .patches import leave_out_patches

SCHEDULE_TOLERANCE = 1e-5
"""Relative difference of noise levels that the host's float32 explains."""
Conditioning = list[list[Any]]
_Self = TypeVar("_Self", bound="ComfyFeatures")
Reader = TypeVar("Reader")
NUM_PROMPT_TOKENS = 77
"""Tokens of a prompt in Stable Diffusion's text encoders."""
MAX_CPU_BATCH = 2
"""On a CPU a larger batch is no faster, and an interrupt waits for the end of a call."""
MAX_BATCH = 16
"""On a GPU a larger batch is hardly faster, and an interrupt waits for the end of a call."""
QUERY_WIDTHS = 5.25
"""Elements of the queries of blocks 3..11 of a latent, over its cells times the UNet's channels."""
KEPT_TENSORS = 3 * 2
"""Queries, keys and cross-attention outputs, of both halves of guidance."""
MEMORY_FACTOR = 1.5
"""Share by which the host itself multiplies its estimate before it fills the memory."""


class ComfyFeatures:
    """What the host's models have in common: latents of frames, conditioning, memory; all of a backbone but `run`."""

    KIND = "sd"

    def __init__(
        self, model: Any, vae: Any, positive: Conditioning | None = None, negative: Conditioning | None = None
    ) -> None:
        """Check the parts before any long work; halves without conditioning are zeros, as in the paper's code."""
        self._require(model)
        require_vae(vae)
        width = model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn2.to_k.in_features
        zeros: Conditioning = [[torch.zeros(1, NUM_PROMPT_TOKENS, width), self._blank_extras(model)]]
        self._positive: Conditioning = positive if positive is not None else zeros
        self._negative: Conditioning = negative if negative is not None else zeros
        require_conditioning("positive", self._positive, width)
        require_conditioning("negative", self._negative, width)
        self._model, self._vae = leave_out_patches(model), vae

    def _require(self, model: Any) -> None:
        """Check that the model is one of ours."""
        require_readable(model)

    def _blank_extras(self, _model: Any) -> dict[str, Any]:
        """Return what stands beside the zeros of a prompt that is not given."""
        return {}

    @property
    def info(self) -> BackboneInfo:
        """What the model is; the host does not tell a fingerprint."""
        sampling = self._model.get_model_object("model_sampling")
        velocity = isinstance(sampling, comfy.model_sampling.V_PREDICTION)
        return BackboneInfo(model_name(self._model), self.KIND, "v_prediction" if velocity else "epsilon", "")

    @property
    def device(self) -> torch.device:
        """Where the host runs the model."""
        device: torch.device = self._model.load_device
        return device

    @property
    def training_sigmas(self) -> Tensor:
        """Noise levels ``(1000,)`` float64; the exact ones where the host's differ by its float32 only."""
        host: Tensor = self._model.get_model_object("model_sampling").sigmas.cpu().double()  # MPS has no float64
        for zero_snr in (False, True):
            exact = schedule.make_training_sigmas(zero_snr=zero_snr)
            if torch.allclose(host[:-1], exact[:-1], rtol=SCHEDULE_TOLERANCE, atol=0):
                return exact
        return host

    def encode(self, frames: Tensor, posterior_noise: Tensor | None = None) -> Tensor:
        """Return scaled latents ``(T,4,H/8,W/8)`` float32 of frames ``(T,H,W,3)``; see `Backbone.encode`."""
        require_shape("frames", frames, "T H W 3")
        if posterior_noise is not None:
            return self._sampled(frames, posterior_noise)
        with torch.no_grad():
            return torch.cat([self._encode_one(frame[None]) for frame in frames])

    def _encode_one(self, frame: Tensor) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        vae = copy.copy(self._vae)  # shares the weights
        vae.process_input = lambda image: self._vae.process_input(image).contiguous()  # more exact than channels last
        latent: Tensor = vae.encode(frame).float().cpu()
        scaled: Tensor = self._model.model.process_latent_in(latent)
        return scaled

    def _sampled(self, frames: Tensor, noise: Tensor) -> Tensor:
        """Return a sample of the posterior: mean and log variance are what the last convolution gives."""
        layer = self._posterior_layer()
        if layer is None:
            raise InputError(
                "`vae` must have a posterior to sample from, but this one gives one latent only. "
                "Choose another preset than 'reference', or the full VAE of the checkpoint."
            )
        moments: list[Tensor] = []
        hook = layer.register_forward_hook(lambda _module, _inputs, output: moments.append(output.float().cpu()))
        try:
            self.encode(frames)
        finally:
            hook.remove()
        mean, log_variance = torch.cat(moments).chunk(2, dim=1)
        sample = mean + torch.exp(0.5 * log_variance.clamp(-30, 20)) * noise
        scaled: Tensor = self._model.model.process_latent_in(sample)
        return scaled

    def _posterior_layer(self) -> Any:
        """Return the layer whose output are mean and log variance of the posterior, or None."""
        return getattr(self._vae.first_stage_model, "quant_conv", None)

    @torch.no_grad()
    def _sample(
        self,
        session: Session[Any, Result],
        guidance_scale: float,
        blank: Tensor,
        sigmas: Tensor,
        conditioning: tuple[Conditioning, Conditioning],
    ) -> Result:
        """Return what the session's job returns within the host's sampling of latents as ``blank``."""
        comfy.sample.sample_custom(
            self._model, blank, guidance_scale, session, sigmas.float(), *conditioning, blank, disable_pbar=True, seed=0
        )
        return session.result

    def condition(self, frame: Tensor, noise: Tensor, config: VideoConfig) -> types.Conditioning | None:  # noqa: ARG002
        """Return None: frames are independent, and nothing is told about them."""
        return None

    def conditioned(
        self: _Self,
        conditioning: types.Conditioning | None,  # noqa: ARG002
        config: VideoConfig,  # noqa: ARG002
        variant: Variant = "paper",  # noqa: ARG002
    ) -> _Self:
        """Return this backbone, which is that of every frame."""
        return self

    def batch_size(self, latent_shape: Sequence[int]) -> int:
        """Return how many latents one call may hold besides the queries and keys that are kept for them."""
        host, device = comfy.model_management, self._model.load_device
        if host.is_device_cpu(device):
            return MAX_CPU_BATCH
        evictable = sum(other.model_loaded_memory() for other in host.current_loaded_models if other.device == device)
        room = host.get_free_memory(device) + evictable - self._model.model_size() - host.minimum_inference_memory()
        kept, call = self._bytes_per_latent(latent_shape)
        return max(1, min(MAX_BATCH, int(room // (kept + call))))

    def _bytes_per_latent(self, latent_shape: Sequence[int]) -> tuple[float, float]:
        """Return the memory of what is kept of a latent of shape ``(...,4,H/8,W/8)``, and of a call with it."""
        channels = self._model.model.diffusion_model.model_channels
        item = 4 if self._model.model_dtype() == torch.float32 else 2
        queries = QUERY_WIDTHS * channels * latent_shape[-2] * latent_shape[-1] * item
        call = MEMORY_FACTOR * self._model.memory_required([2, *latent_shape[-3:]])
        return KEPT_TENSORS * queries, max(call, 1.0)

    def _blank(self, latent_shape: Sequence[int]) -> Tensor:
        """Return zeros whose size makes the host set aside memory for what is kept, too, when it loads the model."""
        count, *rest = latent_shape
        if not comfy.model_management.is_device_cpu(self._model.load_device):
            kept, call = self._bytes_per_latent(latent_shape)
            count = math.ceil(count * (1 + kept / call))
        return torch.zeros(count, *rest)


class ComfyBackbone(ComfyFeatures):
    """`Backbone` over Stable Diffusion 1.x or 2.x from the host's loaders."""

    @cached_property
    def _doublings(self) -> Doublings:
        return Doublings(self._vae)

    def decode(self, latents: Tensor) -> Tensor:
        """Return frames ``(T,H,W,3)`` float32 on the model's device; the host would clamp them and send them away."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        vae = copy.copy(self._vae)  # shares the weights
        vae.output_device = vae.device
        vae.process_output = lambda image: image.add_(1.0).div_(2.0)
        scaled = self._model.model.process_latent_out(latents.float())
        parts = (scaled,)
        if comfy.model_management.is_device_cpu(vae.device):  # faster so, and results cannot depend on the batch
            parts = scaled.contiguous(memory_format=torch.channels_last).split(1)
        with torch.no_grad(), self._doublings.folded():
            return torch.cat([vae.decode(part).float() for part in parts])

    def run(self, job: Callable[[Denoiser], Result], guidance_scale: float, latent_shape: Sequence[int]) -> Result:
        """Load the model through the host's sampling, call ``job`` and clean up; see `Backbone.run`."""
        session = Session(job, lambda loaded: HostDenoiser(loaded, guidance_scale))
        sigmas = schedule.make_sigmas(self.training_sigmas, 25)
        conditioning = (self._positive, self._negative)
        return self._sample(session, guidance_scale, self._blank(latent_shape), sigmas, conditioning)


class Session(comfy.samplers.Sampler, Generic[Reader, Result]):  # type: ignore[misc]
    """Sampler that hands the loaded model to a job instead of sampling, and keeps its result."""

    def __init__(self, job: Callable[[Reader], Result], make: Callable[[Loaded], Reader]) -> None:
        """Hold the job, and what makes its denoiser of the loaded model."""
        self._job, self._make = job, make
        self.result: Result

    def sample(self, wrapped: Any, _sigmas: Tensor, extra: dict[str, Any], *rest: Any) -> Tensor:
        """Run the job; what is returned to the host is not used."""
        noise: Tensor = rest[1]
        loaded = Loaded(wrapped.inner_model, wrapped.conds, extra["model_options"], noise.device)
        self.result = self._job(self._make(loaded))
        return noise
