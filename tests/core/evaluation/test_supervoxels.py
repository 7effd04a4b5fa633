"""Measures of regions without names: by hand, against loops, and against scikit-image."""

from __future__ import annotations

import doctest
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from vidseg.core.evaluation import supervoxels
from vidseg.core.evaluation.metrics import compute_mean_iou, count_confusion
from vidseg.core.evaluation.supervoxels import (
    BoundaryRecall,
    RegionTally,
    compute_best_mean_iou,
    compute_boundary_recall,
    compute_segmentation_accuracy,
    compute_undersegmentation_error,
    compute_variation_of_information,
    name_by_best_class,
)
from vidseg.core.types import InputError


def maps(*frames: str) -> Tensor:
    """Label maps of rows of digits between slashes; a dot is void."""
    rows = [[[255 if sign == "." else int(sign) for sign in row] for row in frame.split("/")] for frame in frames]
    return torch.tensor(rows, dtype=torch.uint8)


def blocks(seed: int) -> tuple[Tensor, Tensor]:
    """Blocky prediction and truth ``(4,9,12)`` that change over time, with void."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randint(0, high, (4, 3, 4), generator=generator) for high in (6, 3)]
    prediction, truth = (part.repeat_interleave(3, 1).repeat_interleave(3, 2).to(torch.uint8) for part in made)
    truth[torch.rand(truth.shape, generator=generator) < 0.1] = 255
    return prediction, truth


def measures(prediction: Tensor, truth: Tensor) -> supervoxels.RegionScores:
    tally = RegionTally()
    for number, frame in enumerate(zip(prediction, truth, strict=True)):
        tally.update(number, *frame)
    return tally.compute()


def test_examples_of_docstrings() -> None:
    assert doctest.testmod(supervoxels).failed == 0


def test_two_frames_by_hand() -> None:
    """Class 1 has 4 pixels, class 2 has 6; region 5 lies in 1 with 3 of 4, region 6 in 2 with 5 of 6."""
    truth, prediction = maps("11222.", "11222."), maps("556665", "566655")
    matrix = count_confusion(prediction, truth)
    assert (int(matrix[1, 5]), int(matrix[2, 5]), int(matrix[1, 6]), int(matrix[2, 6])) == (3, 1, 1, 5)
    scores = measures(prediction, truth)
    assert scores.regions == 2
    assert scores.accuracy == pytest.approx((3 / 4 + 5 / 6) / 2)
    assert scores.undersegmentation == pytest.approx(((10 - 4) / 4 + (10 - 6) / 6) / 2)
    assert scores.best_miou == pytest.approx((3 / 5 + 5 / 7) / 2)
    assert scores.duration == 2


def test_half_a_region_is_enough_to_cover_a_class() -> None:
    assert compute_segmentation_accuracy(count_confusion(maps("5566"), maps("1212"))) == 1
    assert compute_segmentation_accuracy(count_confusion(maps("555666"), maps("112122"))) == pytest.approx(2 / 3)


def test_a_perfect_partition_under_other_numbers() -> None:
    truth = blocks(0)[1]
    scores = measures(torch.where(truth == 255, 7, truth + 40).to(torch.uint8), truth)
    assert (scores.accuracy, scores.undersegmentation, scores.best_miou) == (1, 0, 1)
    assert (scores.split, scores.merged, scores.recall) == (0, 0, 1)


def test_one_region_for_all() -> None:
    truth = maps("1112", "1112")
    scores = measures(torch.full_like(truth, 9), truth)
    assert (scores.regions, scores.recall, scores.drawn) == (1, 0, 0)
    assert scores.accuracy == pytest.approx(1 / 2)
    assert scores.undersegmentation == pytest.approx((1 / 3 + 3) / 2)
    assert scores.split == 0
    assert scores.merged == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))


@pytest.mark.parametrize("seed", range(3))
def test_measures_equal_loops_over_classes_and_regions(seed: int) -> None:
    prediction, truth = blocks(seed)
    matrix, valid = count_confusion(prediction, truth), truth != 255
    accuracy, error = [], []
    for label in truth[valid].unique():
        inside = (truth == label) & valid
        covered = reach = 0
        for region in prediction[valid].unique():
            volume, hit = int(((prediction == region) & valid).sum()), int(((prediction == region) & inside).sum())
            covered += hit if hit >= volume - hit else 0
            reach += volume if hit else 0
        accuracy.append(covered / int(inside.sum()))
        error.append((reach - int(inside.sum())) / int(inside.sum()))
    assert compute_segmentation_accuracy(matrix) == pytest.approx(np.mean(accuracy))
    assert compute_undersegmentation_error(matrix) == pytest.approx(np.mean(error))
    best = name_by_best_class(prediction, truth)
    assert compute_best_mean_iou(matrix) == pytest.approx(compute_mean_iou(count_confusion(best, truth)))
    regions = prediction.unique().tolist()
    for region, label in itertools.product(regions, (0, 1, 2)):  # no other name of one region hits more pixels
        other = torch.where(prediction == region, label, best)
        assert int(((other == truth) & valid).sum()) <= int(((best == truth) & valid).sum())


@pytest.mark.parametrize("seed", range(3))
def test_variation_of_information_is_that_of_scikit_image(seed: int) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    prediction, truth = blocks(seed)
    found = compute_variation_of_information(count_confusion(prediction, truth))
    expected = metrics.variation_of_information(truth.numpy(), prediction.numpy(), ignore_labels=[255])
    assert found == pytest.approx(tuple(expected))
    assert found.total == pytest.approx(sum(expected))


# --- boundaries ---


def boundary_by_loop(labels: Tensor) -> set[tuple[int, int, int]]:
    """Voxels of which one of six neighbors has another label, both not void."""
    found = set()
    for voxel in np.ndindex(*labels.shape):
        for axis, step in itertools.product(range(3), (-1, 1)):
            other = tuple(place + step * (axis == number) for number, place in enumerate(voxel))
            if all(0 <= place < side for place, side in zip(other, labels.shape, strict=True)):
                pair = int(labels[voxel]), int(labels[other])
                if pair[0] != pair[1] and 255 not in pair:
                    found.add(voxel)
    return found


@pytest.mark.parametrize("radius", [0, 1, 2])
@pytest.mark.parametrize("seed", range(2))
def test_boundary_recall_equals_a_loop(seed: int, radius: int) -> None:
    prediction, truth = blocks(seed)
    prediction[1:] = prediction[0] if seed else prediction[1:]
    ours, theirs = boundary_by_loop(prediction), boundary_by_loop(truth)
    near = [any(t == s and math.hypot(y - v, x - u) <= radius for s, v, u in ours) for t, y, x in theirs]
    tolerance = radius / math.hypot(*truth.shape[1:])
    assert compute_boundary_recall(prediction, truth, tolerance) == pytest.approx(np.mean(near))


def test_a_boundary_that_moves_is_found_in_both_frames() -> None:
    truth = maps("1122", "1222")
    assert compute_boundary_recall(maps("5666", "5666"), truth, 0) == pytest.approx(3 / 4)
    assert compute_boundary_recall(maps("5555", "5555"), truth, 0) == 0
    assert compute_boundary_recall(truth, maps("1111", "1111"), 0) is None


def test_frames_apart_have_no_boundary_between_them_and_void_is_none_of_the_truth() -> None:
    apart = BoundaryRecall(0)
    for number, frame in ((0, maps("11.2")[0]), (2, maps("22.1")[0])):
        apart.update(number, torch.zeros_like(frame), frame)
    assert (apart.compute(), apart.drawn) == (None, 0)
    near = BoundaryRecall(0)
    for number, frame in ((0, maps("11.2")[0]), (1, maps("22.1")[0])):
        near.update(number, maps("3333" if number else "4433")[0], frame)
    assert near.compute() == pytest.approx(4 / 6)  # the first two of three columns that change
    assert near.drawn == pytest.approx(4 / 6)


def test_duration_counts_the_frames_in_which_a_region_occurs() -> None:
    truth = maps("11", "11", "11")
    assert measures(maps("34", "33", "35"), truth).duration == pytest.approx((3 + 1 + 1) / 3)


def test_regions_on_void_alone_become_void_and_void_everywhere_is_refused() -> None:
    truth = maps("12.")
    assert name_by_best_class(maps("347"), truth).tolist() == [[[1, 2, 255]]]
    with pytest.raises(InputError, match="all are void"):
        measures(maps("347"), maps("..."))
