"""What is checked of first labels and output before any long work."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from torch import Tensor

from ..types import VOID, SettingError
from .clip import FRAMES_FOLDER
from .label_images import BLACK_AND_WHITE, LabelReader, Picture, open_picture
from .result_folder import LABELS_FOLDER, LEGEND_FILE, OVERLAY_FILE

logger = logging.getLogger(__name__)


def check_apart(source: Path, out: Path) -> None:
    """Check that a result in ``out`` neither lies among the frames of ``source`` nor replaces them."""
    inner = source / FRAMES_FOLDER
    read = {inner.resolve()} if inner.is_dir() else {inner.resolve(), source.resolve()}
    written = {path.resolve() for path in (out, out / LABELS_FOLDER, out / OVERLAY_FILE, out / LEGEND_FILE)}
    if read & written:
        got = f"{out}, where a result would change what is read from {source}"
        raise SettingError("out", "lie apart from the frames", got, "Choose another folder")


def read_anchor_mask(path: Path | None, *, new_regions: bool) -> tuple[Tensor | None, str | None]:
    """Return the labels ``(H,W)`` uint8 of the first frame as `prepare_anchor_mask` does, and the file's SHA-256."""
    if path is None:
        return None, None
    labels = prepare_anchor_mask(open_picture(path, "anchor_mask"), path.name, new_regions=new_regions)
    return labels, hashlib.sha256(path.read_bytes()).hexdigest()


def prepare_anchor_mask(picture: Picture | Tensor, title: str, *, new_regions: bool) -> Tensor:
    """Return the labels ``(H,W)`` uint8 of a picture of the first frame, by the rules of `LabelReader`.

    Pixels of one value alone are refused, unless ``new_regions`` lets things that enter later become regions.
    """
    picture = picture if isinstance(picture, Picture) else Picture(picture)
    reader = LabelReader("anchor_mask")
    reader.look(picture)
    labels, is_black_and_white = reader.read(picture), reader.is_black_and_white()
    values = torch.unique(labels).tolist()
    is_white = values == [VOID] or (is_black_and_white and values == [1])
    if is_white or (len(values) == 1 and not new_regions):
        got = f"{title}, of which every pixel is {f'{VOID} (unknown, or white)' if is_white else values[0]}"
        raise SettingError("anchor_mask", "tell regions apart", got, "Give the label image of the first frame")
    if is_black_and_white:
        logger.warning(BLACK_AND_WHITE, f"{title} is")
    return labels


def check_mask_size(labels: Tensor | None, frame_size: tuple[int, int]) -> None:
    """Check that the label image ``(H,W)`` of the first frame, if there is one, has the size of the frames."""
    if labels is not None and tuple(labels.shape) != frame_size:
        sizes = [f"{width}x{height}" for height, width in (frame_size, labels.shape)]
        limit, remedy = f"have the size of the frames, {sizes[0]}", "Give the label image of the first frame"
        raise SettingError("anchor_mask", limit, sizes[1], remedy)
