"""Scores against independent implementations: slow loops, torchmetrics, and VSPW's script step by step."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex
from vidseg.core.evaluation.bench.tally import Tally, compute_scores, tally_clip
from vidseg.core.evaluation.metrics import compute_matched_mean_iou, count_confusion
from vidseg.core.files.label_images import read_label_values
from vidseg.core.types import InputError

CLIPS = sorted((Path(__file__).parents[3] / "quality" / "clips").iterdir())
NAMES = {label: f"class {label}" for label in range(255)}


def real_masks(folder: Path) -> Tensor:
    return torch.stack([read_label_values(path, "masks") for path in sorted((folder / "masks").iterdir())])


def shifted(truth: Tensor) -> Tensor:
    """A prediction that is wrong near borders and flickers: each frame moved by its own number of pixels."""
    moved = torch.stack([frame.roll((index % 3, 4 * (index % 2)), (0, 1)) for index, frame in enumerate(truth)])
    return torch.where(moved == 255, 0, moved).to(torch.uint8)


def random_maps(seed: int, frames: int = 20, labels: int = 4) -> tuple[Tensor, Tensor]:
    """Blocky maps that stay for several frames, with void."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(labels, (2, 2, 3, 4), generator=generator)
    maps = blocks.repeat_interleave(10, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)[:, :frames]
    noise = torch.rand(maps.shape, generator=generator) < 0.02
    prediction, truth = torch.where(noise, (maps + 1) % labels, maps).to(torch.uint8)
    prediction = torch.where(torch.rand(truth.shape, generator=generator) < 0.6, truth, prediction)
    truth[torch.rand(truth.shape, generator=generator) < 0.05] = 255
    return prediction, truth


def cases() -> list[tuple[Tensor, Tensor]]:
    real = [real_masks(folder).repeat_interleave(3, 0) for folder in CLIPS]
    return [random_maps(seed) for seed in range(3)] + [(shifted(truth), truth) for truth in real]


CASES = cases()


@pytest.mark.parametrize("case", range(len(CASES)))
def test_mean_iou_is_that_of_torchmetrics(case: int) -> None:
    prediction, truth = CASES[case]
    scores = compute_scores([tally_clip(prediction, truth, range(len(truth)), NAMES, None)])
    present = [label for label in truth.unique().tolist() if label != 255]
    num_classes = int(max(prediction.max(), *present)) + 1
    each = MulticlassJaccardIndex(num_classes, average="none", ignore_index=255)(prediction.long(), truth.long())
    for label in present:
        assert scores.ious[f"class {label}"] == pytest.approx(float(each[label]), abs=1e-6)
    if set(prediction[truth != 255].unique().tolist()) <= set(present):  # else torchmetrics counts a class as zero
        macro = MulticlassJaccardIndex(num_classes, average="macro", ignore_index=255)(prediction.long(), truth.long())
        assert scores.miou == pytest.approx(float(macro), abs=1e-6)


def test_classes_of_clips_are_joined_by_name_and_clips_averaged() -> None:
    truth = torch.tensor([[[0, 0, 1, 1]]], dtype=torch.uint8)
    right = tally_clip(truth, truth, [0], {0: "ground", 1: "dog"}, None)
    wrong = tally_clip(torch.zeros_like(truth), truth, [0], {0: "ground", 1: "cat"}, None)
    scores = compute_scores([right, wrong])
    assert scores.ious == {"cat": 0.0, "dog": 1.0, "ground": 4 / 6}
    assert scores.miou == pytest.approx((0 + 1 + 4 / 6) / 3)
    assert scores.clip_miou == pytest.approx((1 + (0.5 + 0) / 2) / 2)


def test_void_does_not_count_and_a_false_class_only_lowers_the_true_ones() -> None:
    truth = torch.tensor([[[1, 1, 255, 255]]], dtype=torch.uint8)
    prediction = torch.tensor([[[1, 7, 3, 3]]], dtype=torch.uint8)
    assert compute_scores([tally_clip(prediction, truth, [0], NAMES, None)]).ious == {"class 1": 0.5}
    with pytest.raises(InputError, match="all are void"):
        compute_scores([tally_clip(prediction, torch.full_like(truth, 255), [0], NAMES, None)])


