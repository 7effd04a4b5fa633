"""Leaner blocks give the bits of diffusers' own, and take the place of all that have their form."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from diffusers.models.activations import GEGLU
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from vidseg.core.backbones.diffusers.lean import LeanGeglu, LeanResnetBlock, make_lean
from vidseg.core.backbones.diffusers.load import load_diffusers

from ..narrow_models import narrow_model


@pytest.mark.parametrize("out_channels", [32, 64])
@pytest.mark.parametrize("temb_channels", [None, 16])
@torch.no_grad()
def test_residual_block(out_channels: int, temb_channels: int | None) -> None:
    torch.manual_seed(1)
    plain = ResnetBlock2D(in_channels=32, out_channels=out_channels, temb_channels=temb_channels).eval()
    lean = copy.deepcopy(plain)
    make_lean(lean)
    assert type(lean) is LeanResnetBlock
    maps, time = torch.randn(2, 32, 6, 10), None if temb_channels is None else torch.randn(2, temb_channels)
    kept = maps.clone()
    assert torch.equal(lean(maps, time), plain(maps, time))
    assert torch.equal(maps, kept), "the input is read by others"


@torch.no_grad()
def test_gate() -> None:
    torch.manual_seed(1)
    plain = GEGLU(16, 32)
    lean = copy.deepcopy(plain)
    make_lean(lean)
    assert type(lean) is LeanGeglu
    tokens = torch.randn(2, 5, 16)
    assert torch.equal(lean(tokens), plain(tokens))


@pytest.mark.parametrize(
    "changed", [{"up": True}, {"down": True}, {"output_scale_factor": 2.0}, {"time_embedding_norm": "scale_shift"}]
)
def test_other_blocks_stay(changed: dict[str, object]) -> None:
    block = ResnetBlock2D(in_channels=32, temb_channels=16, **changed)
    make_lean(block)
    assert type(block) is ResnetBlock2D


def test_no_block_of_a_model_is_left(tmp_path: Path) -> None:
    backbone = load_diffusers(narrow_model(tmp_path / "model.safetensors"), device="cpu")
    networks: tuple[nn.Module, ...] = (backbone._unet, backbone._vae)
    kinds = [type(module) for network in networks for module in network.modules()]
    assert ResnetBlock2D not in kinds
    assert GEGLU not in kinds
    assert kinds.count(LeanResnetBlock) > 20
