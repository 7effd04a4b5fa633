"""Adapter over ComfyUI's MODEL, VAE, CLIP_VISION and CONDITIONING of Stable Video Diffusion, one window at a time."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ... import types
from ...config.parts import ATTENTION_BLOCKS, ModulationConfig, Variant, VideoConfig
from ...types import InputError, require_shape
from .. import schedule
from ..protocol import (
    PIXELS_PER_LATENT,
    BackboneInfo,
    Denoiser,
    Layer,
    Prediction,
    Result,
    StepCache,
    require_attention,
    require_whole_windows,
)
from .attention import SPATIAL, TEMPORAL, HostCache, Slot, add_to_both, capture_both, inject_both
from .backbone import MEMORY_FACTOR, QUERY_WIDTHS, ComfyBackbone, Conditioning, Session
from .calls import Call, Loaded
from .checks import (
    VIDEO_REMEDY,
    is_video_vae,
    model_name,
    require_vae,
    require_video_conditioning,
    require_video_readable,
)
from .denoiser import HostDenoiser, as_cache
from .patches import leave_out_patches
from .tail import TailState

logger = logging.getLogger(__name__)
KEPT_TENSORS = 5
"""Kept of each block: queries and keys of both self-attentions, and skips of about another tensor."""
FPS, MOTION_BUCKET, AUGMENTATION = 6, 127, 0.0
"""What the host tells the model where conditioning does not say."""


class ComfySvdBackbone(ComfyBackbone):
    """`Backbone` over what the host's loader of image-only checkpoints gives.

    With ``clip_vision`` each window is conditioned on its own first frame (paper), and ``positive`` only gives the
    numbers; without it the frame of ``positive`` conditions all windows. Frames are encoded and decoded one at a time.
    """

    def __init__(
        self,
        model: Any,
        vae: Any,
        positive: Conditioning | None = None,
        negative: Conditioning | None = None,
        clip_vision: Any = None,
    ) -> None:
        """Check the parts before any long work, conditioning being that of the host's SVD_img2vid_Conditioning."""
        require_video_readable(model)
        require_vae(vae)
        self._width = model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn2.to_k.in_features
        for name, conditioning in (("positive", positive), ("negative", negative)):
            if conditioning is not None:
                require_video_conditioning(name, conditioning, self._width)
        if clip_vision is not None and not hasattr(clip_vision, "encode_image"):
            raise InputError(
                f"`clip_vision` must be a CLIP_VISION, but got {type(clip_vision).__name__}. {VIDEO_REMEDY}."
            )
        self._model, self._vae = leave_out_patches(model), vae
        self._frame_conditioning, self._clip_vision = positive, clip_vision
        self._window: tuple[types.Conditioning, VideoConfig, Variant] | None = None

    @property
    def info(self) -> BackboneInfo:
        """What the model is; the host does not tell a fingerprint."""
        return BackboneInfo(model_name(self._model), "svd", "v_prediction", "")

    @property
    def training_sigmas(self) -> Tensor:
        """Noise levels ``(1000,)`` float64 over the range that SVD is sampled in."""
        return schedule.make_edm_training_sigmas()

    def require_conditioning(self) -> None:
        """Check that windows can be conditioned: by CLIP_VISION, or by SVD's conditioning."""
        if self._clip_vision is None and self._frame_conditioning is None:
            raise InputError(f"`clip_vision` must be connected for Stable Video Diffusion, but is not. {VIDEO_REMEDY}.")

    def condition(self, frame: Tensor, noise: Tensor, config: VideoConfig) -> types.Conditioning:
        """Return the conditioning of a window by its first frame; see `Backbone.condition`."""
        self.require_conditioning()
        sizes = require_shape("frame", frame, "H W 3")
        require_shape("noise", noise, "3 H W", H=sizes["H"], W=sizes["W"])
        numbers = (float(config.fps_id), float(config.motion_bucket), float(config.augmentation))
        embedding, image = torch.empty(0), torch.empty(0)
        if self._frame_conditioning is not None:
            tokens, extras = self._frame_conditioning[0]
            fps, motion = extras.get("fps", FPS), extras.get("motion_bucket_id", MOTION_BUCKET)
            numbers = (float(fps - 1), float(motion), float(extras.get("augmentation_level", AUGMENTATION)))
            embedding = tokens[0].float().cpu()
            latent = extras["concat_latent_image"][:1].float().cpu()
            height, width = sizes["H"] // PIXELS_PER_LATENT, sizes["W"] // PIXELS_PER_LATENT
            image = comfy.utils.common_upscale(latent, width, height, "bilinear", "center")[0]
        if self._clip_vision is not None:
            embedding = self._embedded(frame)
            noisy = frame + numbers[2] / 2 * noise.movedim(0, -1)
            with torch.no_grad():
                image = self._vae.encode(noisy[None]).float().cpu()[0]
        return types.Conditioning(embedding, image, numbers)

    def _embedded(self, frame: Tensor) -> Tensor:
        """Return the embedding ``(1,C)`` of a frame, the whole of it squeezed into the encoder's square."""
        with torch.no_grad():
            embedding: Tensor = self._clip_vision.encode_image(frame[None], crop=False)["image_embeds"].float().cpu()
        if tuple(embedding.shape) != (1, self._width):
            raise InputError(
                f"`clip_vision` must give {self._width} channels as `model` takes, but gives {embedding.shape[-1]}. "
                "Take the CLIP_VISION of the same checkpoint."
            )
        return embedding

    def conditioned(
        self, conditioning: types.Conditioning | None, config: VideoConfig, variant: Variant = "paper"
    ) -> ComfySvdBackbone:
        """Return this backbone with the conditioning of a window; see `Backbone.conditioned`."""
        other = copy.copy(self)
        other._window = None if conditioning is None else (conditioning, config, variant)
        return other

    def decode(self, latents: Tensor) -> Tensor:
        """Return frames ``(T,H,W,3)`` float32, each decoded as a clip of one frame; see `Backbone.decode`."""
        return torch.cat([super(ComfySvdBackbone, self).decode(latent[None]) for latent in latents])

    def run(self, job: Callable[[Denoiser], Result], guidance_scale: float, latent_shape: Sequence[int]) -> Result:
        """Load the model through the host's sampling, call ``job`` and clean up; see `Backbone.run`."""
        if self._window is None:
            raise InputError("`backbone` must be `conditioned` on a window before it runs, but is not.")
        conditioning, config, variant = self._window
        require_shape("conditioning.image", conditioning.image, "4 h w", h=latent_shape[-2], w=latent_shape[-1])

        def make(loaded: Loaded) -> Denoiser:
            device = self._cache_device(latent_shape)
            return VideoHostDenoiser(loaded, guidance_scale, config, variant, device)

        blank, sigmas = torch.zeros(tuple(latent_shape)), schedule.make_edm_sigmas(25)
        return self._sample(Session(job, make), guidance_scale, blank, sigmas, _host_conditioning(conditioning))

    def batch_size(self, latent_shape: Sequence[int]) -> int:
        """Return 1: a UNet call holds one window, whatever its size."""
        require_shape("latent", torch.empty(tuple(latent_shape[-3:]), device="meta"), "4 h w")
        return 1

    def _cache_device(self, latent_shape: Sequence[int]) -> torch.device | None:
        """Return where what is kept of one step lies: None, with the model, where it fits, else the CPU."""
        host, device = comfy.model_management, self._model.load_device
        count, _, height, width = latent_shape
        item = 4 if self._model.model_dtype() == torch.float32 else 2
        channels = self._model.model.diffusion_model.model_channels
        kept = 2 * count * KEPT_TENSORS * QUERY_WIDTHS * channels * height * width * item
        call = MEMORY_FACTOR * self._model.memory_required([2 * count, 4, height, width])
        fits = host.is_device_cpu(device) or kept + call <= host.get_free_memory(device)
        logger.info("VidSeg: a step of this window keeps up to %.2f GB on %s", kept / 1e9, device if fits else "cpu")
        return None if fits else torch.device("cpu")

    def _posterior_layer(self) -> Any:
        """Return the layer whose output are mean and log variance of the posterior, or None."""
        return self._vae.first_stage_model.encoder if is_video_vae(self._vae) else super()._posterior_layer()


