"""Blocks that are spelled out give the bits of diffusers' own."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor
from vidseg.core.backbones.diffusers.backbone import DiffusersBackbone
from vidseg.core.backbones.diffusers.unet import _is_plain, run_decoder, run_feed_forward, run_resnet


@pytest.mark.parametrize("out_channels", [32, 64])
@pytest.mark.parametrize("temb_channels", [None, 16])
@pytest.mark.parametrize("options", [{}, {"output_scale_factor": 2.0}, {"non_linearity": "mish"}])
@torch.no_grad()
def test_residual_block(out_channels: int, temb_channels: int | None, options: dict[str, object]) -> None:
    torch.manual_seed(1)
    block = ResnetBlock2D(in_channels=32, out_channels=out_channels, temb_channels=temb_channels, **options).eval()
    maps, time = torch.randn(2, 32, 6, 10), None if temb_channels is None else torch.randn(2, temb_channels)
    kept = maps.clone()
    assert torch.equal(run_resnet(block, maps, time), block(maps, time))
    assert torch.equal(maps, kept), "the input is read by others"


@torch.no_grad()
def test_feed_forward() -> None:
    torch.manual_seed(1)
    layer = FeedForward(16, activation_fn="geglu").eval()
    tokens = torch.randn(2, 5, 16)
    assert torch.equal(run_feed_forward(layer, tokens), layer(tokens))


@torch.no_grad()
def test_decoder(backbone: DiffusersBackbone, latents: Tensor) -> None:
    maps = latents.contiguous(memory_format=torch.channels_last)
    assert torch.equal(run_decoder(backbone._vae, maps), backbone._vae.decode(maps).sample)
    assert all(map(_is_plain, backbone._vae.decoder.up_blocks[0].resnets))
