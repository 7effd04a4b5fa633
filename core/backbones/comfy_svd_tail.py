"""Call only the end of the host's SVD UNet: the counterpart of `comfy_tail` for video models.

The temporal transformer starts from the spatial one's output and gets the offset once more; both are mixed with weights
alpha and 1 - alpha, so that the block's output is the unmodulated one plus ``(2 - alpha) * offset (x) r``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from comfy.ldm.modules.attention import SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import forward_timestep_embed
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor

from .comfy_tail import TailState, projected_offset


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
