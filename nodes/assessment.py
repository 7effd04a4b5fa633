"""What the score node computes: with masks, and without."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..core.config.parts import RefinementConfig
from ..core.evaluation.metrics import CONSISTENCY, class_ious, confusion_matrix, mean_iou, stand_ins, video_consistency
from ..core.method.correspondence import match_cells, within_threshold
from ..core.types import Features, InputError
from .wires import Labels

UNMEASURED = -1.0
"""Stands for a value that cannot be measured, such as mVC16 of a clip of 10 frames."""
MAX_LISTED = 8
"""Frames and regions listed in a report at most."""


def require_something_to_measure(labels: Labels, has_masks: bool, features: object) -> None:
    """Check that there is something to measure against.

    Raises:
        InputError: neither masks nor features, or features of another clip.
    """
    if not has_masks and features is None:
        raise InputError(
            "`masks` or `features` must be connected for these labels, but got neither. Connect the features of the "
            "clip to measure consistency, or ground-truth masks."
        )
    if isinstance(features, Features) and features.num_frames != labels.num_frames:
        raise InputError(
            f"`features` must have as many frames as `labels`, {labels.num_frames}, but got {features.num_frames}. "
            "Wire the features of the same clip."
        )


def against_masks(labels: Labels, truth: Tensor, match: str) -> tuple[list[str], tuple[float, float, float]]:
    """Return a report and (mIoU, mVC8, mVC16) of ``labels`` against label maps ``truth`` ``(T,H,W)`` uint8.

    Raises:
        InputError: another number of frames.
    """
    if len(truth) != labels.num_frames:
        raise InputError(
            f"`masks` must have one mask for each of the {labels.num_frames} frames, but got {len(truth)}. "
            "Load masks and video with the same number of frames."
        )
    maps = labels.full().maps
    if truth.shape != maps.shape:
        truth = F.interpolate(truth[:, None].float(), maps.shape[1:], mode="nearest-exact")[:, 0].to(torch.uint8)
    if match == "first frame":
        maps = stand_ins(maps, truth)
    matrix = confusion_matrix(maps, truth)
    consistency = {name: _mean(video_consistency(maps, truth, *run)) for name, run in CONSISTENCY.items()}
    values = {"mIoU": mean_iou(matrix), **consistency}
    lines = [f"{name:<11} {_text(value)}" for name, value in values.items()]
    lines += [f"IoU of class {label}: {iou:.3f}" for label, iou in class_ious(matrix).items()]
    return lines, (values["mIoU"], values["mVC8"], values["mVC16"])


def along_correspondences(labels: Labels, features: object) -> tuple[list[str], float]:
    """Return a report and the share of matched cells that keep their region from one frame to the next."""
    if not isinstance(features, Features) or features.num_frames < 2:
        return ["one frame alone: nothing to compare from frame to frame"], UNMEASURED
    config = RefinementConfig()
    maps = labels.on_grid((features.grid.h, features.grid.w)).flatten(1)
    matches = match_cells(features.matching, config)
    good = within_threshold(matches, features.grid, config)
    kept = maps[:-1] == maps[1:].gather(1, matches)
    flips = (good & ~kept).sum(1)
    agreement = float((good & kept).sum() / good.sum().clamp_min(1))
    lines = [f"agreement along correspondences: {agreement:.3f} (the same spot keeps its region from frame to frame)"]
    worst = [int(frame) for frame in flips.argsort(descending=True) if flips[frame] > 0][:MAX_LISTED]
    for frame in worst:
        lost = _flipping(maps[frame], good[frame] & ~kept[frame], labels)
        lines.append(f"frame {frame} to {frame + 1}: {int(flips[frame])} cells flip, {lost}")
    return lines if worst else [*lines, "no region flips"], agreement


def _flipping(cells: Tensor, flips: Tensor, labels: Labels) -> str:
    """Return the regions that lose most cells, in words."""
    names = {region.label: region.name for region in labels.regions}
    found, counts = torch.unique(cells[flips], return_counts=True)
    order = counts.argsort(descending=True)[:3]
    return "mostly of " + ", ".join(f"{int(found[i])} ({names.get(int(found[i]), '?')})" for i in order)


def _mean(shares: tuple[float, ...]) -> float:
    return sum(shares) / len(shares) if shares else UNMEASURED


def _text(value: float) -> str:
    return "not measured (too few frames)" if value == UNMEASURED else f"{value:.3f}"
