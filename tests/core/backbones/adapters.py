"""The adapters that the contract suite runs over. To add one: a function from a model file to a backbone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.backbones.protocol import Backbone


def diffusers(path: Path) -> Backbone:
    """Load a single-file model with its own sizes and empty prompt."""
    return load_diffusers(path, device="cpu")


ADAPTERS: dict[str, Callable[[Path], Backbone]] = {"diffusers": diffusers}
