"""What an unmodulated step leaves for its repetition with a diffusers model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...config.parts import ModulationConfig
from ..attention_weights import AttentionWeights
from ..protocol import StepCache
from .unet import AttentionRecord, Injection, mix_values


@dataclass(frozen=True)
class DiffusersStepCache(StepCache):
    """What an unmodulated step leaves, on the model's device and in its type.

    Tensors start with the axes (guidance halves, frames), so that frames can be picked.

    Attributes:
        keep: what the step was asked to keep.
        sigma: noise level of the step.
        attention: per decoder block what its attention used; empty without injection.
        hidden: ``(halves,T,C,h,w)`` output of the modulated block before its upsampler.
        skips: of the blocks after the modulated one.
        weights: of self-attention, of the frame that was repeated last.
    """

    keep: ModulationConfig
    sigma: float
    attention: dict[int, AttentionRecord]
    hidden: Tensor
    skips: tuple[Tensor, ...]
    weights: AttentionWeights = field(default_factory=AttentionWeights)

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
