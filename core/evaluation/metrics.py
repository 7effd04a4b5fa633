"""Scores of label maps against ground truth: mIoU, video consistency, boundary F, flicker (paper 5.1).

Label 255 in the ground truth is void: such pixels count for nothing. Each measure is a pure function with a small
class that gathers it over clips.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from scipy.ndimage import distance_transform_edt
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..types import MAX_LABEL, VOID, InputError, require_shape

Agreement = Literal["correct", "constant"]
CONSISTENCY: Mapping[str, tuple[int, Agreement]] = {
    "mVC8": (8, "constant"), "mVC16": (16, "constant"), "mVC8 right": (8, "correct"), "mVC16 right": (16, "correct")
}  # fmt: skip
"""What is measured under each name: frames of a run, and which of them count; see `compute_video_consistency`."""
_NUM_LABELS = MAX_LABEL + 1
_CHUNK = 1 << 20
"""Pixels that are counted together: eight bytes each, however long the clip."""
_BOUNDARY_TOLERANCE = 0.008
"""Share of the picture's diagonal by which boundaries may be off (DAVIS)."""


def count_confusion(prediction: Tensor, truth: Tensor) -> Tensor:
    """Count pixels by true (rows) and predicted label, ``(256,256)`` int64, but those whose truth is void."""
    _require_same_shape(prediction, truth)
    counts = torch.zeros(_NUM_LABELS**2, dtype=torch.int64)
    for seen, real in zip(torch.split(prediction.flatten(), _CHUNK), torch.split(truth.flatten(), _CHUNK), strict=True):
        valid = real != VOID
        codes = real[valid].long() * _NUM_LABELS + seen[valid].long()
        counts += torch.bincount(codes, minlength=_NUM_LABELS**2).cpu()
    return counts.view(_NUM_LABELS, _NUM_LABELS)


def compute_class_ious(matrix: Tensor) -> dict[int, float]:
    """Return intersection over union of each label that occurs in the ground truth of a confusion matrix.

    A label that is predicted but never true gets no value of its own: its pixels already lower the labels they were
    taken from. A label that is true but never predicted has 0.

    >>> compute_class_ious(count_confusion(torch.tensor([1, 1, 2, 7]), torch.tensor([1, 2, 2, 2])))
    {1: 0.5, 2: 0.3333333333333333}
    """
    true, predicted, hits = matrix.sum(1), matrix.sum(0), matrix.diagonal()
    unions = true + predicted - hits
    return {int(label): int(hits[label]) / int(unions[label]) for label in true.nonzero()[:, 0]}


def compute_mean_iou(matrix: Tensor) -> float:
    """Return the mean of `compute_class_ious` of a confusion matrix summed over the whole data set."""
    ious = compute_class_ious(matrix)
    if not ious:
        raise InputError("`truth` must hold labeled pixels, but all are void (255). Check the folder of masks.")
    return sum(ious.values()) / len(ious)


def compute_matched_mean_iou(matrix: Tensor) -> float:
    """Return mIoU after matching true and predicted labels one to one so that it is largest (Hungarian method).

    The numbers of predicted labels do not matter, as where clusters have no names. A true label that is left without
    a partner, because there are fewer predicted ones, has 0.

    >>> compute_matched_mean_iou(count_confusion(torch.tensor([5, 5, 9, 9]), torch.tensor([1, 1, 2, 3])))
    0.5
    """
    true, predicted = matrix.sum(1), matrix.sum(0)
    rows, columns = true.nonzero()[:, 0], predicted.nonzero()[:, 0]
    if not len(rows):
        raise InputError("`truth` must hold labeled pixels, but all are void (255). Check the folder of masks.")
    hits = matrix[rows][:, columns].double()
    ious = hits / (true[rows][:, None] + predicted[columns] - hits)
    return float(sum(ious[pair] for pair in zip(*linear_sum_assignment(-ious.numpy()), strict=True)) / len(rows))


