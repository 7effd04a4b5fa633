"""Difference maps and the choice of labels: OpenCV, loops, and properties."""

from __future__ import annotations

import doctest
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from vidseg.core.config.parts import DifferenceConfig
from vidseg.core.method import differences, published
from vidseg.core.method.differences import (
    RunningArgmax,
    blur_maps,
    compute_difference_map,
    enlarge_masks,
    filter_maps,
    make_initial_maps,
    normalize_maps,
    score_labels,
)
from vidseg.core.types import InputError, LabelMaps, Region

FLOAT = DifferenceConfig()


def pictures(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# --- steps ---


def test_difference_is_the_distance_of_clamped_colors() -> None:
    plus, minus = pictures(1, 2, 5, 4, 3) * 2 - 0.5, pictures(2, 2, 5, 4, 3) * 2 - 0.5
    result = compute_difference_map(plus, minus)
    for place in np.ndindex(2, 5, 4):
        distance = sum(
            (min(max(float(a), 0), 1) - min(max(float(b), 0), 1)) ** 2
            for a, b in zip(plus[place], minus[place], strict=True)
        )
        assert float(result[place]) == pytest.approx(distance**0.5, abs=1e-6)
    assert torch.equal(result, compute_difference_map(minus, plus))
    assert not compute_difference_map(plus, plus).any()


@pytest.mark.parametrize(("size", "sigma"), [(5, 3.0), (3, 0.8), (7, 1.5), (1, 3.0)])
def test_blur_equals_opencv(size: int, sigma: float) -> None:
    cv2 = pytest.importorskip("cv2")
    maps = pictures(3, 2, 17, 9).double() * 20
    ours = blur_maps(maps, DifferenceConfig(blur_size=size, blur_sigma=sigma))
    for single, result in zip(maps, ours, strict=True):
        theirs = cv2.GaussianBlur(single.numpy(), (size, size), sigma, borderType=cv2.BORDER_REFLECT_101)
        assert np.abs(result.numpy() - theirs).max() < 1e-12
    assert not torch.isnan(ours).any()


def test_blur_keeps_constant_maps_and_moves_nothing_sideways() -> None:
    assert torch.allclose(blur_maps(torch.full((1, 8, 8), 0.3), FLOAT), torch.tensor(0.3))
    point = torch.zeros(1, 9, 11)
    point[0, 4, 5] = 1
    spread = blur_maps(point, FLOAT)
    assert torch.allclose(spread, spread.flip(1)) and torch.allclose(spread, spread.flip(2))
    assert float(spread.sum()) == pytest.approx(1)


@pytest.mark.parametrize("size", [4, 9])
def test_a_kernel_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(InputError, match="must be odd and at most 7"):
        blur_maps(torch.zeros(1, 4, 9), DifferenceConfig(blur_size=size))


def test_normalizing_divides_each_map_by_its_maximum_unless_that_is_noise() -> None:
    maps = torch.stack([torch.tensor([[0.2, 0.1]]), torch.tensor([[1e-4, 5e-5]]), torch.zeros(1, 2)])
    result = normalize_maps(maps)
    assert torch.allclose(result[0], torch.tensor([[1.0, 0.5]]))
    assert torch.allclose(result[1], maps[1] * 255)
    assert not result[2].any()


def test_filter_is_equation_6() -> None:
    maps, masks = torch.full((1, 1, 3), 2.0), torch.tensor([[[1.0, 0.0, 0.5]]])
    assert filter_maps(maps, masks, 0.7).tolist() == [[[2.0, pytest.approx(1.4), pytest.approx(1.7)]]]
    assert torch.allclose(filter_maps(maps, masks, 1.0), maps)
    assert filter_maps(maps, masks, 0.0).tolist() == [[[2.0, 0.0, 1.0]]]


def test_enlarged_masks_are_soft_bounded_and_add_up_where_not_clipped() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, :, :2] = True
    soft = enlarge_masks(mask, (64, 64))
    assert float(soft.min()) == 0 and float(soft.max()) == 1
    assert float(soft[0, 30, 31] + soft[0, 30, 32]) == pytest.approx(1, abs=1e-5)
    assert float(soft[0, 30, 0]) == 1 and float(soft[0, 30, 63]) == 0
    assert torch.equal(enlarge_masks(torch.ones(1, 3, 2, dtype=torch.bool), (48, 32)), torch.ones(1, 48, 32))


def test_scores_are_enlarged_to_the_frame() -> None:
    plus, minus = pictures(1, 2, 32, 48, 3), pictures(2, 2, 32, 48, 3)
    masks = torch.ones(2, 2, 3, dtype=torch.bool)
    same = score_labels(plus, minus, masks, (32, 48), FLOAT)
    maps = normalize_maps(blur_maps(compute_difference_map(plus, minus), FLOAT))
    assert torch.allclose(same, maps, atol=1e-6)
    assert score_labels(plus, minus, masks, (37, 51), FLOAT).shape == (2, 37, 51)
    raw = score_labels(plus, minus, masks, (32, 48), DifferenceConfig(normalize=False))
    assert torch.allclose(raw, blur_maps(compute_difference_map(plus, minus), FLOAT), atol=1e-6)
    outside = score_labels(plus, minus, ~masks, (32, 48), FLOAT)
    assert torch.allclose(outside, 0.7 * same, atol=1e-6)


