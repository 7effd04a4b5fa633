"""UNet calls on the host's Stable Video Diffusion, one window at a time, within one loading of the model."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.model_management
import comfy.samplers
import torch
from torch import Tensor

from ...config.parts import ATTENTION_BLOCKS, ModulationConfig, VideoConfig
from ..memory import require_whole_windows
from ..protocol import Prediction, StepCache
from .attention import HostCache, Slot
from .denoiser import UPSAMPLING_BLOCKS, Call, HostDenoiser, Loaded, agree, as_cache, check_blocks
from .svd_attention import SPATIAL, TEMPORAL, add_to_both, capture_both, inject_both
from .tail import TailRecorder, TailState, VideoTailCall, fit_offset


class VideoHostDenoiser(HostDenoiser):
    """`Denoiser` over an SVD model that the host has loaded, conditioned on one window.

    Args:
        loaded: what the host's sampler hands over.
        guidance_scale: of the last frame; the first one's is 1.
        config: which queries to read, which to inject.
        cache_device: where what is kept of a step lies; None: with the model.
    """

    def __init__(
        self, loaded: Loaded, guidance_scale: float, config: VideoConfig, cache_device: torch.device | None
    ) -> None:
        super().__init__(loaded, guidance_scale)
        self._config = config
        self._cache_device = cache_device

    def predict(self, latents: Tensor, sigma: float, *, keep: ModulationConfig | None = None) -> Prediction:
        """Call the UNet on the window ``latents`` ``(T,4,H/8,W/8)``; see `Denoiser.predict`."""
        if keep is not None:
            check_blocks("keep.block", (keep.block,))
        captured: dict[Slot, Tensor] = {}
        call = Call({}, {})
        kinds = TEMPORAL if self._config.injected == "temporal" else (*SPATIAL, *TEMPORAL)
        for block in ATTENTION_BLOCKS if keep and keep.inject else ():
            attention = self._attention("attn1", block)
            call.replace["attn1", block] = capture_both(attention, block, captured, kinds, self._cache_device)
        recorder = None
        if keep and keep.block + 1 in ATTENTION_BLOCKS and sigma >= self._highest_kept_sigma:
            self._highest_kept_sigma = sigma  # the modulated step comes first: later steps need no tail
            recorder = call.patches["output_block_patch"] = TailRecorder(keep.block)
        denoised = self._denoised(latents, sigma, call)
        tail = {half: self._kept(state) for half, state in recorder.states().items()} if recorder else {}
        return Prediction(denoised, HostCache(keep, captured, tail) if keep else None)

    def queries(self, latents: Tensor, sigma: float, blocks: Sequence[int]) -> tuple[Tensor, ...]:
        """Return self-attention queries ``(T,N,C)`` of the conditional half; see `Denoiser.queries`."""
        check_blocks("blocks", blocks or (None,))
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
        stored = as_cache(cache)
        count = self._num_frames
        require_whole_windows(frames, count, len(latents))
        parts = []
        for start in range(0, len(latents), count):
            part = slice(start, start + count)
            parts.append(self._replay_window(latents[part], sigma, stored, None if offset is None else offset[part]))
        return torch.cat(parts)

    @property
    def _num_frames(self) -> int:
        """Frames of the window, as the host was told them."""
        return int(self._loaded.conds["positive"][0]["model_conds"]["num_video_frames"].cond)

    def _kept(self, state: TailState) -> TailState:
        """Return ``state`` where it is kept."""
        if self._cache_device is None:
            return state
        skips = tuple(skip.to(self._cache_device) for skip in state.skips)
        return TailState(state.hidden.to(self._cache_device), skips, state.transformer_index)

    def _replay_window(self, latents: Tensor, sigma: float, cache: HostCache, offset: Tensor | None) -> Tensor:
        if offset is None:
            return self._denoised(latents, sigma, self._injected(cache))
        if self._short_calls is None and cache.tail:
            calls = (self._injected(cache), self._whole_call(cache, offset), self._tail_call(cache, offset))
            self._short_calls = agree(*(self._denoised(latents, sigma, call) for call in calls))
        make = self._tail_call if self._short_calls and cache.tail else self._whole_call
        return self._denoised(latents, sigma, make(cache, offset))

    def _injected(self, cache: HostCache) -> Call:
        call = Call({}, {})
        for block in ATTENTION_BLOCKS if cache.keep.inject else ():
            call.replace["attn1", block] = inject_both(self._attention("attn1", block), block, cache.tensors)
        return call

    def _whole_call(self, cache: HostCache, offset: Tensor) -> Call:
        """Return the patches of a whole call that adds ``offset`` in both layers of the modulated block (Eq. 2)."""
        call = self._injected(cache)
        call.patches["attn2_output_patch"] = add_to_both(cache.keep.block, offset)
        return call

    def _tail_call(self, cache: HostCache, offset: Tensor) -> Call:
        """Return the patches of a call of the blocks after the modulated one only."""
        hidden = next(iter(cache.tail.values())).hidden
        ratio = 2 if cache.keep.block in UPSAMPLING_BLOCKS else 1
        grid = fit_offset(offset, (hidden.shape[2] // ratio, hidden.shape[3] // ratio))
        return self._injected(cache)._replace(wrapper=VideoTailCall(cache.tail, cache.keep.block, grid))

    def _denoised(self, latents: Tensor, sigma: float, call: Call, *, guided: bool = True) -> Tensor:
        """Return the prediction of the clean latents, float32 on the device of ``latents``."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        loaded = self._loaded
        x = latents.to(loaded.device, torch.float32)
        negative = loaded.conds["negative"] if guided and self._guidance_scale != 1 else None
        conditional, unconditional = comfy.samplers.calc_cond_batch(
            loaded.base, [loaded.conds["positive"], negative], x, x.new_full((len(x),), sigma), self._options(call)
        )
        if negative is not None:
            scales = torch.linspace(1, self._guidance_scale, len(x), device=x.device)[:, None, None, None]
            conditional = unconditional + scales * (conditional - unconditional)
        result: Tensor = conditional.float().to(latents.device)
        return result
