"""Tests of the nodes in a real ComfyUI; they are skipped where none is found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ..core.backbones.narrow_models import THIN, narrow_model
from .host import import_host

REASON = import_host()
if REASON:
    collect_ignore_glob = ["test_in_*.py"]


def pytest_report_header() -> str:
    """Say why tests in the host are left out."""
    return f"tests in ComfyUI: {REASON or 'yes'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Do not take warnings of the host and of its requirements for errors, and watch no lines.

    The tests without a host must reach the lines of the core by themselves, and to watch takes a third of the time.
    """
    for item in items:
        if "nodes" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("ignore"))
            item.add_marker(pytest.mark.no_cover)


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    """Run as the host runs nodes."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow model with random weights."""
    return narrow_model(tmp_path_factory.mktemp("model") / "narrow.safetensors", THIN)


@pytest.fixture(scope="session")
def loaded(model_file: Path) -> Any:
    """The same as the host holds it: model, vae, positive and negative."""
    from vidseg.nodes.demo_model import load_narrow_model  # noqa: PLC0415

    return load_narrow_model(model_file)


@pytest.fixture(scope="session")
def frames() -> torch.Tensor:
    """Three frames ``(3,64,128,3)`` of a textured square that moves over a texture."""
    generator = torch.Generator().manual_seed(3)
    clip = (0.4 + 0.1 * torch.rand(64, 128, 3, generator=generator)).repeat(3, 1, 1, 1)
    square = 0.1 + 0.1 * torch.rand(32, 40, 3, generator=generator)
    square[..., 0] += 0.7
    for number in range(3):
        clip[number, 16:48, 20 + 16 * number : 60 + 16 * number] = square
    return clip


@pytest.fixture(scope="session")
def features(loaded: Any, frames: torch.Tensor) -> Any:
    """What the first node makes of them."""
    from .graphs import call, wired  # noqa: PLC0415, needs the host

    return call("ExtractDiffusionFeatures", **wired(loaded), frames=frames)


@pytest.fixture(scope="session")
def full(loaded: Any, features: Any) -> Any:
    """Labels of the last of the five nodes."""
    from .graphs import call, coarse_labels, wired  # noqa: PLC0415, needs the host

    return call("MaskedModulationUpsample", **wired(loaded), features=features, labels=coarse_labels(features))
