"""Doubled maps are those of repeated pixels and the convolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from vidseg.core.backbones.diffusers.backbone import DiffusersBackbone
from vidseg.core.backbones.doubling import Doubling, can_fold


@pytest.mark.parametrize(("channels", "size"), [((3, 5), (1, 1)), ((16, 16), (7, 4))])
@torch.no_grad()
def test_same_maps_but_for_rounding(channels: tuple[int, int], size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    conv, maps = nn.Conv2d(*channels, 3, padding=1), torch.randn(2, channels[0], *size)
    kept = conv.weight.clone()
    expected = conv(F.interpolate(maps, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(Doubling(conv)(maps), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(conv.weight, kept)


def test_other_convolutions_are_left_alone() -> None:
    assert can_fold(nn.Conv2d(4, 4, 3, padding=1))
    others: list[dict[str, Any]] = [
        {"kernel_size": 1},
        {"kernel_size": 3},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": 3, "padding": 1, "dilation": 2},
        {"kernel_size": 3, "padding": 1, "groups": 2},
        {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
        {"kernel_size": 3, "padding": 1, "dtype": torch.bfloat16},
    ]
    assert not any(can_fold(nn.Conv2d(4, 4, **other)) for other in others)
    assert not any(can_fold(layer) for layer in (None, nn.Conv3d(4, 4, 3, padding=1), nn.ConvTranspose2d(4, 4, 3)))


@torch.no_grad()
def test_decoder_gives_the_pictures_of_its_own_layers(backbone: DiffusersBackbone, latents: Tensor) -> None:
    decoder = backbone._vae.decoder
    folded = {layer: vars(layer).pop("forward") for layer in decoder.modules() if "forward" in vars(layer)}
    assert len(folded) == 3
    plain = backbone.decode(latents)
    for layer, forward in folded.items():
        layer.forward = forward
    assert not torch.equal(backbone.decode(latents), plain), "the layers are not used"
    torch.testing.assert_close(backbone.decode(latents), plain, rtol=1e-4, atol=1e-5)