class MeanIoU:
    """Gathers the confusion matrix of a data set (mIoU over all its pixels, not a mean over clips).

    Attributes:
        matrix: ``(256,256)`` int64, see `count_confusion`.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.matrix = torch.zeros((_NUM_LABELS, _NUM_LABELS), dtype=torch.int64)

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        """Add label maps of any shape."""
        self.matrix += count_confusion(prediction, truth)

    def compute(self) -> float:
        """Return mIoU; see `compute_mean_iou`."""
        return compute_mean_iou(self.matrix)


def compute_video_consistency(
    prediction: Tensor, truth: Tensor, length: int, agreement: Agreement
) -> tuple[float, ...]:
    """Return the consistency of each run of ``length`` consecutive frames of one clip (VC of VSPW, CVPR 2021).

    With S the ground truth and S' the prediction of the ``C`` frames of a clip, VSPW defines the mean over its
    ``C - length + 1`` runs of ``|(common area of S) and (common area of S')| / |common area of S|``, where the common
    area is the set of pixels that have the same label in all frames of the run. Here:

    - the denominator counts pixels whose truth is the same in all frames, void left out;
    - the numerator counts those of them where the prediction has any one label in all frames (``constant``, as
      VSPW's evaluation script counts, by which a prediction that never changes scores 1; mVC of the literature), or
      where it has the true label in all frames (``correct``, the formula read as labeled areas; "mVC right" here);
    - a run without such pixels has no value. VSPW's script also leaves out the last run of each clip and counts void
      as a label.
    """
    _require_same_shape(prediction, truth)
    require_shape("truth", truth, "T H W")
    consistency = VideoConsistency(length, agreement)
    for frames in zip(prediction, truth, strict=True):
        consistency.add(*frames)
    return tuple(consistency.shares)


class VideoConsistency:
    """Counts frame by frame what `compute_video_consistency` counts, over all runs of all clips.

    Attributes:
        shares: consistency of each run.
    """

    def __init__(self, length: int, agreement: Agreement) -> None:
        """Take runs of ``length`` frames."""
        if length < 2:
            raise InputError(f"`length` must be at least 2, but got {length}. VSPW uses 8 and 16.")
        self.shares: list[float] = []
        self._length, self._agreement = length, agreement
        self.restart()

    def restart(self) -> None:
        """Begin another clip, or go on behind frames that are not labeled."""
        self._before: tuple[Tensor, Tensor] | None = None
        self._steady, self._agreed = torch.zeros(2, 1, 1, dtype=torch.int32)
        """For how many frames up to the last one a condition has held."""

    def add(self, prediction: Tensor, truth: Tensor) -> None:
        """Add the next frame ``(H,W)`` of a clip."""
        predicted, real = self._before or (prediction, truth)
        self._before, valid = (prediction, truth), truth != VOID
        steady, agreed = (counter.to(truth.device) + 1 for counter in (self._steady, self._agreed))
        self._steady = torch.where(valid & (truth == real), steady, valid.int())
        if self._agreement == "correct":
            self._agreed = torch.where(prediction == truth, agreed, 0)
        else:
            self._agreed = torch.where(prediction == predicted, agreed, 1)
        common = self._steady >= self._length
        if total := int(common.sum()):
            self.shares.append(int((common & (self._agreed >= self._length)).sum()) / total)

    def compute(self) -> float | None:
        """Return mVC in [0, 1], the mean over all runs as VSPW takes it, or None where no clip had one."""
        return sum(self.shares) / len(self.shares) if self.shares else None


class RegionClasses:
    """Gives each region the class that most of its pixels have in the frame where it first occurs.

    Void pixels of the truth do not count; a region is void as long as it lies on void alone.
    """

    def __init__(self, known: Collection[int] = ()) -> None:
        """Let ``known`` labels, which are classes already, stay."""
        self._table = torch.full((_NUM_LABELS,), VOID, dtype=torch.uint8)
        self._found = torch.zeros(_NUM_LABELS, dtype=torch.bool)
        self._table[list(known)] = torch.tensor(list(known), dtype=torch.uint8)
        self._found[list(known)] = True

    def look(self, labels: Tensor, truth: Tensor) -> None:
        """Take the next frame ``(H,W)`` into account."""
        counts = torch.bincount(labels[truth != VOID].flatten(), minlength=_NUM_LABELS).cpu()
        for label in ((counts > 0) & ~self._found).nonzero().flatten().tolist():
            inside = truth[(labels == label) & (truth != VOID)]
            self._table[label] = int(torch.bincount(inside).argmax())
            self._found[label] = True

    def apply(self, labels: Tensor) -> Tensor:
        """Return a frame ``(H,W)`` of classes, uint8."""
        return self._table.to(labels.device)[labels.long()]


def match_regions(maps: Tensor, truth: Tensor, known: Collection[int] = ()) -> Tensor:
    """Replace regions ``(T,H,W)`` by classes as `RegionClasses` does, in all frames; ``known`` labels stay."""
    classes = RegionClasses(known)
    for labels, real in zip(maps, truth, strict=True):
        classes.look(labels, real)
    matched = torch.empty(maps.shape, dtype=torch.uint8, device=maps.device)
    for number, labels in enumerate(maps):
        matched[number] = classes.apply(labels)
    return matched


def compute_boundary_f_score(prediction: Tensor, truth: Tensor, tolerance: float = _BOUNDARY_TOLERANCE) -> float:
    """Return the F measure of the boundary of one region in one frame (DAVIS, CVPR 2016), of masks ``(H,W)`` bool.

    Precision is the share of the predicted boundary within the tolerance of the true one, recall the reverse, and F
    their harmonic mean. Both boundaries empty: 1; one empty: 0. Clear void pixels in both masks first. The tolerance
    is a share of the diagonal, rounded up to whole pixels.
    """
    _require_same_shape(prediction, truth)
    require_shape("truth", truth, "H W")
    ours, theirs = _find_boundary(prediction), _find_boundary(truth)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    precision = float((ours & find_near(theirs, tolerance)).sum() / ours.sum())
    recall = float((theirs & find_near(ours, tolerance)).sum() / theirs.sum())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def find_near(mask: Tensor, tolerance: float) -> Tensor:
    """Return the pixels ``(H,W)`` within that share of the diagonal, in whole pixels, of a mask that is not empty."""
    radius = math.ceil(tolerance * math.hypot(*mask.shape))
    return torch.from_numpy(distance_transform_edt(~mask.numpy(force=True)) <= radius).to(mask.device)


def _find_boundary(mask: Tensor) -> Tensor:
    """Return the pixels ``(H,W)`` of which the right, lower or lower right neighbor has another value."""
    padded = F.pad(mask[None, None].float(), (0, 1, 0, 1), mode="replicate")[0, 0].bool()
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


def _require_same_shape(prediction: Tensor, truth: Tensor) -> None:
    """Check that label maps have the same shape."""
    if prediction.shape != truth.shape:
        raise InputError(
            f"`prediction` must have the shape of `truth` {tuple(truth.shape)}, but got {tuple(prediction.shape)}. "
            "Resize the label maps by nearest neighbor."
        )
