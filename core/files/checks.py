"""What is checked of frames, first labels and output before any long work."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from torch import Tensor

from ..config.settings import Settings
from ..method.frames import coarse_grid, fit_size
from ..types import VOID, InputError
from .clip import FRAMES_FOLDER
from .images import is_black_and_white, read_labels
from .result_folder import LABELS_FOLDER, LEGEND_FILE, OVERLAY_FILE

logger = logging.getLogger(__name__)


def check_apart(source: Path, out: Path) -> None:
    """Check that a result in ``out`` neither lies among the frames of ``source`` nor replaces them.

    Raises:
        InputError: it does.
    """
    inner = source / FRAMES_FOLDER
    read = {inner.resolve()} if inner.is_dir() else {inner.resolve(), source.resolve()}
    written = {path.resolve() for path in (out, out / LABELS_FOLDER, out / OVERLAY_FILE, out / LEGEND_FILE)}
    if read & written:
        raise InputError(
            f"`--out` must lie apart from the frames, but a result in {out} would change what is read from {source}. "
            "Choose another folder."
        )


def check_tokens(frame_size: tuple[int, int], num_frames: int, settings: Settings) -> None:
    """Check that K-means will see as many tokens of ``num_frames`` frames ``(H,W)`` as there are clusters."""
    tokens = coarse_grid(fit_size(frame_size, settings.frame)).num_tokens
    if settings.cluster.fit_frames == "window":
        tokens *= min(settings.window.length, num_frames)
    if settings.cluster.num_clusters > tokens:
        raise InputError(
            f"`cluster.num_clusters` must be at most the number of tokens, {tokens}, but got "
            f"{settings.cluster.num_clusters}. Choose fewer clusters or larger frames."
        )


def read_anchor_mask(path: Path | None, *, new_regions: bool) -> tuple[Tensor | None, str | None]:
    """Return the label image ``(H,W)`` uint8 of the first frame as `prepare_anchor_mask` does, and its SHA-256."""
    if path is None:
        return None, None
    labels = prepare_anchor_mask(read_labels(path, "anchor_mask"), path.name, new_regions=new_regions)
    return labels, hashlib.sha256(path.read_bytes()).hexdigest()


def prepare_anchor_mask(labels: Tensor, title: str, *, new_regions: bool) -> Tensor:
    """Return labels ``(H,W)`` uint8 of the first frame, of which white in black and white is label 1.

    Pixels of one value alone are refused, unless ``new_regions`` lets things that enter later become regions.
    """
    values = torch.unique(labels).tolist()
    if values == [VOID] or (len(values) == 1 and not new_regions):
        raise InputError(
            f"`anchor_mask` must tell regions apart, but every pixel of {title} is {values[0]}"
            f"{' (unknown, or white)' if values == [VOID] else ''}. Give the label image of the first frame."
        )
    if not is_black_and_white(labels):
        return labels
    logger.warning("vidseg: %s is black and white: 255 (white) is read as class 1, not as unknown.", title)
    return labels // VOID


def check_mask_size(labels: Tensor | None, frame_size: tuple[int, int]) -> None:
    """Check that the label image ``(H,W)`` of the first frame, if there is one, has the size of the frames.

    Raises:
        InputError: it has not.
    """
    if labels is not None and tuple(labels.shape) != frame_size:
        sizes = [f"{width}x{height}" for height, width in (frame_size, labels.shape)]
        raise InputError(
            f"`anchor_mask` must have the size of the frames, {sizes[0]}, but it is {sizes[1]}. "
            "Give the label image of the first frame."
        )
