"""A vision model of transformers as a source of features: the yardstick."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model, DINOv3ViTConfig, DINOv3ViTModel
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.backbones.diffusers.vision import VisionModel
from vidseg.core.checkpoints.describe import describe_model
from vidseg.core.checkpoints.vision import describe_features
from vidseg.core.config.settings import Settings
from vidseg.core.method.estimate import measure_costs
from vidseg.core.method.features import extract_features
from vidseg.core.method.pipeline import segment
from vidseg.core.types import InputError

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def tiny_dino(folder: Path, version: int = 2) -> Path:
    """Write a folder of DINOv2 or DINOv3 with random weights, as transformers saves it."""
    torch.manual_seed(1)
    if version == 2:
        model: Any = Dinov2Model(Dinov2Config(**SIZES, image_size=56, patch_size=14))
    else:
        model = DINOv3ViTModel(DINOv3ViTConfig(**SIZES, image_size=64, patch_size=16, num_register_tokens=4))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[2, 3])
def vision(request: Any, tmp_path_factory: Any) -> VisionModel:
    return load_diffusers(describe_features(tiny_dino(tmp_path_factory.mktemp("dino"), request.param)), device="cpu")


@pytest.fixture(scope="module")
def frames() -> Tensor:
    return torch.rand(3, 64, 128, 3, generator=torch.Generator().manual_seed(3))


def test_each_cell_has_a_patch(vision: VisionModel, frames: Tensor) -> None:
    (tokens,) = vision.read_frames(frames, ("patch",))
    assert tokens.shape == (3, 32, 32)
    changed = frames.clone()
    changed[:, :16, :16] = 1 - changed[:, :16, :16]
    moved = (vision.read_frames(changed, ("patch",))[0] - tokens).norm(dim=-1).mean(0)
    assert int(moved.argmax()) == 0, "the first token is that of the first cell"


def test_it_serves_the_qualities_without_modulation(vision: VisionModel, frames: Tensor) -> None:
    source = SimpleNamespace(num_frames=3, read=lambda start, stop: frames[start:stop])
    settings = Settings.of("default", "fast", kind="vision", num_clusters=3, length=2)
    assert vision.info.kind == "vision"
    assert segment(vision, source, settings).maps.shape == (3, 64, 128)
    assert measure_costs(vision, (64, 128), settings).read > 0
    with pytest.raises(InputError, match=r"`quality` must be fast or draft"):
        segment(vision, source, Settings.of(kind="vision", num_clusters=3))
    with pytest.raises(InputError, match=r"feature\.layers"):
        extract_features(vision, frames, Settings())
    with pytest.raises(InputError, match="patch with a vision model"):
        vision.read_frames(frames, ("3.0.query",))


def test_others_are_refused_by_name(tmp_path: Path) -> None:
    folder = tiny_dino(tmp_path / "dino")
    with pytest.raises(InputError, match="a vision model of transformers: give it as --features"):
        describe_model(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "clip"}))
    with pytest.raises(InputError, match=r"must be the folder of a DINOv2 or DINOv3 model.*a model called clip"):
        describe_features(folder)
    (folder / "config.json").write_text(json.dumps({**config, "patch_size": None}))
    with pytest.raises(InputError, match=r"no 'patch_size'"):
        describe_features(folder)
    with pytest.raises(InputError, match=r"no config\.json"):
        describe_features(tmp_path)
