"""Recognize a folder of a vision model of transformers, the yardstick of diffusion features, without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.settings import list_qualities
from ..types import InputError
from .describe import hash_files
from .files import list_part_files, read_config, read_header

TYPES = {"dinov2": "DINOv2", "dinov2_with_registers": "DINOv2", "dinov3_vit": "DINOv3"}
"""What transformers calls the models that are read, and what people call them."""


@dataclass(frozen=True)
class VisionDescription:
    """What a folder of a vision model holds, read once for a run.

    Attributes:
        path: the folder.
        family: DINOv2 or DINOv3.
        files: all weight files, in order.
        patch: pixels of its picture along a side of a patch, which becomes a coarse cell.
        channels: of its features.
        num_parameters: of the whole.
    """

    path: Path
    family: str
    files: tuple[Path, ...]
    patch: int
    channels: int
    num_parameters: int
    kind: str = "vision"
    num_frames: int = 0

    @property
    def qualities(self) -> tuple[str, ...]:
        """The qualities that it serves."""
        return list_qualities(self.kind)

    @property
    def num_bytes(self) -> int:
        """Size of the files."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weight files, one after the other, hexadecimal."""
        return hash_files(self.files)


def is_vision_folder(path: Path) -> bool:
    """Return whether a folder is of a model of transformers rather than of diffusers."""
    config = path / "config.json"
    return config.is_file() and "model_type" in read_config(config)


def describe_features(path: str | Path) -> VisionDescription:
    """Describe a folder of DINOv2 or DINOv3 as transformers saves it.

    Raises:
        InputError: missing, or of another model.
    """
    folder = Path(path)
    config = read_config(folder / "config.json") if (folder / "config.json").is_file() else {}
    kind = config.get("model_type")
    if kind not in TYPES:
        what = f"a model called {kind}" if kind else "no config.json of such a model"
        raise InputError(
            f"`features` must be the folder of a DINOv2 or DINOv3 model of transformers, but {folder} holds {what}. "
            "Save one with `save_pretrained`, or download its repository."
        )
    files = tuple(list_part_files(folder))
    try:
        patch, channels = _read_whole(config, "patch_size"), _read_whole(config, "hidden_size")
    except KeyError as error:
        raise InputError(
            f"`features` must have a complete config.json, but that of {folder.name} has no {error}. Copy it again."
        ) from None
    count = sum(tensor.size for file in files for tensor in read_header(file).tensors.values())
    return VisionDescription(folder, TYPES[kind], files, patch, channels, count)


def _read_whole(config: dict[str, Any], name: str) -> int:
    value = config[name]
    if not isinstance(value, int) or value < 1:
        raise KeyError(name)
    return value
