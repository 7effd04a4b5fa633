"""UNet calls on the host's Stable Video Diffusion, one window at a time, within one loading of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...config.parts import ATTENTION_BLOCKS, ModulationConfig, Variant, VideoConfig
from ..protocol import Prediction, StepCache, require_attention, require_whole_windows
from .attention import SPATIAL, TEMPORAL, HostCache, Slot, add_to_both, capture_both, inject_both
from .denoiser import Call, HostDenoiser, Loaded, as_cache
from .tail import TailState

WHOLE = slice(None)
"""The frames of a window, which is one sample."""


class VideoHostDenoiser(HostDenoiser):
    """`Denoiser` over an SVD model that the host has loaded, conditioned on one window.

    What is kept of a step lies on ``cache_device``, or with the model where that is None. The scale of guidance is that
    of the last frame; the first one's is 1.
    """

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

    def queries(self, latents: Tensor, sigma: float, blocks: Sequence[int]) -> tuple[Tensor, ...]:
        """Return self-attention queries ``(T,N,C)`` of the conditional half; see `FeatureDenoiser.queries`."""
        require_attention("blocks", blocks or (None,))
        is_temporal = self._config.query_layer == "temporal"
        kind = TEMPORAL[0] if is_temporal else SPATIAL[0]
        captured: dict[Slot, Tensor] = {}
        call = Call({}, {})
        for block in set(blocks):
            call.replace["attn1", block] = capture_both(self._attention("attn1", block), block, captured, (kind,), None)
        self._denoised(latents, sigma, call, guided=False)
        conditional = self._loaded.conds["positive"][0]["uuid"]
        found = (captured[Slot(kind, block, conditional)].float() for block in blocks)
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
        return torch.linspace(1, self._guidance_scale, len(like), device=like.device)[:, None, None, None]
