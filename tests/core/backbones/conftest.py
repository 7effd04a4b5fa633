"""Narrow models that the tests of the diffusers adapter share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from vidseg.core.backbones.diffusers.backbone import DiffusersBackbone
from vidseg.core.backbones.diffusers.load import load_diffusers

from .narrow_models import SD1, SD2, narrow_model

SHAPE = (4, 8, 16)


@pytest.fixture(scope="session", params=["SD2", "SD1"])
def backbone(request: Any, tmp_path_factory: Any) -> DiffusersBackbone:
    sizes = SD2 if request.param == "SD2" else SD1
    return load_diffusers(narrow_model(tmp_path_factory.mktemp("model") / "m.safetensors", sizes), device="cpu")


@pytest.fixture(scope="session")
def latents() -> Tensor:
    return torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(1))
