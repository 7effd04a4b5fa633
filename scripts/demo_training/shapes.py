"""Sizes of the demo model's two networks, and the networks themselves as diffusers modules."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from vidseg.core.backbones.diffusers.weights import unet_config, vae_config
from vidseg.core.checkpoints.sizes import ModelSizes, UNetSizes, VAESizes

CONTEXT_TOKENS = 77
"""Tokens of SD's prompt embedding."""
DEMO = ModelSizes(
    UNetSizes(model_channels=64, channel_mult=(1, 2, 2, 2), num_head_channels=32, context_dim=64),
    VAESizes(ch=32, ch_mult=(1, 1, 2, 4)),
)
"""The bundled model: SD 2.1's layout, narrow."""


def build_unet(sizes: UNetSizes, seed: int) -> UNet2DConditionModel:
    """Build a UNet; the last layer of every residual branch starts at zero, as in the original implementation."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(**unet_config(sizes))
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


def build_vae(sizes: VAESizes, seed: int) -> AutoencoderKL:
    """Build an autoencoder."""
    torch.manual_seed(seed)
    return AutoencoderKL(**vae_config(sizes))


def prompt_table(sizes: UNetSizes, seed: int = 0) -> Tensor:
    """Return the (77, C) constant that stands for the embedding of the empty prompt; zeros are its negative."""
    return torch.randn(CONTEXT_TOKENS, sizes.context_dim, generator=torch.Generator().manual_seed(seed))
