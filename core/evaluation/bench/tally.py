"""What one clip adds to the scores of a data set, and the scores of one clip or of all; see the package's docstring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...documents import anything, number, record, sequence, table
from ...types import VOID, InputError
from ..metrics import (
    CONSISTENCY,
    Agreement,
    compute_boundary_f_score,
    compute_class_ious,
    compute_matched_mean_iou,
    compute_mean_iou,
    compute_video_consistency,
    count_confusion,
)

BOUNDARY_STRIDE = 5
"""Every fifth labeled frame is looked at for the boundary measure, which costs more than all others."""
VOID_NAME = "void"
"""Class of predicted labels that are no class of the clip."""


class Mean(NamedTuple):
    """A sum of values and what to divide it by, their number as a rule."""

    total: float = 0.0
    weight: float = 0.0

    def __add__(self, other: object) -> Mean:
        """Gather."""
        if not isinstance(other, tuple):
            return NotImplemented
        return Mean(self.total + other[0], self.weight + other[1])

    @property
    def value(self) -> float | None:
        """The mean, or None where there is no value."""
        return self.total / self.weight if self.weight else None


_MEAN = sequence(number(0, 1e18), 2)
TALLY = record(
    {
        "confusion": sequence(sequence(anything, 3)),
        "consistency": table(_MEAN),
        "boundary": _MEAN,
        "switches": _MEAN,
    }
)
"""What the file of a clip must hold of its tally."""


class Tally(NamedTuple):
    """Counts that add up over clips.

    Attributes:
        confusion: number of pixels by name of the true and of the predicted class, void left out.
        consistency: shares of runs by the names of `metrics.CONSISTENCY`.
        boundary: boundary F of each class in each frame that was looked at.
        switches: changes of labels; its weight is pixels times seconds. Empty where the frame rate is unknown.
    """

    confusion: Mapping[tuple[str, str], int]
    consistency: Mapping[str, Mean]
    boundary: Mean
    switches: Mean

    def to_json(self) -> dict[str, Any]:
        """Return plain values; `from_json` takes them back."""
        return {
            "confusion": [[true, predicted, count] for (true, predicted), count in sorted(self.confusion.items())],
            "consistency": {name: list(mean) for name, mean in self.consistency.items()},
            "boundary": list(self.boundary),
            "switches": list(self.switches),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Tally:
        """Rebuild a tally from `to_json`."""
        return cls(
            {(true, predicted): count for true, predicted, count in content["confusion"]},
            {name: Mean(*mean) for name, mean in content["consistency"].items()},
            Mean(*content["boundary"]),
            Mean(*content["switches"]),
        )


class Scores(NamedTuple):
    """Scores of a clip or a data set, in [0, 1] but for ``switches``; None where there is nothing to measure.

    Attributes:
        miou: of the summed confusion matrix.
        clip_miou: mean of the mIoU of each clip.
        consistency: by the names of `metrics.CONSISTENCY`.
        matched: mean over clips of mIoU with regions matched to classes, names ignored.
        boundary: mean boundary F.
        switches: changes of a pixel's label in a second where the ground truth stays.
        ious: of each class, by name.
    """

    miou: float
    clip_miou: float
    consistency: Mapping[str, float | None]
    matched: float
    boundary: float | None
    switches: float | None
    ious: Mapping[str, float]


def tally_clip(
    prediction: Tensor, truth: Tensor, numbers: Sequence[int], classes: Mapping[int, str], fps: float | None
) -> Tally:
    """Compare label maps ``(L,H,W)`` uint8 with the ground truth of a clip's labeled frames, 255 = void.

    Runs and switches need consecutive ``numbers`` of frames; a label without a name is called ``class N``.
    """
    names = {label: classes.get(label, f"class {label}") for label in range(VOID)} | {VOID: VOID_NAME}
    matrix = count_confusion(prediction, truth)
    confusion = {(names[int(t)], names[int(p)]): int(matrix[t, p]) for t, p in matrix.nonzero()}
    stretches = list(_split_stretches(numbers))
    consistency = {name: _average_runs(prediction, truth, stretches, *run) for name, run in CONSISTENCY.items()}
    switches = Mean()
    for part in stretches:
        switches += _count_switches(prediction[part], truth[part], fps)
    return Tally(confusion, consistency, _score_boundaries(prediction, truth), switches)


def compute_scores(tallies: Iterable[Tally]) -> Scores:
    """Return the scores of clips together."""
    clips = list(tallies)
    if not clips:
        raise InputError("`tallies` must hold at least one clip, but got none. Finish a clip first.")
    whole: dict[tuple[str, str], int] = {}
    for clip in clips:
        for pair, count in clip.confusion.items():
            whole[pair] = whole.get(pair, 0) + count
    matrix, names = _make_matrix(whole)
    matrices = [_make_matrix(clip.confusion)[0] for clip in clips]
    means = {name: sum((clip.consistency[name] for clip in clips), Mean()) for name in clips[0].consistency}
    return Scores(
        compute_mean_iou(matrix),
        sum(compute_mean_iou(own) for own in matrices) / len(matrices),
        {name: mean.value for name, mean in means.items()},
        sum(compute_matched_mean_iou(own) for own in matrices) / len(matrices),
        sum((clip.boundary for clip in clips), Mean()).value,
        sum((clip.switches for clip in clips), Mean()).value,
        {names[label]: iou for label, iou in compute_class_ious(matrix).items()},
    )


def _make_matrix(confusion: Mapping[tuple[str, str], int]) -> tuple[Tensor, list[str]]:
    """Return counts as ``(n,n)`` int64, rows the true class, and the names of the classes."""
    names = sorted({name for pair in confusion for name in pair})
    index = {name: number for number, name in enumerate(names)}
    matrix = torch.zeros((len(names), len(names)), dtype=torch.int64)
    for (true, predicted), count in confusion.items():
        matrix[index[true], index[predicted]] = count
    return matrix, names


def _split_stretches(numbers: Sequence[int]) -> Iterable[slice]:
    """Yield the parts of ascending frame numbers in which each follows the one before."""
    start = 0
    for index in range(1, len(numbers) + 1):
        if index == len(numbers) or numbers[index] != numbers[index - 1] + 1:
            yield slice(start, index)
            start = index


def _average_runs(
    prediction: Tensor, truth: Tensor, stretches: Iterable[slice], length: int, agreement: Agreement
) -> Mean:
    """Gather the consistency of all runs."""
    shares = [
        share
        for part in stretches
        for share in compute_video_consistency(prediction[part], truth[part], length, agreement)
    ]
    return Mean(sum(shares), len(shares))


def _count_switches(prediction: Tensor, truth: Tensor, fps: float | None) -> Mean:
    """Count changes of labels where the truth stays, against pixels times seconds."""
    if fps is None or len(truth) < 2:
        return Mean()
    still = (truth[1:] == truth[:-1]) & (truth[1:] != VOID)
    changed = (prediction[1:] != prediction[:-1]) & still
    return Mean(int(changed.sum()), int(still.sum()) / fps)


def _score_boundaries(prediction: Tensor, truth: Tensor) -> Mean:
    """Gather the boundary F of each class that a frame holds, in every fifth labeled frame."""
    scores = []
    for ours, theirs in zip(prediction[::BOUNDARY_STRIDE], truth[::BOUNDARY_STRIDE], strict=True):
        valid = theirs != VOID
        labels = theirs[valid].unique().tolist()
        scores += [compute_boundary_f_score((ours == label) & valid, theirs == label) for label in labels]
    return Mean(sum(scores), len(scores))
