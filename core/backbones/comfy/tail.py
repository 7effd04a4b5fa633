"""Call only the end of the host's UNet, from the state that an unmodulated call left.

Adding an offset to all channels inside a transformer block is invisible to every LayerNorm after it, so that the
block's output is the unmodulated one plus ``offset (x) r`` where ``r`` are the row sums of its output projection. The
modulated call therefore needs nothing before the end of the modulated block. Verified against explicit calls at run
time by `HostDenoiser`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from comfy.ldm.modules.attention import SpatialTransformer, SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import forward_timestep_embed
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor

VIDEO_OPTIONS = ("time_context", "num_video_frames", "image_only_indicator")
"""What the host tells the layers of a video model beside what it tells those of an image model."""


class TailState(NamedTuple):
    """What enters the block after the modulated one, of one half of guidance."""

    hidden: Tensor  # (T,C,h',w'), output of the modulated block
    skips: tuple[Tensor, ...]  # of the later blocks, the last block's first
    transformer_index: int  # the host's running number of the next transformer


class TailRecorder:
    """Patch on the entry of output blocks that records a `TailState` per half of guidance."""

    def __init__(self, modulated_block: int) -> None:
        self._first = modulated_block + 1
        self._hidden: dict[Any, Tensor] = {}
        self._skips: dict[Any, list[Tensor]] = {}
        self._index = 0

    def __call__(self, hidden: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Record and change nothing."""
        halves, number = options["uuids"], options["block"][1]
        if number == self._first:
            self._hidden.update(zip(halves, hidden.chunk(len(halves)), strict=True))
            self._index = options["transformer_index"]
        if number >= self._first:
            for half, part in zip(halves, skip.chunk(len(halves)), strict=True):
                self._skips.setdefault(half, []).append(part)
        return hidden, skip

    def states(self) -> dict[Any, TailState]:
        """Return the states by half of guidance."""
        return {
            half: TailState(self._hidden[half], tuple(self._skips[half][::-1]), self._index) for half in self._hidden
        }


@dataclass(frozen=True)
class TailCall:
    """Wrapper of the UNet that runs only the blocks after the modulated one, from recorded states."""

    states: dict[Any, TailState]
    block: int
    frames: Tensor | slice  # (B,) of the states, or a whole window
    offset: Tensor  # (B,h,w)

    def __call__(
        self, executor: Any, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor | None, _control: None,
        options: dict[str, Any], **of_video: Any,
    ) -> Tensor:  # fmt: skip
        """Return what the UNet predicts, in the host's convention."""
        unet = executor.class_obj
        states = [self.states[half] for half in options["uuids"]]
        hidden = torch.cat([self._picked(state.hidden, x) for state in states])
        skips = [
            torch.cat([self._picked(skip, x) for skip in group])
            for group in zip(*(state.skips for state in states), strict=True)
        ]
        offset = self.offset.to(hidden).repeat(len(states), 1, 1)
        hidden = hidden + projected_offset(unet.output_blocks[self.block], offset, hidden, skips[-1])
        embedding = _embed(unet, timesteps, x, y, options)
        options["original_shape"] = list(x.shape)
        options["transformer_index"] = states[0].transformer_index
        told = {name: of_video[name] for name in VIDEO_OPTIONS if name in of_video}
        for number in range(self.block + 1, len(unet.output_blocks)):
            options["block"] = ("output", number)
            skip = skips.pop()
            for patch in options.get("patches", {}).get("output_block_patch", ()):
                hidden, skip = patch(hidden, skip, options)
            hidden = torch.cat([hidden, skip], dim=1)
            shape = skips[-1].shape if skips else None
            layers = unet.output_blocks[number]
            hidden = forward_timestep_embed(layers, hidden, embedding, context, options, shape, **told)
        result: Tensor = unet.out(hidden.type(x.dtype))
        return result

    def _picked(self, kept: Tensor, like: Tensor) -> Tensor:
        return kept[self.frames].to(like.device)


def _embed(unet: Any, timesteps: Tensor, x: Tensor, y: Tensor | None, options: dict[str, Any]) -> Tensor:
    """Return the embedding of the timesteps, as other nodes patch it, and of the numbers that a video model is told."""
    embedding: Tensor = unet.time_embed(
        timestep_embedding(timesteps, unet.model_channels, repeat_only=False).to(x.dtype)
    )
    for patch in options.get("patches", {}).get("emb_patch", ()):
        embedding = patch(embedding, unet.model_channels, options)
    return embedding if y is None else embedding + unet.label_emb(y)


def projected_offset(layers: Any, offset: Tensor, like: Tensor, next_skip: Tensor) -> Tensor:
    """Return what ``offset`` ``(B,h,w)`` inside a block's transformer adds to the block's output, enlarged if it is."""
    change = offset.new_zeros(())
    for layer in layers:
        if isinstance(layer, SpatialVideoTransformer):
            offset = offset * _count_layers(layer, like)
        if isinstance(layer, SpatialTransformer):
            change = offset[:, None] * _row_sums(layer, like)[:, None, None]
        elif change.ndim:  # upsampling after the transformer: linear apart from its bias
            shape = (*change.shape[:2], *next_skip.shape[2:])
            change = layer(change, output_shape=shape) - layer(torch.zeros_like(change), output_shape=shape)
    return change


def _row_sums(transformer: Any, like: Tensor) -> Tensor:
    """Return the row sums ``(C,)`` of the output projection, by calling it: the host may stream its weights."""
    projection: Callable[[Tensor], Tensor] = transformer.proj_out
    width = transformer.transformer_blocks[0].norm3.normalized_shape[0]
    ones = like.new_ones((1, 1, width) if isinstance(projection, torch.nn.Linear) else (1, width, 1, 1))
    return (projection(ones) - projection(torch.zeros_like(ones))).flatten()


def fit_offset(offset: Tensor, size: tuple[int, int]) -> Tensor:
    """Return ``offset`` ``(B,h,w)`` on the grid of the modulated block (nearest), ``size`` cells."""
    if tuple(offset.shape[1:]) == size:
        return offset
    return F.interpolate(offset[:, None], size, mode="nearest-exact")[:, 0]


def _count_layers(transformer: Any, like: Tensor) -> Tensor:
    """Return ``2 - alpha``: the temporal layer starts from the spatial one, gets the offset too, and both are mixed."""
    once = like.new_ones((1, 1, 1))
    factor: Tensor = transformer.time_mixer(x_spatial=once, x_temporal=2 * once)  # called: the host may stream weights
    return factor
