"""diffusers' residual blocks and gated feed-forward layers without the tensors they need not make.

The arithmetic is the same to the last bit: what nothing else reads is overwritten, and sums are not divided by one. On
a CPU that is about a twentieth of the time of UNet and decoder, most of it spent on fetching fresh memory.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from diffusers.models.activations import GEGLU
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn


class LeanResnetBlock(ResnetBlock2D):
    """A residual block of Stable Diffusion: norm, SiLU, convolution, time embedding, and the same again."""

    def forward(self, input_tensor: Tensor, temb: Tensor | None = None) -> Tensor:
        """Return ``(E,C',h,w)`` of maps ``(E,C,h,w)`` and a time embedding ``(E,C'')``, None in an autoencoder."""
        hidden: Tensor = self.conv1(F.silu(self.norm1(input_tensor), inplace=True))
        if temb is not None and self.time_emb_proj is not None:
            hidden += self.time_emb_proj(F.silu(temb))[:, :, None, None]
        hidden = self.conv2(F.silu(self.norm2(hidden), inplace=True))
        hidden += input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        return hidden


class LeanGeglu(GEGLU):
    """The gate of a transformer's feed-forward layer."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``(E,N,C')`` of tokens ``(E,N,C)``."""
        values, gate = self.proj(tokens).chunk(2, dim=-1)
        return F.gelu(gate).mul_(values)


def make_lean(network: nn.Module) -> None:
    """Let the blocks of ``network`` that have the form of Stable Diffusion's run as above, for inference only."""
    for module in network.modules():
        if type(module) is ResnetBlock2D and _is_plain(module):
            module.__class__ = LeanResnetBlock
        elif type(module) is GEGLU:
            module.__class__ = LeanGeglu


def _is_plain(block: ResnetBlock2D) -> bool:
    """Return whether the block resizes nothing, scales nothing and has SiLU between its layers."""
    return (
        block.upsample is None
        and block.downsample is None
        and block.output_scale_factor == 1
        and (block.time_emb_proj is None or block.time_embedding_norm == "default")
        and not block.skip_time_act
        and isinstance(block.nonlinearity, nn.SiLU)
    )