@pytest.mark.parametrize("score", [score_labels, published.score_labels], ids=["paper", "published"])
def test_scores_do_not_depend_on_the_batch(score: Callable[..., Tensor]) -> None:
    plus, minus = pictures(1, 3, 32, 48, 3), pictures(2, 3, 32, 48, 3)
    masks = pictures(3, 3, 2, 3) > 0.5
    together = score(plus, minus, masks, (40, 48), FLOAT)
    for one in range(3):
        part = slice(one, one + 1)
        torch.testing.assert_close(score(plus[part], minus[part], masks[part], (40, 48), FLOAT), together[part])


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="`minus` must have shape"):
        compute_difference_map(torch.zeros(1, 8, 8, 3), torch.zeros(1, 8, 9, 3))
    with pytest.raises(InputError, match="`masks` must have shape"):
        score_labels(torch.zeros(1, 8, 8, 3), torch.zeros(1, 8, 8, 3), torch.ones(2, 1, 1).bool(), (8, 8), FLOAT)


# --- the choice ---


def coarse(*rows: list[int]) -> LabelMaps:
    maps = torch.tensor(rows)[:, None]
    return LabelMaps(maps, tuple(Region(int(label), "") for label in maps.unique()))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_best_label_wins_and_ties_go_to_the_lowest_in_any_order(order: tuple[int, ...]) -> None:
    labels = (4, 9, 200)
    scores = torch.randint(0, 3, (3, 2, 6, 8), generator=torch.Generator().manual_seed(5)).double()
    best = RunningArgmax(torch.full((2, 6, 8), 200, dtype=torch.uint8))
    for index in order:
        for frame in range(2):
            best.update(frame, labels[index], scores[index, frame])
    for place in np.ndindex(2, 6, 8):
        column = [float(score[place]) for score in scores]
        expected = labels[column.index(max(column))] if max(column) > 0 else 200
        assert int(best.maps[place]) == expected


def test_the_initial_maps_are_not_written_to() -> None:
    initial = torch.zeros(1, 2, 2, dtype=torch.uint8)
    RunningArgmax(initial).update(0, 7, torch.ones(2, 2))
    assert not initial.any()


def test_pixels_without_any_difference() -> None:
    maps = coarse([7, 3], [7, 7])
    nearest = [[[7, 7, 3, 3], [7, 7, 3, 3]], [[7] * 4] * 2]
    assert make_initial_maps(maps, (2, 4)).tolist() == nearest
    assert published.make_initial_maps(maps, (2, 4)).tolist() == [[[3] * 4] * 2] * 2
    assert make_initial_maps(maps, (2, 4)).dtype == torch.uint8


def test_a_frame_of_one_label_is_that_label_with_and_without_its_differences() -> None:
    best = RunningArgmax(make_initial_maps(coarse([5, 5, 5]), (16, 48)))
    untouched = best.maps.clone()
    mask = torch.ones(1, 1, 3, dtype=torch.bool)
    best.update(0, 5, score_labels(pictures(1, 1, 16, 48, 3), pictures(2, 1, 16, 48, 3), mask, (16, 48), FLOAT)[0])
    assert torch.equal(best.maps, untouched)
    assert (untouched == 5).all()


def test_strong_differences_move_the_border_off_the_coarse_grid() -> None:
    maps = coarse([1, 2])
    best = RunningArgmax(make_initial_maps(maps, (16, 32)))
    gray = torch.full((1, 16, 32, 3), 0.5)
    left, right = gray.clone(), gray.clone()
    left[:, :, :20] = 1.0  # the region of label 1 ends at column 20, its coarse cell at 16
    right[:, :, 20:] = 1.0
    best.update(0, 1, score_labels(left, gray, maps.maps == 1, (16, 32), FLOAT)[0])
    best.update(0, 2, score_labels(right, gray, maps.maps == 2, (16, 32), FLOAT)[0])
    assert (best.maps[0, :, :19] == 1).all() and (best.maps[0, :, 22:] == 2).all()


def test_relabeling_commutes_without_ties() -> None:
    chosen = []
    for names in ((1, 2, 3), (8, 7, 6)):
        maps = coarse(list(names))
        best = RunningArgmax(make_initial_maps(maps, (16, 48)))
        for index, label in enumerate(names):
            plus, minus = pictures(index, 1, 16, 48, 3), pictures(10 + index, 1, 16, 48, 3)
            best.update(0, label, score_labels(plus, minus, maps.maps == label, (16, 48), FLOAT)[0])
        chosen.append(best.maps)
    assert torch.equal(chosen[0], 9 - chosen[1])


def test_doctests() -> None:
    assert doctest.testmod(differences).failed == doctest.testmod(published).failed == 0


def test_normalizing_by_owner_equals_normalizing_each_alone() -> None:
    maps = torch.rand(2, 5, 6)
    owners = torch.randint(0, 3, (2, 5, 6)) * 100
    ours = normalize_maps(maps, owners)
    for label in (0, 100, 200):
        alone = normalize_maps(torch.where(owners == label, maps, 0.0))
        assert torch.equal(ours[owners == label], alone[owners == label])


def test_a_map_of_labels_takes_part_like_its_labels_one_by_one() -> None:
    scores, labels = torch.rand(4, 5), torch.randint(0, 3, (4, 5))
    together, one_by_one = (RunningArgmax(torch.full((1, 4, 5), 9, dtype=torch.uint8)) for _ in range(2))
    for argmax in (together, one_by_one):
        argmax.update(0, 5, torch.full((4, 5), 0.5))
    together.update(0, labels, scores)
    for label in range(3):
        one_by_one.update(0, label, torch.where(labels == label, scores, 0.0))
    assert torch.equal(together.maps, one_by_one.maps)
