"""UNet calls on a diffusers model: plain ones that capture and keep, and repetitions that reuse what was kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ...config.parts import ModulationConfig
from ...types import InputError, require_shape
from ..attention_weights import AttentionWeights
from ..protocol import Layer, Prediction, StepCache, require_attention, require_latents, split_replay
from .guided import GuidedUNet
from .unet import (
    AttentionRecord,
    Injection,
    list_decoder_blocks,
    mix_values,
    read_query,
    respond_to_offset,
    run_block,
    run_encoder,
    run_head,
    upsample_latents,
)


@dataclass(frozen=True)
class DiffusersStepCache(StepCache):
    """What an unmodulated step leaves, on the model's device; tensors start with the axes (guidance halves, frames)."""

    keep: ModulationConfig
    sigma: float
    attention: dict[int, AttentionRecord]  # of each decoder block; empty without injection
    hidden: Tensor  # (halves,T,C,h,w), output of the modulated block before its upsampler
    skips: tuple[Tensor, ...]  # of the blocks after it
    weights: AttentionWeights = field(default_factory=AttentionWeights)  # of the frame that was repeated last

    def attention_of(self, number: int, frames: Tensor) -> Injection | None:
        """Return what to inject into a block for the elements of ``frames`` ``(B,)``, or None."""
        record = self.attention.get(number)
        if record is None:
            return None

        def mixed(attention: Any, value: Tensor) -> Tensor:  # noqa: ANN401, diffusers' module
            def of_frame(frame: int) -> tuple[Tensor, Tensor]:
                return record.query[:, frame], record.key[:, frame]

            quick = self.weights.mixed(number, frames, value, attention.heads, of_frame)
            if quick is not None:
                return quick
            return mix_values(pick(record.query, frames), pick(record.key, frames), value, attention.heads)

        return Injection(mixed, pick(record.cross, frames))


def pick(kept: Tensor, frames: Tensor) -> Tensor:
    """Return the elements of ``frames`` ``(B,)`` of a kept tensor, halves merged with them: ``(E, ...)``."""
    return kept.index_select(1, frames).flatten(0, 1)


def join_caches(caches: Sequence[DiffusersStepCache]) -> DiffusersStepCache:
    """Join the caches of chunks of one step along the frames."""
    first = caches[0]
    attention = {
        number: AttentionRecord(
            *(torch.cat(kept, dim=1) for kept in zip(*(cache.attention[number] for cache in caches), strict=True))
        )
        for number in first.attention
    }
    hidden = torch.cat([cache.hidden for cache in caches], dim=1)
    skips = tuple(torch.cat(kept, dim=1) for kept in zip(*(cache.skips for cache in caches), strict=True))
    return DiffusersStepCache(first.keep, first.sigma, attention, hidden, skips)


