from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from vidseg.core.config.settings import Settings, preset
from vidseg.core.method.frames import check_frames, coarse_grid, fit_frames, fit_size
from vidseg.core.types import Grid, InputError


@pytest.mark.parametrize(
    ("size", "settings", "expected"),
    [
        ((480, 854), Settings(), (512, 832)),
        ((480, 854), preset("reference"), (448, 832)),
        ((480, 854), Settings.of(max_side=448), (256, 448)),
        ((854, 480), Settings.of(max_side=448), (448, 256)),
        ((10, 2000), Settings.of(max_side=640), (64, 640)),
        ((128, 192), Settings.of(max_side=640), (128, 192)),
    ],
)
def test_sizes_are_multiples_of_64(size: tuple[int, int], settings: Settings, expected: tuple[int, int]) -> None:
    assert fit_size(size, settings) == expected
    assert coarse_grid(expected) == Grid(expected[0] // 16, expected[1] // 16)


def test_frames_of_the_right_size_stay_as_they_are() -> None:
    frames = torch.rand(2, 64, 128, 3)
    assert torch.equal(fit_frames(frames, Settings()), frames)


def test_resizing_is_that_of_pillow_within_a_gray_level() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (97, 150, 3), dtype=np.uint8)
    ours = fit_frames(torch.from_numpy(levels)[None].float() / 255, preset("reference"))[0]
    theirs = np.asarray(Image.fromarray(levels).resize((128, 64), Image.Resampling.BICUBIC), np.float32)
    assert ours.shape == (64, 128, 3)
    assert np.abs(ours.numpy() * 255 - theirs).max() <= 1.001


@pytest.mark.parametrize(
    ("frames", "told"),
    [
        (torch.zeros(2, 8, 8, 4), "must have shape"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), "Divide by 255"),
        (torch.zeros(0, 8, 8, 3), "at least one frame"),
        (torch.full((1, 8, 8, 3), 255.0), "frame 0 holds"),
        (torch.cat([torch.zeros(1, 8, 8, 3), torch.full((1, 8, 8, 3), float("nan"))]), "frame 1 holds"),
    ],
)
def test_bad_frames_are_refused(frames: torch.Tensor, told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_frames(frames)
