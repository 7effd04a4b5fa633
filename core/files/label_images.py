"""Read masks and label images as labels, by the same rules wherever they come from, and make label images."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ..regions.palette import PALETTE
from ..types import MAX_LABEL, VOID, InputError
from .images import UNREADABLE, first_line, open_image, require_single

logger = logging.getLogger(__name__)
_BLACK, _WHITE = 32, 223
"""Gray values below and above which a pixel of a mask is black or white, whatever its file format did to it."""
_TINT = 8
"""Largest difference of the channels of a pixel of a black-and-white mask, after a video or JPEG."""
_EDGE_SHARE, _PEAK = 0.5, 3
"""Of a black-and-white mask: largest share of its soft edges, and how far noise goes from its black and its white."""
_LABEL_SHARE = 0.01
"""Share of the pixels from which a gray value that fills areas is a label beyond doubt."""
_PHOTO_GRAYS, _PHOTO_FLAT = 64, 0.2
"""More gray values, and a smaller share of flat areas, than label images have."""
BLACK_AND_WHITE = "vidseg: %s black and white: 255 (white) is read as class 1, not as unknown."
"""What people are told where white is no void."""
_REMEDY = "Save it in black and white, or as a PNG whose values are labels."


class Picture(NamedTuple):
    """A picture that shows labels: ``(H,W)`` uint8 gray or ``(H,W,3)`` uint8 RGB, unless ``labels`` are certain."""

    levels: Tensor
    labels: Tensor | None = None  # (H,W) uint8: indices of a palette image
    is_lossy: bool = False  # a JPEG


class LabelReader:
    """The rules by which pictures show labels. They are chosen for all pictures of a set together, by `look`.

    - an indexed image: the index; in VidSeg's colors, however an editor sorted them: their labels;
    - black and white, also with soft edges or from a JPEG: 0 and 1, parted in the middle;
    - gray: the gray value, where 255 is void;
    - the colors of VidSeg's palette: their labels;
    - other flat colors: numbered in the order of their RGB values;
    - else, as a photo, refused: no object becomes void without a word.
    """

    def __init__(self, name: str, *, flat_colors: bool = True) -> None:
        """Name the input in messages; without ``flat_colors`` other colors than VidSeg's are refused."""
        self._name, self._flat_colors = name, flat_colors
        self._grays, self._flat = torch.zeros(256, dtype=torch.int64), torch.zeros(256, dtype=torch.int64)
        self._colors: set[int] = set()
        self._is_gray, self._is_tinted, self._is_lossy = True, True, False

    def look(self, picture: Picture) -> None:
        """Take a picture of the set into account."""
        if picture.labels is not None:
            return
        gray, spread = picture.levels, 0
        if picture.levels.ndim == 3:
            gray = picture.levels.amax(-1)
            spread = int((gray - picture.levels.amin(-1)).max())
        self._is_gray, self._is_tinted = self._is_gray and spread == 0, self._is_tinted and spread <= _TINT
        self._is_lossy = self._is_lossy or picture.is_lossy
        self._grays += torch.bincount(gray.flatten(), minlength=256)
        self._flat += torch.bincount(gray[1:-1, 1:-1][_find_flat(gray)], minlength=256)
        if len(self._colors) <= MAX_LABEL:
            self._colors.update(torch.unique(_encode_colors(picture.levels)).tolist())

    def read(self, picture: Picture) -> Tensor:
        """Return the labels ``(H,W)`` uint8 of a picture of the set."""
        if picture.labels is not None:
            return picture.labels
        gray = picture.levels if picture.levels.ndim == 2 else picture.levels.amax(-1)
        if self.is_black_and_white():
            return (gray > VOID // 2).to(torch.uint8)
        if self._is_gray:
            self._check_grays()
            return gray
        return self._read_colors(picture.levels)

    def is_black_and_white(self) -> bool:
        """Tell whether white is label 1, not void."""
        used = self._grays.nonzero().flatten().tolist()
        if set(used) <= {0, VOID}:
            return self._is_tinted and VOID in used
        black, white, edges = self._grays[:_BLACK], self._grays[_WHITE + 1 :], self._grays[_BLACK : _WHITE + 1]
        if not self._is_tinted or self.shows_palette() or not (black.any() and white.any()):
            return False
        if len(used) == 2:  # a black that is not exactly 0, a white that is not exactly 255
            return True
        num_pixels = int(self._grays.sum())
        if not self._grays[VOID // 2 + 1 : VOID].any() or int(edges.sum()) > _EDGE_SHARE * num_pixels:
            return False
        sure = (self._flat > 0) & (self._grays >= _LABEL_SHARE * num_pixels)
        for peak in (int(black.argmax()), _WHITE + 1 + int(white.argmax())):
            sure[max(0, peak - _PEAK) : peak + _PEAK + 1] = False
        if sure.any():
            return False
        if not self._flat[_BLACK : _WHITE + 1].any():
            return True
        raise InputError(
            f"`{self._name}` must be black and white or hold labels, but has small gray areas between. {_REMEDY}"
        )

    def _check_grays(self) -> None:
        """Refuse gray pictures whose values are no labels; say where white is void beside other bright values."""
        used = self._grays > 0
        is_photo = int(used.sum()) > _PHOTO_GRAYS and int(self._flat.sum()) < _PHOTO_FLAT * int(self._grays.sum())
        if is_photo or (self._is_lossy and int(used.sum()) > 1):
            raise InputError(
                f"`{self._name}` must be black and white or hold labels, but has {int(used.sum())} gray values as in a "
                f"photo or a JPEG. {_REMEDY}"
            )
        if used[VOID] and used[2 * _BLACK : VOID].any():
            logger.warning("vidseg: %s: gray values are read as labels, and 255 (white) as unknown.", self._name)

    def shows_palette(self) -> bool:
        """Tell whether all colors are of VidSeg's palette."""
        return self._colors <= _PALETTE_LABELS.keys()

    def _read_colors(self, levels: Tensor) -> Tensor:
        if len(self._colors) > MAX_LABEL or self._is_lossy:
            count = len(self._colors) if len(self._colors) <= MAX_LABEL else f"more than {MAX_LABEL}"
            raise InputError(
                f"`{self._name}` must show labels as at most {MAX_LABEL} flat colors, but got {count} colors"
                f"{' of a JPEG' if self._is_lossy else ''}. Use a PNG label image, not a photo or a JPEG."
            )
        if not (self._flat_colors or self.shows_palette()):
            raise InputError(
                f"`{self._name}` must be an 8-bit palette or gray PNG whose values are labels, but has other colors. "
                "Save it as an indexed image."
            )
        codes, indices = torch.unique(_encode_colors(levels), return_inverse=True)
        known = _PALETTE_LABELS if self.shows_palette() else {code: n for n, code in enumerate(sorted(self._colors))}
        return torch.tensor([known[code] for code in codes.tolist()], dtype=torch.uint8)[indices]


def _find_flat(gray: Tensor) -> Tensor:
    """Return which inner pixels of ``(H,W)`` have the value of all eight neighbors, boolean ``(H-2,W-2)``."""
    if min(gray.shape) < 3:
        return torch.zeros(tuple(max(0, side - 2) for side in gray.shape), dtype=torch.bool)
    rows = (gray[:, 1:-1] == gray[:, :-2]) & (gray[:, 1:-1] == gray[:, 2:])
    same = (gray[1:-1, 1:-1] == gray[:-2, 1:-1]) & (gray[1:-1, 1:-1] == gray[2:, 1:-1])
    return rows[:-2] & rows[1:-1] & rows[2:] & same


def _encode_colors(levels: Tensor) -> Tensor:
    """Return gray ``(...)`` or RGB ``(...,3)`` uint8 as one number per pixel, int32."""
    channels = (levels,) * 3 if levels.ndim == 2 else levels.unbind(-1)
    red, green, blue = (channel.to(torch.int32) for channel in channels)
    return (red << 16) + (green << 8) + blue


_PALETTE_LABELS = {int(code): label for label, code in enumerate(_encode_colors(PALETTE[None])[0])}


def read_labels(path: Path, name: str) -> Tensor:
    """Return the labels ``(H,W)`` uint8 of a mask or label image by the rules of `LabelReader`."""
    return next(read_label_set([path], name)[1])


def find_label_rules(paths: Iterable[Path], name: str, *, flat_colors: bool = True) -> LabelReader:
    """Return the rules of masks or label images that belong together; say so where white is a class."""
    rules = LabelReader(name, flat_colors=flat_colors)
    for path in paths:
        rules.look(open_picture(path, name))
    if rules.is_black_and_white():
        logger.warning(BLACK_AND_WHITE, "the masks are")
    return rules


def read_label_set(paths: Sequence[Path], name: str) -> tuple[LabelReader, Iterator[Tensor]]:
    """Return the rules of masks or label images that belong together, and their labels ``(H,W)`` uint8 one by one."""
    rules = find_label_rules(paths, name)
    return rules, (rules.read(open_picture(path, name)) for path in paths)


def read_label_values(path: Path, name: str) -> Tensor:
    """Return the labels ``(H,W)`` uint8 of a file whose values are labels for certain: nothing is guessed.

    The index of a palette image, the value of a gray one; VidSeg's colors, as editors save them, are their labels.
    """
    picture = open_picture(path, name)
    if picture.labels is not None:
        return picture.labels
    if picture.levels.ndim == 2:
        return picture.levels
    reader = LabelReader(f"{name}: {path.name}", flat_colors=False)
    reader.look(picture)
    return reader.read(picture)


def make_label_image(label_map: Tensor) -> Image.Image:
    """Return ``label_map`` ``(H,W)`` uint8 as a palette image whose index is the label."""
    image = Image.fromarray(label_map.cpu().numpy().astype(np.uint8))
    image.putpalette(PALETTE.flatten().tolist())
    return image


def open_picture(path: Path, name: str) -> Picture:
    """Return a file that shows labels; ``name`` is what messages call it."""
    if not path.is_file():
        raise InputError(f"`{name}` must be a label image, but {path} does not exist. Check the path.")
    try:
        with open_image(path) as opened:
            require_single(opened, path, name)
            is_lossy = opened.format in {"JPEG", "MPO"}
            image = ImageOps.exif_transpose(opened)
            image.load()
    except InputError as error:
        raise InputError(error.told({"input": name})) from error
    except UNREADABLE as error:
        raise InputError(
            f"`{name}` must be a readable image, but {path} is not: {first_line(error)}. Write it again."
        ) from error
    if image.mode == "P":
        return _read_indexed(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return Picture(_narrow(np.array(image), path, name))
    if "A" in image.getbands() and (np.asarray(image.getchannel("A")) < VOID).any():
        colors = np.asarray(image.convert("RGB"))
        if (colors == colors[0, 0]).all():
            raise InputError(
                f"`{name}` must show a mask in its colors, but {path.name} has it in its transparency. {_REMEDY}"
            )
    image = image.convert("L" if image.mode in {"1", "L", "LA"} else "RGB")
    return Picture(torch.from_numpy(np.array(image)), is_lossy=is_lossy)


def _read_indexed(image: Image.Image) -> Picture:
    """Return an image of mode P: labels, unless its palette is that of a black-and-white or gray picture."""
    indices = torch.from_numpy(np.array(image))
    palette = torch.tensor(image.getpalette() or [], dtype=torch.uint8).reshape(-1, 3)
    used = torch.tensor(image.histogram()).nonzero()[:, 0]  # much quicker than `unique`
    if int(used[-1]) >= len(palette):
        return Picture(indices, indices)
    codes = _encode_colors(palette[None])[0]
    if all(code in _PALETTE_LABELS for code in codes[used].tolist()):
        table = torch.tensor([_PALETTE_LABELS.get(code, VOID) for code in codes.tolist()], dtype=torch.uint8)
        return Picture(indices, indices if torch.equal(table[used].long(), used) else table[indices.long()])
    gray = palette[:, 0]
    if (palette == gray[:, None]).all() and len(torch.unique(gray[used])) == len(used):
        picture = Picture(gray[indices.long()])
        alone = LabelReader("mask")
        alone.look(picture)
        is_plain = bool(((gray < _BLACK) | (gray > _WHITE)).all()) or torch.equal(gray[used].long(), used)
        if is_plain or alone.is_black_and_white():
            return picture
    return Picture(indices, indices)


def _narrow(values: NDArray[np.generic], path: Path, name: str) -> Tensor:
    """Return the gray values of an image of more than 8 bits as uint8: as they are, or black and white."""
    if np.isin(values, (0, 65535)).all():
        values = values // 65535 * VOID
    if not np.isin(values, np.arange(256)).all():
        raise InputError(
            f"`{name}` must hold labels from 0 to {VOID}, but {path.name} has {values.dtype} values beyond. {_REMEDY}"
        )
    return torch.from_numpy(values.astype(np.uint8))