def vspw_script(truth: Tensor, prediction: Tensor, length: int) -> list[float]:
    """VSPW's evaluation, frame pair by frame pair: it leaves out the last run and counts void as a label."""
    shares = []
    for first in range(len(truth) - length):
        same_truth = np.ones(truth.shape[1:], bool)
        same_prediction = np.ones(truth.shape[1:], bool)
        for step in range(1, length):
            same_truth &= (truth[first] == truth[first + step]).numpy()
            same_prediction &= (prediction[first] == prediction[first + step]).numpy()
        if same_truth.any():  # the script divides by zero here and leaves the NaN out of its mean
            shares.append(float((same_prediction & same_truth).sum() / same_truth.sum()))
    return shares


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("length", [8, 16])
def test_mvc_is_that_of_vspw_script_on_maps_without_void(case: int, length: int) -> None:
    prediction, truth = CASES[case]
    truth = torch.where(truth == 255, 0, truth).to(torch.uint8)
    extended = [torch.cat([maps, maps[-1:]]) for maps in (truth, prediction)]
    theirs = vspw_script(*extended, length)  # one frame more: the run that it leaves out is none of ours
    assert theirs
    got = compute_scores([tally_clip(prediction, truth, range(len(truth)), NAMES, None)])
    assert got.consistency[f"mVC{length}"] == pytest.approx(np.mean(theirs), abs=1e-12)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_mvc_with_void_is_that_of_a_loop_over_pixels(case: int) -> None:
    prediction, truth = (maps[:10, ::7, ::7] for maps in CASES[case])
    shares: dict[str, list[float]] = {"mVC8": [], "mVC8 right": []}
    for first in range(len(truth) - 7):
        common, constant, correct = 0, 0, 0
        for y, x in np.ndindex(*truth.shape[1:]):
            true, ours = truth[first : first + 8, y, x].tolist(), prediction[first : first + 8, y, x].tolist()
            if len(set(true)) == 1 and true[0] != 255:
                common += 1
                constant += len(set(ours)) == 1
                correct += ours == true
        if common:
            shares["mVC8"].append(constant / common)
            shares["mVC8 right"].append(correct / common)
    got = compute_scores([tally_clip(prediction, truth, range(len(truth)), NAMES, None)])
    for name, values in shares.items():
        assert got.consistency[name] == pytest.approx(np.mean(values), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_matching_is_the_best_of_all_permutations(seed: int) -> None:
    prediction, truth = random_maps(seed)
    valid = truth != 255
    best = max(
        np.mean([jaccard((prediction == ours) & valid, truth == label) for label, ours in enumerate(order)])
        for order in permutations(range(4))
    )
    assert compute_matched_mean_iou(count_confusion(prediction, truth)) == pytest.approx(best, abs=1e-12)
    renumbered = torch.tensor([9, 4, 200, 1], dtype=torch.uint8)[prediction.long()]
    assert compute_matched_mean_iou(count_confusion(renumbered, truth)) == pytest.approx(best, abs=1e-12)


def jaccard(ours: Tensor, theirs: Tensor) -> float:
    return int((ours & theirs).sum()) / int((ours | theirs).sum())


def test_matching_gives_nothing_to_classes_without_partner() -> None:
    truth = torch.tensor([0, 1, 2, 3])
    assert compute_matched_mean_iou(count_confusion(torch.tensor([5, 5, 5, 5]), truth)) == pytest.approx(0.25 / 4)
    with pytest.raises(InputError, match="all are void"):
        compute_matched_mean_iou(count_confusion(truth, torch.full((4,), 255)))


@pytest.mark.parametrize("case", range(len(CASES)))
def test_switches_per_second_is_that_of_a_loop(case: int) -> None:
    prediction, truth = (maps[:8, ::7, ::7] for maps in CASES[case])
    changes = chances = 0
    for frame in range(1, len(truth)):
        for y, x in np.ndindex(*truth.shape[1:]):
            if truth[frame, y, x] == truth[frame - 1, y, x] != 255:
                chances += 1
                changes += int(prediction[frame, y, x] != prediction[frame - 1, y, x])
    got = compute_scores([tally_clip(prediction, truth, range(8), NAMES, 12.5)])
    assert got.switches == pytest.approx(changes / chances * 12.5)
    assert compute_scores([tally_clip(prediction, truth, range(8), NAMES, None)]).switches is None


def test_runs_and_switches_do_not_cross_frames_without_ground_truth() -> None:
    prediction, truth = random_maps(1)
    numbers = [*range(9), *range(30, 41)]
    whole = compute_scores([tally_clip(prediction, truth, numbers, NAMES, 10)])
    parts = compute_scores(
        [
            tally_clip(prediction[:9], truth[:9], range(9), NAMES, 10),
            tally_clip(prediction[9:], truth[9:], range(11), NAMES, 10),
        ]
    )
    assert whole.consistency["mVC8"] == pytest.approx(parts.consistency["mVC8"])
    assert whole.switches == pytest.approx(parts.switches)
    assert whole.consistency["mVC16"] is None
    assert whole.miou == pytest.approx(parts.miou)


def test_a_tally_survives_json() -> None:
    prediction, truth = random_maps(2)
    tally = tally_clip(prediction, truth, range(20), NAMES, 10)
    assert compute_scores([Tally.from_json(tally.to_json())]) == compute_scores([tally])


def test_a_perfect_prediction_scores_one() -> None:
    truth = CASES[-1][1]
    scores = compute_scores([tally_clip(torch.where(truth == 255, 3, truth), truth, range(len(truth)), NAMES, 24)])
    assert (scores.miou, scores.clip_miou, scores.matched, scores.boundary, scores.switches) == (1, 1, 1, 1, 0)
    assert scores.consistency["mVC8 right"] == 1
