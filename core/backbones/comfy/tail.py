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


class TailState(NamedTuple):
    """What enters the block after the modulated one, of one half of guidance.

    Attributes:
        hidden: ``(T,C,h',w')`` output of the modulated block.
        skips: of the later blocks, the last block's first.
        transformer_index: the host's running number of the next transformer.
    """

    hidden: Tensor
    skips: tuple[Tensor, ...]
    transformer_index: int


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
    """Wrapper of the UNet that runs only the blocks after ``block``, for frames ``frames`` of recorded states."""

    states: dict[Any, TailState]
    block: int
    frames: Tensor
    offset: Tensor

    def __call__(
        self, executor: Any, x: Tensor, timesteps: Tensor, context: Tensor, _y: None, _control: None,
        options: dict[str, Any], **_unused: Any,
    ) -> Tensor:  # fmt: skip
        """Return what the UNet predicts, in the host's convention."""
        unet = executor.class_obj
        states = [self.states[half] for half in options["uuids"]]
        hidden = torch.cat([state.hidden[self.frames] for state in states])
        offset = self.offset.to(hidden).repeat(len(states), 1, 1)
        hidden = hidden + projected_offset(unet.output_blocks[self.block], offset, hidden, states[0].skips[-1])
        skips = [
            torch.cat([skip[self.frames] for skip in group]) for group in zip(*(s.skips for s in states), strict=True)
        ]
        patches = options.get("patches", {})
        embedding = unet.time_embed(timestep_embedding(timesteps, unet.model_channels, repeat_only=False).to(x.dtype))
        for patch in patches.get("emb_patch", ()):
            embedding = patch(embedding, unet.model_channels, options)
        options["original_shape"] = list(x.shape)
        options["transformer_index"] = states[0].transformer_index
        for number in range(self.block + 1, len(unet.output_blocks)):
            options["block"] = ("output", number)
            skip = skips.pop()
            for patch in patches.get("output_block_patch", ()):
                hidden, skip = patch(hidden, skip, options)
            hidden = torch.cat([hidden, skip], dim=1)
            shape = skips[-1].shape if skips else None
            hidden = forward_timestep_embed(unet.output_blocks[number], hidden, embedding, context, options, shape)
        result: Tensor = unet.out(hidden.type(x.dtype))
        return result


def projected_offset(layers: Any, offset: Tensor, like: Tensor, next_skip: Tensor) -> Tensor:
    """Return what ``offset`` inside a block's transformer adds to the output of the block's ``layers``.

    Args:
        layers: layers of the block, called in order, the transformer among them.
        offset: ``(B,h,w)`` float32.
        like: hidden states of the block, for device and type.
        next_skip: skip connection of the next block, for the size that an upsampling layer aims at.
    """
    change = offset.new_zeros(())
    for layer in layers:
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


@dataclass(frozen=True)
class VideoTailCall:
    """Wrapper of the UNet that runs the blocks after ``block`` only: from recorded states, with ``offset`` (T,h,w)."""

    states: dict[Any, TailState]
    block: int
    offset: Tensor

    def __call__(
        self, executor: Any, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor, _control: None,
        options: dict[str, Any], **options_of_video: Any,
    ) -> Tensor:  # fmt: skip
        """Return what the UNet predicts, in the host's convention."""
        unet = executor.class_obj
        states = [self.states[half] for half in options["uuids"]]
        hidden = torch.cat([state.hidden.to(x.device) for state in states])
        skips = [
            torch.cat([skip.to(x.device) for skip in group]) for group in zip(*(s.skips for s in states), strict=True)
        ]
        offset = self.offset.to(hidden).repeat(len(states), 1, 1) * both_layers(unet.output_blocks[self.block], hidden)
        hidden = hidden + projected_offset(unet.output_blocks[self.block], offset, hidden, skips[-1])
        patches = options.get("patches", {})
        embedding = unet.time_embed(timestep_embedding(timesteps, unet.model_channels, repeat_only=False).to(x.dtype))
        for patch in patches.get("emb_patch", ()):
            embedding = patch(embedding, unet.model_channels, options)
        embedding = embedding + unet.label_emb(y)
        options["original_shape"] = list(x.shape)
        options["transformer_index"] = states[0].transformer_index
        for number in range(self.block + 1, len(unet.output_blocks)):
            options["block"] = ("output", number)
            skip = skips.pop()
            for patch in patches.get("output_block_patch", ()):
                hidden, skip = patch(hidden, skip, options)
            hidden = torch.cat([hidden, skip], dim=1)
            shape = skips[-1].shape if skips else None
            hidden = forward_timestep_embed(
                unet.output_blocks[number], hidden, embedding, context, options, shape,
                time_context=options_of_video.get("time_context"),
                num_video_frames=options_of_video["num_video_frames"],
                image_only_indicator=options_of_video.get("image_only_indicator"),
            )  # fmt: skip
        result: Tensor = unet.out(hidden.type(x.dtype))
        return result


def both_layers(layers: Any, like: Tensor) -> Tensor:
    """Return ``2 - alpha`` of the block's transformer, by calling its mixer: the host may stream its weights."""
    (transformer,) = (layer for layer in layers if isinstance(layer, SpatialVideoTransformer))
    once = like.new_ones((1, 1, 1))
    factor: Tensor = transformer.time_mixer(x_spatial=once, x_temporal=2 * once)
    return factor
