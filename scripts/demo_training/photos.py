"""Photos of a folder, packed into one buffer on the training device, and random crops of them."""

from __future__ import annotations

import csv
import math
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

HELD_OUT_SHARE = 30
"""One photo in this many is held out for validation."""
HELD_OUT_FREE_SHARE = 6
"""Among photos that may be redistributed one in this many is held out, so that there are some to show."""


@dataclass(frozen=True)
class Photo:
    """One photo: its path below the folder, and its license as the manifest states it."""

    name: str
    license: str

    @property
    def redistributable(self) -> bool:
        """Whether the license lets a picture of it be published."""
        return self.license.startswith(("Public Domain", "CC BY 2.0", "CC BY-SA 2.0"))

    @property
    def held_out(self) -> bool:
        """Whether the photo is for validation; decided by its name alone."""
        share = HELD_OUT_FREE_SHARE if self.redistributable else HELD_OUT_SHARE
        return zlib.crc32(self.name.encode()) % share == 0


def list_photos(folder: Path) -> tuple[Photo, ...]:
    """Return the photos of a folder in name order, with the licenses of its ``manifest.csv`` where there is one."""
    manifest = folder / "manifest.csv"
    rows = csv.DictReader(manifest.read_text(encoding="utf-8").splitlines()) if manifest.exists() else ()
    licenses = {row["file"]: row["license"] for row in rows}
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    if not names:
        raise ValueError(f"`folder` must hold .jpg photos, but {folder} holds none.")
    return tuple(Photo(name, licenses.get(name, "")) for name in names)


class PhotoBank:
    """Photos as one flat (pixels, 3) uint8 buffer, so that a batch of crops is a single gather."""

    def __init__(self, folder: Path, photos: Sequence[Photo], device: torch.device, boosts: dict[str, float]) -> None:
        """Load photos; ``boosts`` multiplies how often those of a subfolder are drawn."""
        with ThreadPoolExecutor() as pool:
            arrays = list(pool.map(lambda photo: _read(folder / photo.name), photos))
        self.photos = tuple(photos)
        self.heights = torch.tensor([array.shape[0] for array in arrays])
        self.widths = torch.tensor([array.shape[1] for array in arrays])
        sizes = self.heights * self.widths
        self.offsets = sizes.cumsum(0) - sizes
        self.weights = torch.tensor([boosts.get(photo.name.split("/", maxsplit=1)[0], 1.0) for photo in photos])
        self.pixels = torch.from_numpy(np.concatenate([array.reshape(-1, 3) for array in arrays])).to(device)

    def crops(self, count: int, size: tuple[int, int], scale: float, generator: torch.Generator) -> Tensor:
        """Return (B,3,H,W) random crops in [-1,1], half of them mirrored, of the photos enlarged by ``scale``."""
        source = _source_size(size, scale)
        fits = self._fits(source)
        index = torch.multinomial(self.weights * fits, count, replacement=True, generator=generator)
        draws = torch.rand(3, count, generator=generator)
        top = (draws[0] * (self.heights[index] - source[0] + 1)).long()
        left = (draws[1] * (self.widths[index] - source[1] + 1)).long()
        return self._gather(index, top, left, draws[2] < 0.5, source, size)

    def center_crop(self, index: int, size: tuple[int, int]) -> Tensor:
        """Return the (1,3,H,W) largest central view of one photo with the aspect of ``size``, resized to it."""
        height, width = int(self.heights[index]), int(self.widths[index])
        factor = min(height / size[0], width / size[1])
        source = (int(size[0] * factor), int(size[1] * factor))
        top, left = torch.tensor([(height - source[0]) // 2]), torch.tensor([(width - source[1]) // 2])
        return self._gather(torch.tensor([index]), top, left, torch.tensor([False]), source, size)

    def require(self, size: tuple[int, int], scale: float) -> None:
        """Raise when no photo holds a crop of ``size`` after enlarging by ``scale``."""
        source = _source_size(size, scale)
        if not self._fits(source).any():
            raise ValueError(f"`size` must fit in some photo, but none holds {source[0]}x{source[1]} pixels.")

    def _fits(self, source: tuple[int, int]) -> Tensor:
        return (self.heights >= source[0]) & (self.widths >= source[1])

    def _gather(
        self, index: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, source: tuple[int, int], size: tuple[int, int]
    ) -> Tensor:
        rows = top[:, None] + torch.arange(source[0])
        columns = torch.arange(source[1]).expand(len(index), -1)
        columns = left[:, None] + torch.where(mirrored[:, None], source[1] - 1 - columns, columns)
        starts = self.offsets[index][:, None] + rows * self.widths[index][:, None]
        device = self.pixels.device
        flat = starts.to(device)[:, :, None] + columns.to(device)[:, None, :]
        crops = self.pixels[flat].permute(0, 3, 1, 2).float() / 127.5 - 1  # (B,H,W,3) -> (B,3,H,W)
        if source == size:
            return crops
        return functional.interpolate(crops, size, mode="bicubic", antialias=True).clamp(-1, 1)


def _source_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return math.ceil(size[0] / scale), math.ceil(size[1] / scale)


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