def _host_conditioning(conditioning: types.Conditioning) -> tuple[Conditioning, Conditioning]:
    """Return what the host's SVD_img2vid_Conditioning would give for a window: the second of zeros."""
    fps_id, motion_bucket, augmentation = conditioning.numbers
    numbers = {"motion_bucket_id": motion_bucket, "fps": fps_id + 1, "augmentation_level": augmentation}
    tokens, image = conditioning.embedding[None], conditioning.image[None]
    positive = [[tokens, {**numbers, "concat_latent_image": image}]]
    return positive, [[torch.zeros_like(tokens), {**numbers, "concat_latent_image": torch.zeros_like(image)}]]


WHOLE = slice(None)
"""The frames of a window, which is one sample."""


class VideoHostDenoiser(HostDenoiser):
    """`Denoiser` over a loaded SVD model, conditioned on one window; what is kept lies on ``cache_device``, if any."""

    def __init__(
        self,
        loaded: Loaded,
        guidance_scale: float,
        config: VideoConfig,
        variant: Variant,
        cache_device: torch.device | None,
    ) -> None:
        super().__init__(loaded, guidance_scale)
        self._config = config
        self._injected = TEMPORAL if variant == "published" else (*SPATIAL, *TEMPORAL)
        self._cache_device = cache_device

    def predict(self, latents: Tensor, sigma: float, *, keep: ModulationConfig | None = None) -> Prediction:
        """Call the UNet on the window ``latents`` ``(T,4,H/8,W/8)``; see `Denoiser.predict`."""
        if keep is not None:
            require_attention("keep.block", (keep.block,))
        captured: dict[Slot, Tensor] = {}
        call = Call({}, {})
        for block in ATTENTION_BLOCKS if keep and keep.inject else ():
            attention = self._attention("attn1", block)
            call.replace["attn1", block] = capture_both(attention, block, captured, self._injected, self._cache_device)
        return self._kept_call(latents, sigma, keep, call, captured)

    def queries(self, latents: Tensor, sigma: float, blocks: Sequence[Layer]) -> tuple[Tensor, ...]:
        """Return self-attention queries ``(T,N,C)`` of the conditional half; see `FeatureDenoiser.queries`."""
        numbers = require_attention("blocks", blocks or (None,))
        is_temporal = self._config.query_layer == "temporal"
        kind = TEMPORAL[0] if is_temporal else SPATIAL[0]
        captured: dict[Slot, Tensor] = {}
        call, last = self._reading(numbers)
        for block in set(numbers):
            call.replace["attn1", block] = capture_both(
                self._attention("attn1", block), block, captured, (kind,), None, last=block == last
            )
        self._denoised(latents, sigma, call, guided=False)
        conditional = self._loaded.conds["positive"][0]["uuid"]
        found = (captured[Slot(kind, block, conditional)].float() for block in numbers)
        return tuple(query.transpose(0, 1) if is_temporal else query for query in found)

    def replay(self, latents: Tensor, sigma: float, cache: StepCache, frames: Tensor, offset: Tensor | None) -> Tensor:
        """Call the UNet again with injected queries and keys, window by window; see `Denoiser.replay`."""
        stored, count = as_cache(cache), self._num_frames
        require_whole_windows(frames, count, len(latents))
        offsets = [None] * (len(latents) // count) if offset is None else torch.split(offset, count)
        windows = zip(torch.split(latents, count), offsets, strict=True)
        return torch.cat([self._replay(window, sigma, stored, WHOLE, shift) for window, shift in windows])

    @property
    def _num_frames(self) -> int:
        """Frames of the window, as the host was told them."""
        return int(self._loaded.conds["positive"][0]["model_conds"]["num_video_frames"].cond)

    def _stored(self, state: TailState) -> TailState:
        """Return ``state`` where it is kept."""
        if self._cache_device is None:
            return state
        skips = tuple(skip.to(self._cache_device) for skip in state.skips)
        return TailState(state.hidden.to(self._cache_device), skips, state.transformer_index)

    def _injection(self, cache: HostCache, _frames: Any) -> Call:
        call = Call({}, {})
        for block in ATTENTION_BLOCKS if cache.keep.inject else ():
            call.replace["attn1", block] = inject_both(self._attention("attn1", block), block, cache.tensors)
        return call

    def _explicit_call(self, cache: HostCache, frames: Any, offset: Tensor) -> Call:
        """Return the patches of a whole call that adds ``offset`` in both layers of the modulated block (Eq. 2)."""
        call = self._injection(cache, frames)
        call.patches["attn1_output_patch"] = add_to_both(cache.keep.block, offset)
        return call

    def _guidance(self, like: Tensor) -> Tensor:
        """Return the scale of guidance, which rises from 1 in the first frame to that of the last."""
        return torch.linspace(1, self._guidance_scale, len(like), device=like.device)[:, None, None, None]
