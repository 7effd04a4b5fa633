"""What comes with the package: a small model and a clip to try it on, and the version."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "assets"
DEMO_MODEL, DEMO_CLIP = ASSETS / "demo_model.safetensors", ASSETS / "demo_clip.mp4"


def find_version() -> str:
    """Return the version, ``0.1.0``: of a checkout that of its project file, else that of the installed package."""
    project = ROOT / "pyproject.toml"
    if project.is_file():
        found = re.search(r'^version = "([^"]+)"', project.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    try:
        return version("comfyui-vidseg")
    except PackageNotFoundError:
        return "unknown"
