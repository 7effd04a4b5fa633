"""Adapter over diffusers: Stable Video Diffusion from a file or a folder, and narrow models of its shape."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...checkpoints.describe import CONDITIONING_KEY, ModelDescription
from ...config.parts import Variant, VideoConfig
from ...types import Conditioning, InputError, require_shape
from ..memory import find_budget
from ..protocol import Denoiser, Result
from ..schedule import make_edm_training_sigmas
from .backbone import DiffusersBackbone
from .encoders import build_image_encoder, embed_frame
from .svd_denoiser import Half, SvdDenoiser, Told
from .svd_weights import build_frame_encoder, build_video_unet, build_video_vae, take_mode
from .weights import read_tensors

_Self = TypeVar("_Self", bound="DiffusersSvdBackbone")
logger = logging.getLogger(__name__)
KEPT_TENSORS = 5
"""Kept of each block with attention: queries and keys of both self-attentions, and skips of about another tensor."""


class DiffusersSvdBackbone(DiffusersBackbone):
    """Stable Video Diffusion as a `Backbone`. Use `load_diffusers` to make one.

    Frames are decoded one at a time, as clips of one frame, so that no frame answers to the modulation of another.
    """

    def __init__(
        self, description: ModelDescription, embeddings: Tensor | None, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Load the parts; without ``embeddings`` ``(2,1,C)``, negative first, each window's first frame is embedded."""
        context = description.sizes.unet.context_dim
        super().__init__(description, torch.zeros(2, 1, context) if embeddings is None else embeddings, dtype, device)
        self._encoder = None if embeddings is not None else build_image_encoder(description, device, dtype)
        self._frame_encoder: Any = build_frame_encoder(description, device, self._vae.dtype)
        self._window: tuple[Conditioning, VideoConfig, Variant] | None = None
        self._training_sigmas = make_edm_training_sigmas()

    def condition(self, frame: Tensor, noise: Tensor, config: VideoConfig) -> Conditioning:
        """Return the conditioning of a window by its first frame; see `Backbone.condition`."""
        sizes = require_shape("frame", frame, "H W 3")
        require_shape("noise", noise, "3 H W", H=sizes["H"], W=sizes["W"])
        noisy = frame + config.augmentation / 2 * noise.movedim(0, -1)
        embedding = self._conditioning[1].float().cpu() if self._encoder is None else embed_frame(self._encoder, frame)
        numbers = (float(config.fps_id), float(config.motion_bucket), float(config.augmentation))
        return Conditioning(embedding, self._conditioning_latent(noisy), numbers)

    @torch.no_grad()
    def _conditioning_latent(self, frame: Tensor) -> Tensor:
        """Return the unscaled latent ``(4,H/8,W/8)`` float32, on the CPU, of a frame ``(H,W,3)``."""
        if self._frame_encoder is None:
            return self.encode(frame[None])[0] / self.description.sizes.scale_factor
        pixels = (2 * frame.to(self.device, torch.float32) - 1).movedim(-1, 0)[None]
        return take_mode(self._frame_encoder(pixels.to(self._vae.dtype)))[0].float().cpu()

    def conditioned(
        self: _Self, conditioning: Conditioning | None, config: VideoConfig, variant: Variant = "paper"
    ) -> _Self:
        """Return this backbone with the conditioning of a window; see `Backbone.conditioned`."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._window = None if conditioning is None else (conditioning, config, variant)
        return other

    def run(self, job: Callable[[Denoiser], Result], guidance_scale: float, latent_shape: Sequence[int]) -> Result:
        """Call ``job`` with a denoiser of the window, whose shape is ``latent_shape``; see `Backbone.run`."""
        if self._window is None:
            raise InputError("`backbone` must be `conditioned` on a window before it runs, but is not.")
        conditioning, config, variant = self._window
        require_shape("conditioning.image", conditioning.image, "4 h w", h=latent_shape[-2], w=latent_shape[-1])
        dtype = self._conditioning.dtype
        image = conditioning.image.to(self.device, dtype)
        halves = [Half(conditioning.embedding.to(self.device, dtype)[None], image)]
        if guidance_scale != 1:
            halves.insert(0, Half(self._conditioning[:1], torch.zeros_like(image)))
        told = Told(torch.tensor(conditioning.numbers), config, variant)
        return job(SvdDenoiser(self._unet, halves, told, guidance_scale, self._cache_device(latent_shape)))

    def batch_size(self, latent_shape: Sequence[int]) -> int:
        """Return 1: a UNet call holds one window, whatever its size."""
        require_shape("latent", torch.empty(tuple(latent_shape[-3:]), device="meta"), "4 h w")
        return 1

    def _cache_device(self, latent_shape: Sequence[int]) -> torch.device:
        """Return where what is kept of one step lies: with the model where it fits, else on the CPU."""
        kept = count_kept_bytes(self.description, latent_shape, self._conditioning.element_size())
        device = self.device if kept <= find_budget(self.device) else torch.device("cpu")
        logger.info("queries and keys of a step of a window take up to %.2f GB on %s", kept / 1e9, device)
        return device

    def _decoded(self, latents: Tensor) -> Tensor:
        scaled = latents.to(self.device, torch.float32) / self.description.sizes.scale_factor
        pixels: Tensor = self._vae.decode(scaled.to(self._vae.dtype), num_frames=1).sample
        return (pixels.float().movedim(1, -1) + 1) / 2

    def _make_unet(self, dtype: torch.dtype) -> Any:  # noqa: ANN401
        return build_video_unet(self.description, self.device, dtype)

    def _make_vae(self, dtype: torch.dtype) -> Any:  # noqa: ANN401
        return build_video_vae(self.description, self.device, dtype)


def make_video_embeddings(model: ModelDescription, given: tuple[Tensor, Tensor] | None) -> Tensor | None:
    """Return ``(2,1,C)`` float32 embeddings for all windows, negative first; None where the encoder makes them."""
    if given is not None:
        positive, negative = (embedding.detach().float().cpu().reshape(-1, embedding.shape[-1]) for embedding in given)
    elif model.conditioning == "tensor":
        positive = read_tensors([model.path], CONDITIONING_KEY)[CONDITIONING_KEY].float()
        negative = torch.zeros_like(positive)
    elif model.conditioning == "image encoder":
        return None
    else:
        raise InputError(
            f"`model` must hold SVD's image encoder, but {model.path.name} has none. Use a full checkpoint such as "
            "svd.safetensors, or pass `conditioning`."
        )
    for name, embedding in (("negative", negative), ("positive", positive)):
        require_shape(f"conditioning ({name})", embedding, "1 C", C=model.sizes.unet.context_dim)
    return torch.stack([negative, positive])


def count_kept_bytes(model: ModelDescription, latent_shape: Sequence[int], element_size: int) -> int:
    """Return what one step of a window of ``latent_shape`` ``(T,4,H/8,W/8)`` keeps for its repetitions."""
    pixels = int(latent_shape[-1]) * int(latent_shape[-2]) * 64
    values = sum(pixels // block.grid_divisor**2 * block.channels * KEPT_TENSORS for block in model.blocks)
    return 2 * int(latent_shape[0]) * values * element_size
