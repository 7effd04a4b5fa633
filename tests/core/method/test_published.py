"""Differences of 8-bit pictures against tensors of the paper's code, and against OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vidseg.core.config.parts import DifferenceConfig
from vidseg.core.method.differences import RunningArgmax
from vidseg.core.method.published import (
    compute_jpeg_maps,
    make_initial_maps,
    quantize,
    resize,
    score_jpeg_maps,
    score_labels,
)
from vidseg.core.types import LabelMaps, Region

from ...golden_data import golden_dir

EIGHT_BIT = DifferenceConfig()
GOLDEN = ("sd_default", "sd_windows_0", "sd_windows_1", "sd_windows_2")


def golden(name: str) -> Any:
    return np.load(Path(golden_dir()) / f"{name}.npz")


@pytest.mark.parametrize("name", GOLDEN)
def test_8bit_maps_equal_those_of_the_reference_code(name: str) -> None:
    tensors = golden(name)
    checked = 0
    for index, label in enumerate(tensors["ref_unique_labels"].tolist()):
        if f"decoded_plus_mask{label}" not in tensors:
            continue
        plus, minus = (torch.from_numpy(tensors[f"decoded_{sign}_mask{label}"]) for sign in ("plus", "minus"))
        size = (plus.shape[1], plus.shape[2])
        maps = compute_jpeg_maps(plus.float() / 255, minus.float() / 255, size, EIGHT_BIT)
        assert np.array_equal(maps.numpy(), tensors["diff_jpeg_uint8"][index])
        checked += 1
    assert checked > 0


@pytest.mark.parametrize(("key", "strength"), [("seg_unfiltered", 1.0), ("seg_filtered", 0.7)])
@pytest.mark.parametrize("name", GOLDEN)
def test_8bit_label_maps_equal_those_of_the_reference_code(name: str, key: str, strength: float) -> None:
    tensors = golden(name)
    config = DifferenceConfig(filter_strength=strength)
    labels, coarse = tensors["ref_unique_labels"].tolist(), torch.from_numpy(tensors["cbr_labels"])
    regions = tuple(Region(label, "") for label in labels)
    best = RunningArgmax(make_initial_maps(LabelMaps(coarse, regions), tensors[key].shape[1:]))
    for index, label in enumerate(labels):
        scores = score_jpeg_maps(torch.from_numpy(tensors["diff_jpeg_uint8"][index]), coarse == label, config)
        for frame, score in enumerate(scores):
            best.update(frame, label, score)
    assert np.array_equal(best.maps.numpy(), tensors[key])


def test_8bit_from_decodes_to_scores_in_one_call() -> None:
    tensors = golden("sd_windows_0")
    label, coarse = 3, torch.from_numpy(tensors["cbr_labels"])
    plus, minus = (torch.from_numpy(tensors[f"decoded_{sign}_mask{label}"]).float() / 255 for sign in ("plus", "minus"))
    scores = score_labels(plus, minus, coarse == label, (128, 256), EIGHT_BIT)
    stored = torch.from_numpy(tensors["diff_jpeg_uint8"][0])
    assert torch.equal(scores, score_jpeg_maps(stored, coarse == label, EIGHT_BIT))
    assert scores.dtype == torch.float64


def test_squares_wrap_at_256() -> None:
    plus = torch.tensor([16, 10, 3]).view(3, 1, 1, 1).expand(3, 9, 9, 3) / 255
    unblurred = DifferenceConfig(blur_size=1)
    maps = compute_jpeg_maps(plus, torch.zeros_like(plus), (9, 9), unblurred)
    assert [int(values.float().mean().round()) for values in maps] == [0, 17, 5]  # sqrt(0), sqrt(300), sqrt(27)
    assert torch.equal(maps, compute_jpeg_maps(torch.zeros_like(plus), plus, (9, 9), unblurred))


def test_quantizing_truncates_and_clamps() -> None:
    assert quantize(torch.tensor([-0.5, 0.0, 0.9999, 1.0, 7.0, 100.99 / 255])).tolist() == [0, 0, 254, 255, 255, 100]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((64, 128), (72, 150)),
        ((64, 128), (64, 129)),
        ((128, 128), (90, 100)),
        ((448, 832), (480, 854)),
        ((8, 8), (8, 8)),
    ],
)
def test_resizing_equals_opencv(old: tuple[int, int], new: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    frame = torch.randint(0, 256, (*old, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    theirs = cv2.resize(frame.numpy(), (new[1], new[0]))
    assert np.array_equal(resize(frame[None], new)[0].numpy(), theirs)


def test_scores_without_normalizing_are_the_stored_maps() -> None:
    maps = torch.tensor([[[3, 0], [20, 7]]], dtype=torch.uint8)
    config = DifferenceConfig(normalize=False)
    assert torch.equal(score_jpeg_maps(maps, torch.ones(1, 1, 1).bool(), config), maps.double())
    assert torch.allclose(score_jpeg_maps(maps, torch.zeros(1, 1, 1).bool(), config), 0.7 * maps.double())
