"""What the region picker shows: small frames with the regions under each pixel, and the table of the regions."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..core.files.result_folder import colours_of
from ..core.regions.labels import reduced_reference
from ..core.regions.points import Picks
from ..core.regions.table import region_table
from ..core.types import LabelMaps, Progress
from .images import reduced, reduced_size

KEY = "vidseg_picker"
"""What the picker looks for in the output of its node, and the folder of its files in the host's temp folder."""
SIDE = 512
"""Longer side of a shown frame, pixels."""
MAX_FRAMES = 120
"""Frames that can be shown at most; of longer clips every second, third ... frame. The browser loads one at a time."""
_MARK = "mark.txt"
"""File beside those of the picker, with a text of its own each time the folder is made."""
_QUALITY = 85
_SAMPLED = 8
"""Every eighth pixel of each axis tells one clip from another: enough to name the files, and much faster than all."""

Levels = np.ndarray[Any, np.dtype[np.uint8]]


def picker_output(
    frames: Tensor, labels: LabelMaps, text: str, picks: Picks, progress: Progress
) -> dict[str, list[dict[str, Any]]]:
    """Write the files of the picker, unless they are there, and return what the browser gets.

    Args:
        frames: ``(T,H,W,3)`` in [0, 1].
        labels: label maps ``(T,H,W)`` before anything is picked, and their regions.
        text: the picks as they came in.
        picks: what they found.
        progress: called with stages ``areas`` and ``pictures`` in frames.
    """
    numbers = list(range(0, len(frames), -(-len(frames) // MAX_FRAMES)))
    size = reduced_size(frames.shape[1:3], SIDE)
    maps = [reduced_reference(labels.maps[number], size).cpu().numpy().astype(np.uint8) for number in numbers]
    stem = _digest([*(_levels(frames[number, ::_SAMPLED, ::_SAMPLED]) for number in numbers), *maps])
    folder = _folder()
    for done, (number, labelled) in enumerate(zip(numbers, maps, strict=True), 1):
        _write(folder / f"{stem}_{number}.jpg", lambda number=number: _levels(reduced(frames[number][None], SIDE)[0]))
        _write(folder / f"{stem}_{number}.png", lambda labelled=labelled: labelled)
        progress("pictures", done, len(numbers))
    colours = colours_of(labels.regions)
    rows = [row._asdict() | {"colour": colours[row.label]} for row in region_table(labels, progress)]
    found = [[point.frame, point.x, point.y, label] for point, label in zip(picks.points, picks.found, strict=True)]
    content = {
        "text": text, "stem": stem, "numFrames": len(frames), "frames": numbers, "regions": rows,
        "found": found, "problems": list(picks.problems),
    }  # fmt: skip
    return {KEY: [content]}


def folder_mark() -> str:
    """Return a text that stays the same until somebody removes the files of the picker."""
    mark = _folder() / _MARK
    if not mark.exists():
        mark.write_text(uuid.uuid4().hex, encoding="ascii")
    return mark.read_text(encoding="ascii")


def _folder() -> Path:
    """Return the folder of the files, which is there afterwards."""
    folder = Path(folder_paths.get_temp_directory()) / KEY
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _levels(frame: Tensor) -> Levels:
    """Return a frame ``(h,w,3)`` as uint8."""
    return np.ascontiguousarray((frame * 255).round().clamp(0, 255).to(torch.uint8).numpy())


def _digest(arrays: list[Levels]) -> str:
    """Return a name for the content, so that a file is written once and the browser keeps it."""
    digest = hashlib.blake2b(digest_size=10)
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(array)
    return digest.hexdigest()


def _write(path: Path, made: Callable[[], Levels]) -> None:
    """Write a picture, whole or not at all, unless it is there; a label is its own grey level."""
    if not path.exists():
        part = path.with_suffix(f".part{path.suffix}")
        options = {"quality": _QUALITY} if path.suffix == ".jpg" else {"compress_level": 4}
        Image.fromarray(made()).save(part, **options)
        part.replace(path)