class DiffusersDenoiser(GuidedUNet):
    """`Denoiser` of diffusers' UNet of SD 1.x and 2.x."""

    def __init__(self, unet: Any, *rest: Any) -> None:  # noqa: ANN401
        super().__init__(unet, *rest)
        self._blocks = list_decoder_blocks(unet)

    def predict(self, latents: Tensor, sigma: float, *, keep: ModulationConfig | None = None) -> Prediction:
        """Call the UNet on ``latents`` ``(T,4,H/8,W/8)``; see `Denoiser.predict`. Results lie on the model's device."""
        require_latents(latents)
        if keep is not None:
            require_attention("keep.block", (keep.block,))

        def run(size: int) -> list[Prediction]:
            return [self._predict(part, sigma, keep) for part in torch.split(latents, size)]

        return _joined(self._in_chunks(run, len(latents)))

    def queries(self, latents: Tensor, sigma: float, blocks: Sequence[Layer]) -> tuple[Tensor, ...]:
        """Return self-attention queries of the conditional half; see `FeatureDenoiser.queries`."""
        require_latents(latents)
        numbers = require_attention("blocks", blocks or (None,))

        def run(size: int) -> list[tuple[Tensor, ...]]:
            return [self._queries(part, sigma, numbers) for part in torch.split(latents, size)]

        return tuple(torch.cat(parts) for parts in zip(*self._in_chunks(run, len(latents)), strict=True))

    def replay(self, latents: Tensor, sigma: float, cache: StepCache, frames: Tensor, offset: Tensor | None) -> Tensor:
        """Call the UNet again with kept queries and keys; see `Denoiser.replay`.

        With ``offset`` only the decoder after the modulated block runs, on its kept output plus offset times
        `respond_to_offset`; whether self- or cross-attention is modulated makes no difference.
        """
        if not isinstance(cache, DiffusersStepCache):
            raise TypeError("`cache` must come from `predict` of the same backbone")
        if cache.sigma != sigma or cache.hidden.shape[0] != self._halves:
            raise InputError(f"`cache` must be of the same step and guidance, but is of sigma {cache.sigma}.")
        require_latents(latents)
        require_shape("frames", frames, "B", B=len(latents))
        if offset is not None:
            require_shape("offset", offset, "B h w", B=len(latents))
        frames = frames.to(cache.hidden.device)

        def run(parts: Iterable[slice]) -> Tensor:
            return torch.cat([self._replay(latents, sigma, cache, frames, offset, part) for part in parts])

        if frames.device.type == "cpu":
            return run(split_replay(frames.tolist()))
        count = len(latents)
        return self._in_chunks(lambda size: run(slice(i, i + size) for i in range(0, count, size)), count)

    @torch.no_grad()
    def _predict(self, latents: Tensor, sigma: float, keep: ModulationConfig | None) -> Prediction:
        """Call the UNet once on all of ``latents``."""
        latents, model_input, time, context = self._inputs(latents, sigma, self._context)
        hidden, skips = run_encoder(self._unet, model_input, time, context)
        records: dict[int, AttentionRecord] = {}
        kept_hidden = hidden
        for number, (block, skip) in enumerate(zip(self._blocks, skips, strict=True)):
            hidden, record = run_block(block, hidden, skip, time, context)
            if record is not None and keep is not None and keep.inject:
                records[number] = record
            if keep is not None and number == keep.block:
                kept_hidden = hidden
            hidden = upsample_latents(block, hidden)
        denoised = self._denoised(run_head(self._unet, hidden), latents, sigma)
        cache = self._cache(keep, sigma, records, kept_hidden, skips) if keep is not None else None
        return Prediction(denoised, cache)

    @torch.no_grad()
    def _queries(self, latents: Tensor, sigma: float, blocks: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Run the conditional half as far as the last of ``blocks``."""
        _, model_input, time, context = self._inputs(latents, sigma, self._context[-1:])
        hidden, skips = run_encoder(self._unet, model_input, time, context)
        found: dict[int, Tensor] = {}
        last = max(blocks)
        for number, (block, skip) in enumerate(zip(self._blocks[:last], skips, strict=False)):
            hidden, record = run_block(block, hidden, skip, time, context)
            if record is not None and number in blocks:
                found[number] = record.query.float()
            hidden = upsample_latents(block, hidden)
        found[last] = read_query(self._blocks[last], hidden, skips[last], time).float()
        return tuple(found[number] for number in blocks)

    def _cache(
        self,
        keep: ModulationConfig,
        sigma: float,
        records: dict[int, AttentionRecord],
        hidden: Tensor,
        skips: tuple[Tensor, ...],
    ) -> DiffusersStepCache:
        """Split the guidance halves off the first axis of everything that is kept."""

        def split(tensor: Tensor) -> Tensor:
            return torch.unflatten(tensor, 0, (self._halves, -1))

        attention = {number: AttentionRecord(*map(split, record)) for number, record in records.items()}
        later = tuple(split(skip) for skip in skips[keep.block + 1 :])
        return DiffusersStepCache(keep, sigma, attention, split(hidden), later)

    @torch.no_grad()
    def _replay(
        self,
        latents: Tensor,
        sigma: float,
        cache: DiffusersStepCache,
        frames: Tensor,
        offset: Tensor | None,
        part: slice,
    ) -> Tensor:
        """Repeat the UNet call for a chunk of elements."""
        chosen = frames[part]
        latents, model_input, time, context = self._inputs(latents[part], sigma, self._context)
        if offset is None:
            start = 0
            hidden, skips = run_encoder(self._unet, model_input, time, context)
        else:
            start = cache.keep.block + 1
            hidden = self._modulated(cache.keep.block, pick(cache.hidden, chosen), offset[part])
            skips = tuple(pick(skip, chosen) for skip in cache.skips)
        for number, skip in zip(range(start, len(self._blocks)), skips, strict=True):
            block = self._blocks[number]
            hidden, _ = run_block(block, hidden, skip, time, context, cache.attention_of(number, chosen))
            hidden = upsample_latents(block, hidden)
        return self._denoised(run_head(self._unet, hidden), latents, sigma)

    def _modulated(self, number: int, hidden: Tensor, offset: Tensor) -> Tensor:
        """Return the output ``(E,C,h,w)`` of the modulated block from its unmodulated one (paper Eq. 2)."""
        grid = tuple(hidden.shape[2:])
        offset = F.interpolate(offset[:, None].to(hidden.device, torch.float32), grid, mode="nearest")
        change = offset * respond_to_offset(self._blocks[number])[None, :, None, None]
        hidden = (hidden.float() + change.repeat(self._halves, 1, 1, 1)).to(hidden.dtype)
        return upsample_latents(self._blocks[number], hidden)


def _joined(parts: list[Prediction]) -> Prediction:
    """Join the predictions of chunks along the frames."""
    if len(parts) == 1:
        return parts[0]
    denoised = torch.cat([part.denoised for part in parts])
    caches = [part.cache for part in parts if isinstance(part.cache, DiffusersStepCache)]
    return Prediction(denoised, join_caches(caches) if caches else None)
