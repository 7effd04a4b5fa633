"""Finished masks: grown, feathered, steady, and whole at the border."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import binary_dilation
from vidseg.core.regions.masks import Finish, finish_masks
from vidseg.core.types import InputError


def square(low: int, high: int, size: int = 40) -> torch.Tensor:
    mask = torch.zeros(1, size, size)
    mask[:, low:high, low:high] = 1
    return mask


def test_nothing_to_do_changes_nothing() -> None:
    assert torch.equal(finish_masks(square(10, 20), Finish()), square(10, 20))


def test_growing_is_a_euclidean_dilation_and_shrinking_its_inverse() -> None:
    grown = finish_masks(square(10, 20), Finish(grow=3))
    disc = torch.tensor([[(x - 3) ** 2 + (y - 3) ** 2 <= 9 for x in range(7)] for y in range(7)])
    assert torch.equal(grown[0] > 0, torch.from_numpy(binary_dilation(square(10, 20)[0].numpy(), disc.numpy())))
    assert torch.equal(finish_masks(grown, Finish(grow=-3)), square(10, 20))


def test_a_mask_at_the_border_reaches_it_and_is_not_worn_off_there() -> None:
    mask = torch.ones(1, 40, 40)
    mask[:, :, 20:] = 0
    mask[:, :, 0] = 0  # the line of one pixel that is left in other tools
    result = finish_masks(mask, Finish(grow=-2, border=2))
    assert bool(result[0, :, :15].all())
    assert not bool(result[0, :, 20:].any())


def test_the_edge_fades_linearly_around_its_place() -> None:
    row = finish_masks(square(10, 30), Finish(feather=8))[0, 20]
    assert row[9] < 0.5 < row[10]
    assert row[10:14].tolist() == pytest.approx([0.5625, 0.6875, 0.8125, 0.9375])
    assert row[6:10].tolist() == pytest.approx([0.0625, 0.1875, 0.3125, 0.4375])
    assert float(row[20]) == 1
    assert float(row[2]) == 0


def test_shapes() -> None:
    corner = torch.zeros(1, 40, 40)
    corner[0, 17, 5] = corner[0, 20, 9] = 1
    box = finish_masks(corner, Finish(shape="box"))
    assert box[0, 17:21, 5:10].sum() == box.sum() == 20
    blocks = finish_masks(corner, Finish(shape="blocks"))
    assert blocks[0, 16:32, :16].sum() == blocks.sum() == 256


def test_a_flash_and_a_gap_of_one_frame_vanish() -> None:
    masks = torch.zeros(7, 20, 20)
    masks[:, 5:10, 5:10] = 1
    masks[3] = 0
    masks[3, 15, 15] = 1
    steady = finish_masks(masks, Finish(smooth_frames=3))
    assert torch.equal(steady, steady[:1].expand_as(steady))
    assert steady[3].sum() == 25


def test_empty_and_full_masks_stay_so() -> None:
    every = Finish(smooth_frames=3, grow=5, feather=6, shape="box")
    assert not bool(finish_masks(torch.zeros(3, 20, 20), every).any())
    assert bool((finish_masks(torch.ones(3, 20, 20), every) == 1).all())


@pytest.mark.parametrize("finish", [Finish(smooth_frames=2), Finish(feather=-1), Finish(block_size=0)])
def test_wrong_numbers_are_refused(finish: Finish) -> None:
    with pytest.raises(InputError):
        finish_masks(square(10, 20), finish)


def test_no_mask_is_refused() -> None:
    with pytest.raises(InputError, match="at least one mask"):
        finish_masks(torch.zeros(0, 8, 8), Finish())
