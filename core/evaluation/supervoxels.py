"""Measures of regions without names: how well they could be put together to what is true (LIBSVX, Xu and Corso 2016).

"LIBSVX: A Supervoxel Library and Benchmark for Early Video Processing", IJCV 119, and its code (svxbench). A region is
all that has one label, in all frames; a class is all that has one true label; volumes are numbers of pixels. Void
(255) in the truth counts for nothing. All but boundaries and duration follow from one confusion matrix of
`metrics.count_confusion`, classes in rows, regions in columns. Every mean over classes weighs them equally.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..regions.labels import count_pixels
from ..types import VOID, InputError, require_shape
from .metrics import compute_mean_iou, count_confusion, find_near

RECALL_TOLERANCE = 0.0025
"""Share of the diagonal by which boundaries may be off (Stutz et al. 2018, of superpixels); LIBSVX allows nothing."""


class Information(NamedTuple):
    """Variation of information in bits, both 0 for the same partition.

    Attributes:
        split: entropy of the regions where the class is known: classes in many pieces.
        merged: entropy of the classes where the region is known: pieces of many classes.
    """

    split: float
    merged: float

    @property
    def total(self) -> float:
        """Variation of information, a distance between partitions."""
        return self.split + self.merged


class RegionScores(NamedTuple):
    """Measures of regions without names; shares in [0, 1].

    Attributes:
        regions: number of labels that occur.
        accuracy: see `compute_segmentation_accuracy`.
        recall: see `BoundaryRecall`; None where the truth has no boundary.
        drawn: share of the pixels that lie on a boundary of regions: what the recall costs.
        undersegmentation: see `compute_undersegmentation_error`; a ratio, 0 is best.
        best_miou: see `compute_best_mean_iou`.
        split: bits, see `Information`.
        merged: bits, see `Information`.
        duration: mean number of frames in which a region occurs, of the labeled ones.
    """

    regions: int
    accuracy: float
    recall: float | None
    drawn: float
    undersegmentation: float
    best_miou: float
    split: float
    merged: float
    duration: float

    def to_text(self) -> str:
        """Return lines with a unit each."""
        recall = "n/a" if self.recall is None else f"{100 * self.recall:.1f} %"
        return (
            f"regions, whatever their names: {self.regions}\n"
            f"  best label of each region, mIoU  {100 * self.best_miou:.1f} %\n"
            f"  3D segmentation accuracy         {100 * self.accuracy:.1f} %\n"
            f"  3D boundary recall               {recall} by {100 * self.drawn:.1f} % of all pixels\n"
            f"  3D undersegmentation error       {self.undersegmentation:.2f}\n"
            f"  variation of information         {self.split:.2f} (split) + {self.merged:.2f} (merged) bits\n"
            f"  mean duration                    {self.duration:.1f} labeled frames\n"
        )


def compute_segmentation_accuracy(matrix: Tensor) -> float:
    """Return 3D segmentation accuracy of a confusion matrix: the share of a class that whole regions can cover.

    A region covers a class if at least half of its volume lies in it. With ``n_cr`` the pixels of class ``c`` in region
    ``r``, the mean over classes of ``sum of n_cr over r with n_cr >= |r| / 2, divided by |c|``.

    >>> compute_segmentation_accuracy(count_confusion(torch.tensor([5, 5, 5, 9, 9]), torch.tensor([1, 1, 2, 2, 2])))
    0.8333333333333333
    """
    counts = _crop(matrix)
    covered = torch.where(2 * counts >= counts.sum(0), counts, 0).sum(1)
    return float((covered / counts.sum(1)).mean())


def compute_undersegmentation_error(matrix: Tensor) -> float:
    """Return 3D undersegmentation error of a confusion matrix: how far the regions that touch a class reach beyond it.

    The mean over classes of ``(sum of |r| over r with n_cr > 0, minus |c|) / |c|``. It has no upper bound, and one
    pixel is enough to touch: a small class in large regions rules it.

    >>> compute_undersegmentation_error(count_confusion(torch.tensor([5, 5, 5, 9]), torch.tensor([1, 1, 2, 2])))
    0.75
    """
    counts = _crop(matrix)
    touched = ((counts > 0) * counts.sum(0)).sum(1)
    return float((touched / counts.sum(1) - 1).mean())


def compute_best_mean_iou(matrix: Tensor) -> float:
    """Return mIoU of a confusion matrix where each region gets the class of most of its pixels over the whole clip.

    Ties go to the smaller class. It never falls when a region is split, so compare equal numbers of regions.

    >>> compute_best_mean_iou(count_confusion(torch.tensor([5, 5, 9, 9]), torch.tensor([1, 1, 2, 1])))
    0.375
    """
    named = torch.zeros_like(matrix)
    named.index_add_(1, matrix.argmax(0), matrix)
    return compute_mean_iou(named)


def name_by_best_class(maps: Tensor, truth: Tensor) -> Tensor:
    """Give regions ``(T,H,W)`` uint8 the class of most of their pixels; those that lie on void alone become void."""
    matrix = count_confusion(maps, truth)
    table = torch.where(matrix.sum(0) > 0, matrix.argmax(0), VOID).to(torch.uint8)
    return table.to(maps.device)[maps.long()]


def compute_variation_of_information(matrix: Tensor) -> Information:
    """Return variation of information of a confusion matrix (Meila 2007), by logarithms of base 2.

    >>> compute_variation_of_information(count_confusion(torch.tensor([5, 6, 7, 8]), torch.tensor([1, 1, 2, 2])))
    Information(split=1.0, merged=0.0)
    """
    counts = _crop(matrix)
    shares = counts / counts.sum()
    joint, classes, regions = (-float(torch.xlogy(part, part).sum()) for part in (shares, shares.sum(1), shares.sum(0)))
    bits = ((joint - entropy) / math.log(2) for entropy in (classes, regions))
    return Information(*(max(value, 0.0) for value in bits))


def compute_boundary_recall(prediction: Tensor, truth: Tensor, tolerance: float = RECALL_TOLERANCE) -> float | None:
    """Return 3D boundary recall of label maps ``(T,H,W)`` of consecutive frames; see `BoundaryRecall`."""
    require_shape("truth", truth, "T H W")
    recall = BoundaryRecall(tolerance)
    for number, maps in enumerate(zip(prediction, truth, strict=True)):
        recall.update(number, *maps)
    return recall.compute()


class _Frame(NamedTuple):
    """A frame whose next one is not known yet: label maps and the boundaries found so far, all ``(H,W)``."""

    number: int
    prediction: Tensor
    truth: Tensor
    ours: Tensor
    theirs: Tensor


class BoundaryRecall:
    """Gathers 3D boundary recall frame by frame: the share of the true boundary that is near one of regions.

    A pixel is boundary if one of its six neighbors, four in its frame and one each in the frames before and after,
    has another label; next to void the truth has none. Near is within ``tolerance`` times the diagonal in the same
    frame, rounded up to whole pixels; 0 is LIBSVX's own count. Frames that do not follow each other have no boundary
    between them. Recall alone rewards boundaries anywhere, so see `drawn` beside it.
    """

    def __init__(self, tolerance: float = RECALL_TOLERANCE) -> None:
        """Start empty."""
        self._tolerance = tolerance
        self._waiting: _Frame | None = None
        self._found = self._true = self._drawn = self._pixels = 0

    def update(self, number: int, prediction: Tensor, truth: Tensor) -> None:
        """Add the label maps ``(H,W)`` of the frame of that number; numbers rise."""
        valid = truth != VOID
        ours = _mark(prediction, torch.ones_like(valid))
        frame = _Frame(number, prediction, truth, ours, _mark(truth, valid))
        last = self._waiting
        if last is not None and last.number + 1 == number:
            moved = last.prediction != prediction
            changed = (last.truth != truth) & valid & (last.truth != VOID)
            for side in (last, frame):
                side.ours.logical_or_(moved)
                side.theirs.logical_or_(changed)
        self._count()
        self._waiting = frame

    def compute(self) -> float | None:
        """Return the share in [0, 1], or None where the truth has no boundary."""
        self._count()
        return self._found / self._true if self._true else None

    @property
    def drawn(self) -> float:
        """Share of the pixels that lie on a boundary of regions, where the truth is not void."""
        self._count()
        return self._drawn / self._pixels if self._pixels else 0.0

    def _count(self) -> None:
        """Count the frame that waits: its neighbors are known."""
        if self._waiting is None:
            return
        _, _, truth, ours, theirs = self._waiting
        valid = truth != VOID
        self._pixels += int(valid.sum())
        self._drawn += int((ours & valid).sum())
        self._true += int(theirs.sum())
        if theirs.any() and ours.any():
            self._found += int((theirs & find_near(ours, self._tolerance)).sum())
        self._waiting = None


class RegionTally:
    """Gathers all measures over the labeled frames of one clip, in memory that does not depend on their number."""

    def __init__(self) -> None:
        """Start empty."""
        self._matrix = torch.zeros((VOID + 1, VOID + 1), dtype=torch.int64)
        self._frames = torch.zeros(VOID + 1, dtype=torch.int64)
        self._recall = BoundaryRecall()

    def update(self, number: int, prediction: Tensor, truth: Tensor) -> None:
        """Add the label maps ``(H,W)`` uint8 of the frame of that number; numbers rise."""
        self._matrix += count_confusion(prediction, truth)
        self._frames += count_pixels(prediction[None])[0].cpu() > 0
        self._recall.update(number, prediction, truth)

    def compute(self) -> RegionScores:
        """Return the measures."""
        seen = self._frames[self._frames > 0]
        information = compute_variation_of_information(self._matrix)
        return RegionScores(
            len(seen),
            compute_segmentation_accuracy(self._matrix),
            self._recall.compute(),
            self._recall.drawn,
            compute_undersegmentation_error(self._matrix),
            compute_best_mean_iou(self._matrix),
            information.split,
            information.merged,
            float(seen.double().mean()),
        )


def _crop(matrix: Tensor) -> Tensor:
    """Return the rows and columns of a confusion matrix that hold pixels, float64."""
    rows, columns = matrix.sum(1) > 0, matrix.sum(0) > 0
    if not rows.any():
        raise InputError("`truth` must hold labeled pixels, but all are void (255). Check the folder of masks.")
    return matrix[rows][:, columns].double()


def _mark(labels: Tensor, valid: Tensor) -> Tensor:
    """Return the pixels ``(H,W)`` of which a neighbor in the frame has another label, both valid."""
    marked = torch.zeros_like(valid)
    for axis in range(2):
        near, far = (slice(None),) * axis + (slice(1, None),), (slice(None),) * axis + (slice(-1),)
        differ = (labels[near] != labels[far]) & valid[near] & valid[far]
        marked[near] |= differ
        marked[far] |= differ
    return marked
