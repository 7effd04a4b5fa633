"""Narrow models that many tests share; nothing changes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from vidseg.core.backbones.diffusers.backbone import DiffusersBackbone
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.backbones.diffusers.svd_backbone import DiffusersSvdBackbone

from .backbones.narrow_models import THIN, THIN_SVD, narrow_model


@pytest.fixture(scope="session")
def thin_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return narrow_model(tmp_path_factory.mktemp("model") / "thin.safetensors", THIN)


@pytest.fixture(scope="session")
def thin_backbone(thin_model: Path) -> DiffusersBackbone:
    return load_diffusers(thin_model, device="cpu")


@pytest.fixture(scope="session")
def thin_svd_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return narrow_model(tmp_path_factory.mktemp("model") / "thin_svd.safetensors", THIN_SVD)


@pytest.fixture(scope="session")
def thin_svd_backbone(thin_svd_model: Path) -> DiffusersSvdBackbone:
    loaded = load_diffusers(thin_svd_model, device="cpu")
    assert isinstance(loaded, DiffusersSvdBackbone)
    return loaded
