"""Shapes of the two networks, as dataclasses, as diffusers modules and as the configuration written to the file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

SCALE_FACTOR = 0.18215
"""Factor between the autoencoder's latents and those the UNet sees; hosts hard-code SD's value."""
CONTEXT_TOKENS = 77
"""Tokens of SD's prompt embedding."""


@dataclass(frozen=True)
class UNetShape:
    """Widths of a UNet of SD 2.1's layout; attention at every level but the last."""

    model_channels: int = 64
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (1, 2, 4)
    num_head_channels: int = 32
    context_dim: int = 64
    use_linear_in_transformer: bool = True
    transformer_depth: int = 1
    in_channels: int = 4
    out_channels: int = 4

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.model_channels * multiplier for multiplier in self.channel_mult)


@dataclass(frozen=True)
class VAEShape:
    """Widths of an autoencoder of SD's layout: eightfold reduction, four latent channels."""

    ch: int = 32
    ch_mult: tuple[int, ...] = (1, 1, 2, 4)
    num_res_blocks: int = 2
    z_channels: int = 4
    double_z: bool = True
    in_channels: int = 3
    out_ch: int = 3
    resolution: int = 256
    attn_resolutions: tuple[int, ...] = ()
    dropout: float = 0.0

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.ch * multiplier for multiplier in self.ch_mult)


@dataclass(frozen=True)
class ModelShape:
    """Both shapes."""

    unet: UNetShape = UNetShape()
    vae: VAEShape = VAEShape()

    def as_config(self) -> dict[str, Any]:
        """Return what a loader needs to rebuild both networks."""
        return {
            "unet": asdict(self.unet),
            "vae": asdict(self.vae),
            "scale_factor": SCALE_FACTOR,
            "prediction_type": "epsilon",
        }


def build_unet(shape: UNetShape, seed: int) -> UNet2DConditionModel:
    """Build a UNet; the last layer of every residual branch starts at zero, as in the original implementation."""
    torch.manual_seed(seed)
    channels = shape.level_channels
    levels = len(channels)
    unet = UNet2DConditionModel(
        in_channels=shape.in_channels,
        out_channels=shape.out_channels,
        block_out_channels=channels,
        layers_per_block=shape.num_res_blocks,
        cross_attention_dim=shape.context_dim,
        # Despite its name this argument is the number of heads of each level.
        attention_head_dim=tuple(width // shape.num_head_channels for width in channels),
        use_linear_projection=shape.use_linear_in_transformer,
        transformer_layers_per_block=shape.transformer_depth,
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
    )
    _start_at_zero(unet.conv_out)
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D):
            _start_at_zero(module.conv2)
        elif isinstance(module, Transformer2DModel):
            _start_at_zero(module.proj_out)
    return unet


def _start_at_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def build_vae(shape: VAEShape, seed: int) -> AutoencoderKL:
    """Build an autoencoder."""
    torch.manual_seed(seed)
    levels = len(shape.ch_mult)
    return AutoencoderKL(
        in_channels=shape.in_channels,
        out_channels=shape.out_ch,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=shape.level_channels,
        layers_per_block=shape.num_res_blocks,
        latent_channels=shape.z_channels,
        norm_num_groups=32,
        scaling_factor=SCALE_FACTOR,
    )


def prompt_table(shape: UNetShape, seed: int = 0) -> Tensor:
    """Return the (77, C) constant that stands for the embedding of the empty prompt; zeros are its negative."""
    return torch.randn(CONTEXT_TOKENS, shape.context_dim, generator=torch.Generator().manual_seed(seed))
