"""Where the tensors that the paper's own code produced are found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).parents[2] / "shared" / "golden"


def golden_dir() -> Path:
    """Return the folder of golden tensors, or skip the test."""
    folder = Path(os.environ.get("VIDSEG_GOLDEN", _BESIDE))
    if not (folder / "sd_default.npz").is_file():
        pytest.skip(f"no golden tensors at {folder}: set VIDSEG_GOLDEN to their folder")
    return folder
