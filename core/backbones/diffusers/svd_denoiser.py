"""UNet calls on diffusers' Stable Video Diffusion: plain ones that capture and keep, and repetitions with these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ...config.parts import ModulationConfig, Variant, VideoConfig
from ...types import InputError, require_shape
from ..protocol import Layer, Prediction, StepCache, require_attention, require_latents, require_whole_windows
from .svd_unet import Injected, VideoRecord, embed_window, respond_to_video_offset, run_video_block, run_video_encoder
from .unet import list_decoder_blocks, run_head, upsample_latents


class Half(NamedTuple):
    """One half of guidance: ``(1,1,C)`` context and ``(4,H/8,W/8)`` latent of the conditioning frame."""

    context: Tensor
    image: Tensor


class HalfState(NamedTuple):
    """What one half of guidance of an unmodulated step leaves."""

    attention: dict[int, VideoRecord]  # of each decoder block; empty without injection
    hidden: Tensor  # (T,C,h,w), output of the modulated block before its upsampler
    skips: tuple[Tensor, ...]  # of the blocks after it


@dataclass(frozen=True)
class VideoStepCache(StepCache):
    """What an unmodulated step on a window leaves: its settings, noise level and a state per half of guidance."""

    keep: ModulationConfig
    sigma: float
    halves: tuple[HalfState, ...]


class Told(NamedTuple):
    """The three numbers ``(3,)`` that the model is told about a window, which queries to read, and what to inject."""

    numbers: Tensor
    config: VideoConfig
    variant: Variant


class SvdDenoiser:
    """`Denoiser` of SVD's UNet, told ``numbers`` ``(3,)`` about one window; what is kept lies on ``cache_device``.

    The conditional one of ``halves`` is the last, and alone where there is no guidance, whose scale is that of the last
    frame (the first one's is 1).
    """

    def __init__(
        self,
        unet: Any,  # noqa: ANN401
        halves: Sequence[Half],
        told: Told,
        guidance_scale: float,
        cache_device: torch.device,
    ) -> None:
        self._unet = unet
        self._blocks = list_decoder_blocks(unet)
        self._halves = tuple(halves)
        self._guidance_scale = guidance_scale
        self._numbers, self._config, self._variant = told
        self._cache_device = cache_device

    @torch.no_grad()
    def predict(self, latents: Tensor, sigma: float, *, keep: ModulationConfig | None = None) -> Prediction:
        """Call the UNet on the window ``latents`` ``(T,4,H/8,W/8)``; see `Denoiser.predict`."""
        require_latents(latents)
        if keep is not None:
            require_attention("keep.block", (keep.block,))
        latents = self._on_device(latents)
        outputs, states = zip(*(self._predict(half, latents, sigma, keep) for half in self._halves), strict=True)
        cache = None if keep is None else VideoStepCache(keep, sigma, tuple(state for state in states if state))
        return Prediction(self._denoised(outputs, latents, sigma), cache)

    @torch.no_grad()
    def queries(self, latents: Tensor, sigma: float, blocks: Sequence[Layer]) -> tuple[Tensor, ...]:
        """Return self-attention queries of the conditional half; see `FeatureDenoiser.queries`."""
        require_latents(latents)
        numbers = require_attention("blocks", blocks or (None,))
        half = self._halves[-1]
        model_input, time = self._inputs(half, self._on_device(latents), sigma)
        hidden, skips = run_video_encoder(self._unet, model_input, time, half.context)
        found: dict[int, Tensor] = {}
        for number in range(max(numbers) + 1):
            hidden, record = run_video_block(self._blocks[number], hidden, skips[number], time, half.context)
            if record is not None and number in numbers:
                is_temporal = self._config.query_layer == "temporal"
                found[number] = (record.temporal_query.transpose(0, 1) if is_temporal else record.query).float()
            hidden = upsample_latents(self._blocks[number], hidden)
        return tuple(found[number] for number in numbers)

    @torch.no_grad()
    def replay(self, latents: Tensor, sigma: float, cache: StepCache, frames: Tensor, offset: Tensor | None) -> Tensor:
        """Call the UNet again, or with ``offset`` its end, with kept queries and keys; see `Denoiser.replay`."""
        if not isinstance(cache, VideoStepCache):
            raise TypeError("`cache` must come from `predict` of the same backbone")
        if cache.sigma != sigma or len(cache.halves) != len(self._halves):
            raise InputError(f"`cache` must be of the same step and guidance, but is of sigma {cache.sigma}.")
        require_latents(latents)
        if offset is not None:
            require_shape("offset", offset, "B h w", B=len(latents))
        count = len(cache.halves[0].hidden)
        require_whole_windows(frames, count, len(latents))
        parts = []
        for start in range(0, len(latents), count):
            part = slice(start, start + count)
            x, shift = self._on_device(latents[part]), None if offset is None else offset[part]
            outputs = [
                self._replay(half, x, sigma, state, cache.keep, shift)
                for half, state in zip(self._halves, cache.halves, strict=True)
            ]
            parts.append(self._denoised(outputs, x, sigma))
        return torch.cat(parts)

    def _predict(
        self, half: Half, latents: Tensor, sigma: float, keep: ModulationConfig | None
    ) -> tuple[Tensor, HalfState | None]:
        """Call the UNet once; return its output and what is to be kept."""
        model_input, time = self._inputs(half, latents, sigma)
        hidden, skips = run_video_encoder(self._unet, model_input, time, half.context)
        records: dict[int, VideoRecord] = {}
        kept_hidden = hidden
        for number, (block, skip) in enumerate(zip(self._blocks, skips, strict=True)):
            hidden, record = run_video_block(block, hidden, skip, time, half.context)
            if record is not None and keep is not None and keep.inject:
                records[number] = self._kept(record)
            if keep is not None and number == keep.block:
                kept_hidden = hidden
            hidden = upsample_latents(block, hidden)
        output = run_head(self._unet, hidden)
        if keep is None:
            return output, None
        later = tuple(skip.to(self._cache_device) for skip in skips[keep.block + 1 :])
        return output, HalfState(records, kept_hidden.to(self._cache_device), later)

    def _kept(self, record: VideoRecord) -> VideoRecord:
        """Return what is injected of ``record``, where it is kept; spatial ones are emptied where they are not."""
        if self._variant == "published":
            nothing = record.query[:0]
            record = record._replace(query=nothing, key=nothing)
        return VideoRecord(*(tensor.to(self._cache_device) for tensor in record))

    def _replay(
        self, half: Half, latents: Tensor, sigma: float, state: HalfState, keep: ModulationConfig, offset: Tensor | None
    ) -> Tensor:
        """Repeat the UNet call of one half."""
        model_input, time = self._inputs(half, latents, sigma)
        if offset is None:
            start = 0
            hidden, skips = run_video_encoder(self._unet, model_input, time, half.context)
        else:
            start = keep.block + 1
            hidden = self._modulated(keep.block, state.hidden.to(latents.device), offset)
            skips = state.skips
        for number, skip in zip(range(start, len(self._blocks)), skips, strict=True):
            block = self._blocks[number]
            injected = self._injected(state.attention.get(number), latents.device)
            hidden, _ = run_video_block(block, hidden, skip.to(latents.device), time, half.context, injected)
            hidden = upsample_latents(block, hidden)
        return run_head(self._unet, hidden)

    def _injected(self, record: VideoRecord | None, device: torch.device) -> Injected:
        if record is None:
            return Injected(None, None)
        query, key, temporal_query, temporal_key = (tensor.to(device) for tensor in record)
        return Injected((query, key) if len(query) else None, (temporal_query, temporal_key))

    def _modulated(self, number: int, hidden: Tensor, offset: Tensor) -> Tensor:
        """Return the output ``(T,C,h,w)`` of the modulated block from its unmodulated one (paper Eq. 2)."""
        grid = tuple(hidden.shape[2:])
        offset = F.interpolate(offset[:, None].to(hidden.device, torch.float32), grid, mode="nearest")
        change = offset * respond_to_video_offset(self._blocks[number])[None, :, None, None]
        return upsample_latents(self._blocks[number], (hidden.float() + change).to(hidden.dtype))

    def _on_device(self, latents: Tensor) -> Tensor:
        return latents.to(self._halves[-1].context.device, torch.float32)

    def _inputs(self, half: Half, latents: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Return the UNet's input and embedding."""
        scaled = (latents / math.hypot(1, sigma)).to(half.image.dtype)
        model_input = torch.cat([scaled, half.image.expand(len(latents), -1, -1, -1)], dim=1)
        return model_input, embed_window(self._unet, math.log(sigma) / 4, self._numbers, len(latents), model_input)

    def _denoised(self, outputs: Sequence[Tensor], latents: Tensor, sigma: float) -> Tensor:
        """Apply guidance, which rises over the frames, and turn velocity into the prediction of the clean latents."""
        output = outputs[-1].float()
        if len(outputs) == 2:
            negative = outputs[0].float()
            scales = torch.linspace(1, self._guidance_scale, len(latents), device=output.device)[:, None, None, None]
            output = negative + scales * (output - negative)
        return latents / (1 + sigma**2) - output * (sigma / math.hypot(1, sigma))
