"""Scores against scikit-learn, loops and properties."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix as sklearn_matrix
from sklearn.metrics import jaccard_score
from torch import Tensor
from vidseg.core.evaluation import metrics
from vidseg.core.evaluation.metrics import (
    Agreement,
    MeanIoU,
    VideoConsistency,
    compute_boundary_f_score,
    compute_class_ious,
    compute_mean_iou,
    compute_video_consistency,
    count_confusion,
    match_regions,
)
from vidseg.core.types import InputError


def maps(seed: int, high: int, *shape: int) -> Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def flickering(seed: int, num_frames: int = 14, rate: float = 0.05) -> tuple[Tensor, Tensor]:
    """Truth that changes now and then, has void, and a prediction that is mostly right."""
    generator = torch.Generator().manual_seed(seed)
    truth = maps(seed, 3, 1, 9, 8).repeat(num_frames, 1, 1)
    for value in (0, 1, 2, 255):
        truth[torch.rand(truth.shape, generator=generator) < rate / 4] = value
    truth[:, 0] = 255
    prediction = truth.clone()
    prediction[torch.rand(truth.shape, generator=generator) < rate] = 1
    prediction[:, 1] = 2  # constant, often wrong
    return prediction, truth


# --- mIoU ---


def test_confusion_matrix_equals_scikit_learn() -> None:
    prediction, truth = maps(1, 6, 4, 20, 30), maps(2, 5, 4, 20, 30) * 50
    truth[maps(3, 10, 4, 20, 30) == 0] = 255
    valid = truth != 255
    expected = sklearn_matrix(truth[valid], prediction[valid], labels=list(range(256)))
    assert np.array_equal(count_confusion(prediction, truth).numpy(), expected)


def test_ious_equal_scikit_learn() -> None:
    prediction, truth = maps(1, 5, 2000), maps(2, 5, 2000)
    scores = jaccard_score(truth, prediction, average=None)
    assert compute_class_ious(count_confusion(prediction, truth)) == pytest.approx(dict(enumerate(scores)))
    assert compute_mean_iou(count_confusion(prediction, truth)) == pytest.approx(scores.mean())


def test_classes_absent_from_the_truth_have_no_value_of_their_own() -> None:
    truth = torch.tensor([1, 1, 2, 2, 255, 255])
    prediction = torch.tensor([1, 9, 9, 2, 9, 1])
    assert compute_class_ious(count_confusion(prediction, truth)) == {1: 0.5, 2: 0.5}
    never_predicted = torch.tensor([1, 1, 1, 1, 1, 1])
    assert compute_class_ious(count_confusion(never_predicted, truth)) == {1: 0.5, 2: 0.0}


def test_predicted_void_is_a_miss() -> None:
    assert compute_class_ious(count_confusion(torch.tensor([1, 255]), torch.tensor([1, 1]))) == {1: 0.5}


def test_a_perfect_map_scores_one_and_relabeling_both_changes_nothing() -> None:
    prediction, truth = maps(1, 5, 30, 30), maps(2, 5, 30, 30)
    assert compute_mean_iou(count_confusion(truth, truth)) == 1
    assert compute_mean_iou(count_confusion(40 - prediction, 40 - truth)) == pytest.approx(
        compute_mean_iou(count_confusion(prediction, truth))
    )


def test_mean_iou_is_that_of_the_whole_data_set_not_of_its_clips() -> None:
    score = MeanIoU()
    parts = [(maps(seed, 4, 3, 9, 9 + seed), maps(seed + 9, 4, 3, 9, 9 + seed)) for seed in range(4)]
    for prediction, truth in parts:
        score.update(prediction, truth)
    every = [torch.cat([part[side].flatten() for part in parts]) for side in (0, 1)]
    assert score.compute() == compute_mean_iou(count_confusion(*every))


def test_void_everywhere_and_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="all are void"):
        MeanIoU().compute()
    with pytest.raises(InputError, match="must have the shape of `truth`"):
        count_confusion(torch.zeros(3), torch.zeros(4))


# --- video consistency ---


def consistency_by_loop(prediction: Tensor, truth: Tensor, length: int, agreement: str) -> list[float]:
    shares = []
    for start in range(len(truth) - length + 1):
        total = hits = 0
        for y, x in np.ndindex(*truth.shape[1:]):
            true = set(truth[start : start + length, y, x].tolist())
            ours = set(prediction[start : start + length, y, x].tolist())
            if len(true) == 1 and 255 not in true:
                total += 1
                hits += ours == true if agreement == "correct" else len(ours) == 1
        if total:
            shares.append(hits / total)
    return shares


@pytest.mark.parametrize("agreement", ["correct", "constant"])
@pytest.mark.parametrize("length", [2, 3, 8, 14, 15])
def test_consistency_equals_a_loop(length: int, agreement: Agreement) -> None:
    for seed in range(3):
        prediction, truth = flickering(seed)
        assert list(compute_video_consistency(prediction, truth, length, agreement)) == pytest.approx(
            consistency_by_loop(prediction, truth, length, agreement)
        )


def test_a_still_video_is_consistent_and_a_flicker_costs_every_run_through_it() -> None:
    truth = maps(1, 4, 1, 5, 5).repeat(20, 1, 1)
    assert compute_video_consistency(truth, truth, 8, "correct") == (1.0,) * 13
    prediction = truth.clone()
    prediction[9, 2, 2] = 9
    assert compute_video_consistency(prediction, truth, 8, "correct") == (1.0,) * 2 + (24 / 25,) * 8 + (1.0,) * 3


def test_a_constant_wrong_label_is_constant_but_not_correct() -> None:
    truth = torch.zeros(8, 2, 2, dtype=torch.uint8)
    wrong = torch.full_like(truth, 5)
    assert compute_video_consistency(wrong, truth, 8, "correct") == (0.0,)
    assert compute_video_consistency(wrong, truth, 8, "constant") == (1.0,)


def test_correct_is_never_above_constant_and_longer_runs_are_harder() -> None:
    for seed in range(5):
        prediction, truth = flickering(seed, num_frames=16)
        for length in (2, 5, 8):
            correct = compute_video_consistency(prediction, truth, length, "correct")
            constant = compute_video_consistency(prediction, truth, length, "constant")
            assert all(low <= high for low, high in zip(correct, constant, strict=True))
        truth = truth[:1].repeat(16, 1, 1)  # with one set of pixels throughout
        means = [np.mean(compute_video_consistency(prediction, truth, length, "correct")) for length in (2, 5, 8)]
        assert means[0] >= means[1] >= means[2]


def add_clip(score: VideoConsistency, prediction: torch.Tensor, truth: torch.Tensor) -> None:
    score.restart()
    for frames in zip(prediction, truth, strict=True):
        score.add(*frames)


def test_runs_do_not_cross_clips_and_empty_runs_have_no_value() -> None:
    prediction, truth = flickering(1, num_frames=10)
    score = VideoConsistency(8, "correct")
    assert score.compute() is None
    add_clip(score, prediction[:5], truth[:5])
    add_clip(score, prediction[5:], truth[5:])
    assert score.compute() is None
    add_clip(score, prediction, truth)
    add_clip(score, truth, torch.full_like(truth, 255))
    assert score.compute() == pytest.approx(np.mean(compute_video_consistency(prediction, truth, 8, "correct")))


def test_mean_over_all_runs_of_all_clips() -> None:
    score = VideoConsistency(4, "constant")
    shares: list[float] = []
    for seed, count in enumerate((6, 12)):
        clip = flickering(seed, num_frames=count)
        add_clip(score, *clip)
        shares += compute_video_consistency(*clip, 4, "constant")
    assert len(shares) == 3 + 9
    assert score.compute() == pytest.approx(np.mean(shares))


def test_consistency_refuses_short_runs_and_other_shapes() -> None:
    with pytest.raises(InputError, match="`length` must be at least 2, but got 1"):
        compute_video_consistency(torch.zeros(3, 2, 2), torch.zeros(3, 2, 2), 1, "constant")
    with pytest.raises(InputError, match="must have the shape"):
        compute_video_consistency(torch.zeros(3, 2, 2), torch.zeros(4, 2, 2), 2, "constant")


# --- classes of regions without a name, and boundaries ---


def test_a_region_stands_for_the_class_where_it_first_occurs() -> None:
    maps = torch.tensor([[[1, 1, 2]], [[7, 7, 9]], [[7, 8, 9]]], dtype=torch.uint8)
    truth = torch.tensor([[[3, 4, 4]], [[255, 5, 255]], [[6, 6, 255]]], dtype=torch.uint8)
    assert match_regions(maps, truth).tolist() == [[[3, 3, 4]], [[5, 5, 255]], [[5, 6, 255]]]
    assert match_regions(maps, truth, {1, 9}).tolist() == [[[1, 1, 4]], [[5, 5, 9]], [[5, 6, 9]]]


def square(top: int, left: int, size: int = 20) -> Tensor:
    mask = torch.zeros(60, 80, dtype=torch.bool)
    mask[top : top + size, left : left + size] = True
    return mask


def test_boundaries_within_the_tolerance_are_perfect() -> None:
    assert compute_boundary_f_score(square(10, 10), square(10, 10)) == 1
    assert compute_boundary_f_score(square(11, 10), square(10, 10)) == 1  # tolerance: 0.008 of 100 pixels, rounded up
    assert 0.4 < compute_boundary_f_score(square(12, 10), square(10, 10)) < 0.9
    assert compute_boundary_f_score(square(10, 50), square(10, 10)) == 0


def test_boundary_f_is_symmetric_and_defined_for_empty_masks() -> None:
    one, other, empty = square(10, 10), square(14, 12, 25), torch.zeros(60, 80, dtype=torch.bool)
    assert compute_boundary_f_score(one, other) == pytest.approx(compute_boundary_f_score(other, one))
    assert compute_boundary_f_score(empty, empty) == 1
    assert compute_boundary_f_score(one, empty) == compute_boundary_f_score(empty, one) == 0
    with pytest.raises(InputError, match="must have the shape"):
        compute_boundary_f_score(one[:, :1], one)


def test_boundary_f_equals_a_loop() -> None:
    ours, theirs = square(12, 10), square(10, 14, 24)
    radius = math.ceil(0.02 * math.hypot(60, 80))

    def boundary(mask: Tensor) -> list[tuple[int, int]]:
        found = []
        for y, x in np.ndindex(60, 80):
            others = [(y, min(x + 1, 79)), (min(y + 1, 59), x), (min(y + 1, 59), min(x + 1, 79))]
            if any(mask[place] != mask[y, x] for place in others):
                found.append((y, x))
        return found

    def near(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        return sum(any(math.dist(a, b) <= radius for b in others) for a in some) / len(some)

    first, second = boundary(ours), boundary(theirs)
    precision, recall = near(first, second), near(second, first)
    assert compute_boundary_f_score(ours, theirs, 0.02) == pytest.approx(2 * precision * recall / (precision + recall))


def test_doctests() -> None:
    assert doctest.testmod(metrics).failed == 0
