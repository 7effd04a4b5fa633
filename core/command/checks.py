"""What `vidseg segment` checks of its input before any long work."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from torch import Tensor

from ..config.settings import Settings
from ..evaluation.baselines import Baseline
from ..files.clip import FRAMES_FOLDER, ClipInfo
from ..files.images import is_black_and_white, read_labels
from ..files.result_folder import LABELS_FOLDER, LEGEND_FILE, OVERLAY_FILE
from ..method.frames import coarse_grid, fit_size
from ..types import VOID, InputError, SettingError

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


def check_tokens(clip: ClipInfo, settings: Settings, baseline: Baseline | None) -> None:
    """Check that K-means will see at least as many tokens as there are clusters.

    Raises:
        InputError: it will not.
    """
    tokens = coarse_grid(fit_size(clip.frame_size, settings.frame)).num_tokens
    if settings.cluster.fit_frames == "window" and baseline != "frame":
        tokens *= min(settings.window.length, clip.num_frames)
    if settings.cluster.num_clusters > tokens:
        limit = f"be at most the number of tokens, {tokens}"
        remedy = "Choose fewer clusters or larger frames"
        raise SettingError("cluster.num_clusters", limit, settings.cluster.num_clusters, remedy)


def read_anchor_mask(path: Path | None, *, new_regions: bool) -> tuple[Tensor | None, str | None]:
    """Return the label image of the first frame, of which white in black and white is label 1, and its SHA-256.

    Args:
        path: PNG file, or None.
        new_regions: whether things that enter later become regions; the first frame may then be of one class.

    Raises:
        InputError: the file is no label image, or every pixel has the same value.
    """
    if path is None:
        return None, None
    labels = read_labels(path, "--anchor-mask")
    values = torch.unique(labels).tolist()
    if values == [VOID] or (len(values) == 1 and not new_regions):
        raise InputError(
            f"`--anchor-mask` must tell regions apart, but every pixel of {path.name} is {values[0]}"
            f"{' (unknown, or white)' if values == [VOID] else ''}. Give the label image of the first frame."
        )
    if is_black_and_white(labels):
        logger.warning("vidseg: %s is black and white: 255 (white) is read as class 1, not as unknown.", path.name)
        labels = labels // VOID
    return labels, hashlib.sha256(path.read_bytes()).hexdigest()


def check_mask_size(labels: Tensor | None, frame_size: tuple[int, int]) -> None:
    """Check that the label image ``(H,W)`` of the first frame, if there is one, has the size of the frames.

    Raises:
        InputError: it has not.
    """
    if labels is not None and tuple(labels.shape) != frame_size:
        sizes = [f"{width}x{height}" for height, width in (frame_size, labels.shape)]
        raise InputError(
            f"`--anchor-mask` must have the size of the frames, {sizes[0]}, but it is {sizes[1]}. "
            "Give the label image of the first frame."
        )
