"""The same model gives the same regions on a CUDA device, in all number types, and gives its memory back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.config.settings import Settings, replace_parts, with_quality
from vidseg.core.method.features import extract_features
from vidseg.core.method.pipeline import segment

from .narrow_models import narrow_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SETTINGS = replace_parts(Settings(), cluster={"num_clusters": 4, "num_restarts": 2}, window={"length": 3})


class Frames:
    """Smooth moving frames."""

    num_frames = 5

    def read(self, start: int, stop: int) -> Tensor:
        rows, columns = torch.meshgrid(torch.linspace(0, 6, 128), torch.linspace(0, 12, 192), indexing="ij")
        waves = [
            torch.stack([torch.sin(rows * k + t / 3) * torch.cos(columns) for k in (1, 2, 3)], -1) for t in range(5)
        ]
        return torch.stack(waves)[start:stop] / 2 + 0.5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return narrow_model(tmp_path_factory.mktemp("cuda") / "narrow.safetensors")


@pytest.fixture(scope="module")
def on_cpu(model: Path) -> Tensor:
    return segment(load_diffusers(model, device="cpu"), Frames(), SETTINGS).maps


@pytest.mark.parametrize(("dtype", "agreement"), [("float32", 0.99), ("float16", 0.95), ("bfloat16", 0.8)])
def test_labels_agree_with_the_cpu(model: Path, on_cpu: Tensor, dtype: str, agreement: float) -> None:
    backbone = load_diffusers(model, device="cuda", dtype=getattr(torch, dtype))
    maps = segment(backbone, Frames(), SETTINGS).maps.cpu()
    assert (maps == on_cpu).float().mean() >= agreement


@pytest.mark.parametrize("method", ["tree", "kmeans"])
@pytest.mark.parametrize("quality", ["fast", "balanced"])
def test_pixels_and_leaves_agree_with_the_cpu(model: Path, quality: str, method: str) -> None:
    settings = replace_parts(with_quality(SETTINGS, quality), cluster={"method": method, "num_leaves": 12})
    found, expected = (segment(load_diffusers(model, device=device), Frames(), settings) for device in ("cuda", "cpu"))
    assert (found.maps == expected.maps).float().mean() >= 0.99
    if expected.leaves:
        assert found.leaves is not None
        assert (found.leaves.maps == expected.leaves.maps).float().mean() >= 0.98


def test_features_agree_with_the_cpu(model: Path) -> None:
    frames = Frames().read(0, 2)
    features = [extract_features(load_diffusers(model, device=device), frames, SETTINGS) for device in ("cpu", "cuda")]
    error = (features[0].queries - features[1].queries).abs().max() / features[0].queries.abs().max()
    assert error < 5e-3  # convolutions may use TF32


def test_same_labels_twice_and_memory_given_back(model: Path) -> None:
    backbone = load_diffusers(model, device="cuda")
    first = segment(backbone, Frames(), SETTINGS).maps.cpu()
    torch.cuda.synchronize()
    used = torch.cuda.memory_allocated()
    second = segment(backbone, Frames(), SETTINGS).maps.cpu()
    assert torch.equal(first, second)
    assert torch.cuda.memory_allocated() <= used
