"""The baseline `slic`: supervoxels of the whole clip by color and place (SLIC, Achanta et al. 2012), scikit-image's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..config.settings import Settings
from ..method.frames import FrameSource, fit_frames
from ..method.pipeline import WindowResult
from ..method.windows import split_windows
from ..regions.labels import assign_clusters
from ..types import MAX_LABEL, InputError, LabelMaps, Progress, Region, SettingError, no_progress

SLIC_COMPACTNESS = 10.0
"""Weight of place beside color (CIELAB): scikit-image's default; frames count as far apart as pixels."""
MAX_VOXELS = 1 << 26
"""Pixels of a clip that are divided at once, about 60 bytes each."""


def require_slic() -> Callable[..., Any]:
    """Return scikit-image's ``slic``; it is an optional package."""
    try:
        from skimage.segmentation import slic  # noqa: PLC0415, an optional package
    except ImportError as error:
        raise InputError(
            "The baseline 'slic' must find scikit-image, but it is not installed. pip install 'scikit-image>=0.22'."
        ) from error
    found: Callable[..., Any] = slic
    return found


def segment_by_slic(
    source: FrameSource, settings: Settings, *, reference: Tensor | None = None, progress: Progress = no_progress
) -> Iterator[WindowResult]:
    """Segment a clip by 3D SLIC over all its frames at once, at the size of ``settings.frame``; yield its windows.

    About ``settings.cluster.num_clusters`` connected supervoxels: SLIC starts from a regular grid, so their number is
    only near what was asked for. With a ``reference`` ``(H,W)`` each gets the class of most of its pixels in the first
    frame; those that are not there get that of the first one. Label maps are enlarged by nearest neighbor.
    """
    slic, count = require_slic(), settings.cluster.num_clusters
    if count == 0:
        raise SettingError("cluster.num_clusters", "be at least 1 for this baseline", 0, "Choose a number")
    windows = split_windows(source.num_frames, settings.window, settings.variant)
    pixels, size = _read_clip(source, settings, windows)
    progress("features", 0, 1)
    found = slic(pixels, count, SLIC_COMPACTNESS, channel_axis=-1, start_label=0)
    labels = torch.from_numpy(np.unique(found, return_inverse=True)[1].reshape(found.shape))
    if int(labels.max()) > MAX_LABEL:
        got = f"{count}, which SLIC made {int(labels.max()) + 1}"
        raise SettingError("cluster.num_clusters", f"give at most {MAX_LABEL + 1} regions", got, "Choose fewer")
    table, regions = _name(_enlarge(labels[:1], size)[0], int(labels.max()) + 1, reference)
    progress("features", 1, 1)
    for window in windows:
        maps = table[_enlarge(labels[window.start : window.stop], size).long()]
        yield WindowResult(window, LabelMaps(maps, regions))


def _read_clip(source: FrameSource, settings: Settings, windows: list[range]) -> tuple[Any, tuple[int, int]]:
    """Return all frames ``(T,H,W,3)`` float32 as they are processed, and the size ``(H,W)`` of the clip's."""
    parts: list[Tensor] = []
    size = (0, 0)
    for window in windows:
        frames = source.read(window.start, window.stop)
        size = int(frames.shape[1]), int(frames.shape[2])
        parts.append(fit_frames(frames, settings))
        height, width = parts[0].shape[1:3]
        if source.num_frames * height * width > MAX_VOXELS:
            raise InputError(
                f"The baseline 'slic' must hold the whole clip, at most {MAX_VOXELS} pixels, but {source.num_frames} "
                f"frames of {width}x{height} are more. Process smaller frames (--max-side) or fewer."
            )
    return torch.cat(parts).numpy(), size


def _enlarge(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return labels ``(T,h,w)`` in the size of the clip, uint8 ``(T,H,W)``."""
    return F.interpolate(labels[:, None].to(torch.uint8), size, mode="nearest-exact")[:, 0]


def _name(first: Tensor, count: int, reference: Tensor | None) -> tuple[Tensor, tuple[Region, ...]]:
    """Return the label of each supervoxel ``(K,)`` uint8, and the regions."""
    if reference is None:
        return torch.arange(count, dtype=torch.uint8), tuple(Region(label, f"region {label}") for label in range(count))
    labels, regions = assign_clusters(first.long(), reference)
    table = labels.flatten()[:1].repeat(count)
    table[first.flatten().long()] = labels.flatten()
    return table.to(torch.uint8), regions
