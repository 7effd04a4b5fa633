"""Read single images: frames as colors, masks as labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..types import VOID, InputError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
"""Endings of files that are read as frames."""
_UNREADABLE = (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError)
"""What Pillow raises on damaged files."""


def read_image(path: Path) -> NDArray[np.float32]:
    """Return the image as ``(H,W,3)`` float32, RGB, nominally in [0, 1]; transparency is dropped.

    16-bit gray is divided by 65535, floating-point gray is taken as it is and may hold NaN.

    Raises:
        InputError: the file is not an image or is damaged.
    """
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode == "F":
                gray = np.asarray(image, np.float32)
            elif image.mode.startswith("I"):
                gray = np.asarray(image, np.float32) / np.float32(65535)
            else:
                return np.asarray(image.convert("RGB"), np.float32) / np.float32(255)
    except _UNREADABLE as error:
        raise InputError(
            f"`input` must hold readable images, but {path.name} is damaged or no image ({_first_line(error)}). "
            "Write it again, or remove it."
        ) from error
    return np.repeat(gray[..., None], 3, axis=2)


def read_labels(path: Path, name: str) -> Tensor:
    """Return a label image as ``(H,W)`` uint8: the index of a palette image, the value of a gray one.

    Args:
        path: PNG file.
        name: what to call it in a message.

    Raises:
        InputError: no such file, not an image, or an image of colors.
    """
    if not path.is_file():
        raise InputError(f"`{name}` must be a label image, but {path} does not exist. Check the path.")
    try:
        with Image.open(path) as image:
            mode = image.mode
            values = np.array(image.convert("L") if mode == "1" else image)
    except _UNREADABLE as error:
        raise InputError(
            f"`{name}` must be a readable image, but {path} is not: {_first_line(error)}. Write it again."
        ) from error
    if mode == "1":
        values = values // 255
    if mode not in {"P", "L", "1"} or values.dtype != np.uint8:
        raise InputError(
            f"`{name}` must be an 8-bit palette or gray PNG whose values are labels, but {path.name} has mode {mode}. "
            "Save it as an indexed image."
        )
    return torch.from_numpy(values)


def is_black_and_white(labels: Tensor) -> bool:
    """Return whether label values ``(...)`` uint8 are those of a picture in black (0) and white (255) alone.

    >>> is_black_and_white(torch.tensor([0, 255], dtype=torch.uint8))
    True
    >>> is_black_and_white(torch.tensor([0, 1, 255], dtype=torch.uint8))
    False
    """
    return bool(((labels == 0) | (labels == VOID)).all())


def _first_line(error: BaseException) -> str:
    """Return the first line of a message."""
    return str(error).strip().split("\n")[0] or type(error).__name__
