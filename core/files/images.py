"""Read images as frames: one picture of a file, or all of an animation; nothing is dropped silently."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence

from ..types import InputError, SettingError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
"""Endings of files that are read as frames."""
MAX_PIXELS = 1 << 26
"""Pixels of an image at most, twice those of an 8K frame: a small file may claim to be huge."""
UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises on damaged files: nearly anything."""
_TIFF_KIND, _REDUCED = 254, 1
"""Tag of a TIFF page, and its bit of a smaller copy of another page."""


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Return a sorting key under which ``frame2`` comes before ``frame10``; ties go by the plain name.

    >>> sorted(["f10", "f9", "f09"], key=natural_key)
    ['f09', 'f9', 'f10']
    """
    parts = re.split(r"(\d+)", name.casefold())
    return (*((0, int(part)) if part.isdecimal() else (1, part) for part in parts), (1, name))


def read_image(path: Path) -> NDArray[np.float32]:
    """Return the image as ``(H,W,3)`` float32, RGB, nominally in [0, 1]; transparency is dropped.

    16-bit gray is divided by 65535, floating-point gray is taken as it is and may hold NaN.
    """
    return as_share(read_pixels(path))


def read_pixels(path: Path) -> NDArray[Any]:
    """Return what `read_image` does, as uint8 where the file holds 8 bits."""
    with _explain_unreadable(path), open_image(path) as opened:
        require_single(opened, path, "input")
        return _convert_pixels(opened)


def read_all_pixels(path: Path) -> Iterator[NDArray[Any]]:
    """Yield each picture of a file as `read_pixels` does: those of an animation, the pages of a TIFF."""
    with _explain_unreadable(path), open_image(path) as opened:
        if count_pictures(opened) == 1:
            yield _convert_pixels(opened)
            return
        for picture in ImageSequence.Iterator(opened):
            if not _is_reduced(picture):
                yield _convert_pixels(picture)


def read_durations(path: Path) -> tuple[int, list[float]]:
    """Return how many pictures a file holds, and the seconds for which each is shown; none where it does not tell."""
    with _explain_unreadable(path), open_image(path) as opened:
        count = count_pictures(opened)
        if count == 1:
            return 1, []
        found = []
        for picture in ImageSequence.Iterator(opened):
            picture.load()  # some formats tell it after decoding
            found.append(float(picture.info.get("duration", 0)) / 1000)
    return count, found if len(found) == count and min(found) > 0 else []


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image whose header claims no more pixels than `MAX_PIXELS`."""
    if path.exists() and not path.is_file():
        raise SettingError("input", "hold images", f"{path.name}, which is no file", "Remove it")
    with Image.open(path) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise SettingError(
                "input",
                f"hold images of at most {MAX_PIXELS >> 20} megapixels",
                f"{path.name} of {opened.width}x{opened.height}",
                "Reduce it",
            )
        yield opened


def count_pictures(opened: Image.Image) -> int:
    """Return how many pictures an image holds; thumbnails, depth and gain maps of photos do not count."""
    count = int(getattr(opened, "n_frames", 1))
    if count == 1 or opened.format == "MPO":
        return 1
    if opened.format != "TIFF":
        return count
    full = sum(not _is_reduced(page) for page in ImageSequence.Iterator(opened))
    opened.seek(0)
    return max(1, full)


def require_single(opened: Image.Image, path: Path, key: str) -> None:
    """Check that an image holds one picture."""
    count = count_pictures(opened)
    if count > 1:
        limit, remedy = "hold one picture in each file", "Write each as a file of its own"
        raise SettingError(key, limit, f"{path.name}, which holds {count}", remedy)


def first_line(error: BaseException) -> str:
    """Return the first line of a message."""
    return str(error).strip().split("\n")[0][:200] or type(error).__name__


def _is_reduced(page: Image.Image) -> bool:
    """Tell whether a page of a TIFF is a smaller copy of another."""
    return bool(getattr(page, "tag_v2", {}).get(_TIFF_KIND, 0) & _REDUCED)


def _convert_pixels(opened: Image.Image) -> NDArray[Any]:
    """Return the picture that is opened, upright, ``(H,W,3)`` uint8, or float32 where it has more than 8 bits."""
    image = ImageOps.exif_transpose(opened)
    if image.mode == "F":
        gray = np.asarray(image, np.float32)
    elif image.mode.startswith("I"):
        gray = np.asarray(image, np.float32) / np.float32(65535)
    else:
        return np.array(image.convert("RGB"))  # a copy that can be written to
    return np.repeat(gray[..., None], 3, axis=2)


def as_share(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return pixels as float32 in [0, 1]."""
    return np.asarray(pixels if pixels.dtype == np.float32 else pixels / np.float32(255), np.float32)


def as_levels(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return pixels in 8 bits."""
    return np.asarray(pixels if pixels.dtype == np.uint8 else (pixels.clip(0, 1) * 255).round(), np.uint8)


@contextmanager
def _explain_unreadable(path: Path) -> Iterator[None]:
    """Name the file where Pillow fails."""
    try:
        yield
    except InputError:
        raise
    except UNREADABLE as error:
        got = f"{path.name}, which is damaged or no image ({first_line(error)})"
        raise SettingError("input", "hold readable images", got, "Write it again, or remove it") from error
