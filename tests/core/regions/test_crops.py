"""Boxes around masks: still or following, and pasted back without a trace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from vidseg.core.regions.crops import CropConfig, crop_frames, find_crop, paste_frames
from vidseg.core.types import InputError


def moving(count: int, height: int, width: int, seed: int) -> Tensor:
    """Return masks of a blob that walks at random, is missing in some frames, and touches the borders."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(-9, 10, (count, 2), generator=generator).cumsum(0) + torch.tensor([height, width]) // 2
    masks = torch.zeros(count, height, width)
    for number, (row, column) in enumerate(steps.tolist()):
        top, left = (max(0, min(place, side - 5)) for place, side in ((row, height), (column, width)))
        if number % 7 != 3:
            masks[number, top : top + 5, left : left + 7] = 1
    return masks


CLIPS = {
    "landscape": moving(20, 90, 160, 0),
    "portrait": moving(20, 161, 90, 1),
    "one frame": moving(1, 64, 64, 2),
    "smaller than a multiple": moving(5, 20, 21, 3),
}


@pytest.mark.parametrize("follow", [0, 1, 4])
@pytest.mark.parametrize("name", CLIPS)
def test_box_holds_the_mask_and_never_jumps(name: str, follow: int) -> None:
    masks = CLIPS[name]
    crop = find_crop(masks, CropConfig(margin=6, multiple=16, follow=follow))
    assert all(side % 16 == 0 for side in crop.size)
    assert int(crop.corners.diff(dim=0).abs().max() if len(masks) > 1 else 0) <= follow
    assert crop.masks.sum() >= masks.sum()
    for number, mask in enumerate(masks):
        rows, columns, above, left = crop.inner(number)
        assert mask[rows, columns].sum() == mask.sum() == crop.masks[number, above, left].sum()
        for corner, side, limit in zip(crop.corners[number].flip(0), crop.size, mask.shape, strict=True):
            assert side >= limit or 0 <= corner <= limit - side


def test_following_needs_a_smaller_box() -> None:
    masks = torch.zeros(30, 64, 320)
    for number in range(30):
        masks[number, 20:40, 9 * number : 9 * number + 20] = 1
    still, slow, fast = (find_crop(masks, CropConfig(0, 1, follow)).size[1] for follow in (0, 4, 9))
    assert (still, slow, fast) == (9 * 29 + 20, 5 * 29 + 20, 20)
    assert find_crop(masks, CropConfig(0, 1, 9)).corners[:, 0].tolist() == [9 * number for number in range(30)]


def test_aspect_is_kept_as_far_as_the_frame_goes() -> None:
    masks = torch.zeros(1, 200, 400)
    masks[0, 80:120, 100:120] = 1
    assert find_crop(masks, CropConfig(0, 8, 0, 2.0)).size == (40, 80)
    assert find_crop(masks, CropConfig(0, 8, 0, 0.5)).size == (40, 24)
    assert find_crop(masks, CropConfig(0, 8, 0, 100.0)).size == (40, 400)


@pytest.mark.parametrize("feather", [0, 5])
@pytest.mark.parametrize("name", CLIPS)
def test_an_identity_edit_gives_the_clip_back_to_the_bit(name: str, feather: int) -> None:
    masks = CLIPS[name]
    frames = torch.rand((*masks.shape, 3), generator=torch.Generator().manual_seed(4))
    crop = find_crop(masks, CropConfig(margin=6, multiple=16, follow=2))
    assert torch.equal(paste_frames(frames, crop_frames(frames, crop), crop, feather=feather), frames)


@pytest.mark.parametrize("feather", [0, 3])
def test_nothing_changes_outside_the_mask(feather: int) -> None:
    masks = CLIPS["landscape"]
    frames = torch.rand((*masks.shape, 3), generator=torch.Generator().manual_seed(5))
    crop = find_crop(masks, CropConfig(margin=6, multiple=16, follow=2))
    edited = torch.full((23, 2 * crop.size[0], 2 * crop.size[1], 4), 0.25)  # longer, larger, with alpha
    pasted = paste_frames(frames, edited, crop, feather=feather)
    outside = masks == 0
    assert torch.equal(pasted[outside], frames[outside])
    inside = masks == 1
    assert bool((pasted[inside] != frames[inside]).all())
    assert (pasted[inside] - 0.25).abs().max() < (1e-6 if feather == 0 else 0.6)
    short = paste_frames(frames, edited[:5], crop)
    assert torch.equal(short[5:], frames[5:])


def test_another_mask_says_what_was_edited() -> None:
    masks = CLIPS["landscape"]
    frames = torch.zeros(*masks.shape, 3)
    crop = find_crop(masks, CropConfig(margin=6))
    pasted = paste_frames(frames, torch.ones(20, *crop.size, 3), crop, torch.ones(1, *crop.size))
    assert pasted.sum() == 3 * 20 * crop.size[0] * crop.size[1]


def test_the_seam_fades_at_the_box_but_not_at_the_border_of_the_frame() -> None:
    masks = torch.zeros(1, 32, 32)
    masks[0, 20:, 12:20] = 1
    crop = find_crop(masks, CropConfig(0, 1))
    pasted = paste_frames(torch.zeros(1, 32, 32, 1), torch.ones(1, *crop.size, 1), crop, feather=1)[0, ..., 0]
    assert pasted[31, 12:20].tolist() == [0.5] + [1] * 6 + [0.5]
    assert pasted[20, 12:20].tolist() == [0.5] * 8
    assert pasted.sum() == 12 * 8 - (12 + 12 + 6) / 2


def test_faults_are_named() -> None:
    masks = CLIPS["landscape"]
    crop = find_crop(masks, CropConfig())
    with pytest.raises(InputError, match="all are empty"):
        find_crop(torch.zeros(3, 8, 8), CropConfig())
    with pytest.raises(InputError, match="no negative number"):
        find_crop(masks, CropConfig(multiple=0))
    with pytest.raises(InputError, match="must be the 20 frames of 160x90"):
        paste_frames(torch.zeros(19, 90, 160, 3), torch.zeros(1, 8, 8, 3), crop)
    with pytest.raises(InputError, match="`edited` must be images"):
        paste_frames(torch.zeros(20, 90, 160, 3), torch.zeros(0, 8, 8, 3), crop)
    with pytest.raises(InputError, match="`feather`"):
        paste_frames(torch.zeros(20, 90, 160, 3), torch.zeros(1, 8, 8, 3), crop, feather=-1)
    assert "Crop(20 boxes of" in repr(crop)
