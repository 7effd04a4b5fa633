"""Regions as tracks of packed masks and back, and the four values of the mask of what is removed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from vidseg.core.regions.tracks import AFFECTED, BACKGROUND, BOTH, OBJECT, make_quadmask, pack_track, unpack_track
from vidseg.core.types import MAX_LABEL, InputError, LabelMaps, Region

REGIONS = (Region(0, "ground"), Region(2, "left"), Region(3, "right"), Region(9, "absent"))


def scene(width: int) -> LabelMaps:
    """Return two things that move over the ground, single pixels among them."""
    maps = torch.zeros(4, 30, width, dtype=torch.uint8)
    for number in range(4):
        maps[number, 5:15, 3 + number : 12 + number] = 2
        maps[number, 8:20, width - 12 - number : width - number] = 3
    maps[1, 29, width - 1] = 2
    maps[2, 0, 0] = 3
    return LabelMaps(maps, REGIONS)


@pytest.mark.parametrize(("width", "repeats"), [(64, 1), (60, 2), (58, 4), (53, 8)])
def test_masks_are_packed_by_rows_of_bytes(width: int, repeats: int) -> None:
    labels = scene(width)
    track = pack_track(labels, [3, 9])
    packed = track.pop("packed_masks")
    assert track == {"orig_size": (30, width), "n_frames": 4, "scores": [1.0, 1.0]}
    bits = np.unpackbits(packed.numpy(), axis=-1, bitorder="little").reshape(4, 2, 30, width, repeats)
    assert bool((bits == bits[..., :1]).all())
    assert np.array_equal(bits[:, 0, :, :, 0], labels.maps.numpy() == 3)
    assert not bits[:, 1].any()


@pytest.mark.parametrize("width", [64, 53])
def test_a_track_comes_back_as_regions(width: int) -> None:
    labels = scene(width)
    back = unpack_track(pack_track(labels, [2, 3, 9]), ["left", "right", "absent"])
    table = torch.tensor([0, 0, 1, 2], dtype=torch.uint8)
    assert torch.equal(back.maps, table[labels.maps.long()])
    assert [region.name for region in back.regions] == ["background", "left", "right", "absent"]


def test_masks_of_another_size_are_scaled_and_cut_at_a_half() -> None:
    packed = torch.zeros(1, 1, 2, 1, dtype=torch.uint8)
    packed[0, 0, 0] = 0b00001111
    back = unpack_track({"packed_masks": packed, "orig_size": (4, 16)})
    assert back.maps[0].tolist() == [[1] * 8 + [0] * 8] * 2 + [[0] * 16] * 2


def overlapping() -> dict[str, Any]:
    packed = torch.full((4, 2, 30, 8), 255, dtype=torch.uint8)
    packed[:, 0, 15:] = 0
    return {"packed_masks": packed, "orig_size": (30, 64)}


def test_objects_are_drawn_over_regions_the_first_on_top() -> None:
    both = unpack_track(overlapping(), ["person"], scene(64))
    assert [region.name for region in both.regions] == ["ground", "person", "left", "right", "object 1", "absent"]
    assert bool((both.maps[:, :15] == 1).all())
    assert bool((both.maps[:, 15:] == 4).all())


def test_nothing_tracked_changes_nothing() -> None:
    labels, track = scene(64), pack_track(scene(64), [])
    assert track["packed_masks"] is None
    assert torch.equal(unpack_track(track, below=labels).maps, labels.maps)
    assert not unpack_track(track).maps.any()


@pytest.mark.parametrize(
    ("track", "options", "said"),
    [
        (3, {}, "`track` must be SAM3_TRACK_DATA, but got int"),
        ({"packed_masks": None}, {}, "must be SAM3_TRACK_DATA"),
        (overlapping(), {"below": scene(53)}, "4 frames of 53x30, but got 4 of 64x30"),
        (overlapping(), {"names": ["a", "b", "c"]}, "at most 2"),
        (
            overlapping(),
            {"below": LabelMaps(scene(64).maps, tuple(Region(n, str(n)) for n in range(MAX_LABEL)))},
            "leave room",
        ),
    ],
)
def test_a_wrong_track_is_refused(track: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        unpack_track(track, **options)


def quad(affected: list[int], grow_object: int = 0, grow_affected: int = 0) -> Tensor:
    labels = scene(64)
    labels.maps[:, 15:20, 3:12] = 3  # touches the object
    return make_quadmask(labels, [2], affected, grow_object, grow_affected)[0]


def test_the_mask_of_what_is_removed_has_four_values() -> None:
    alone = quad([])
    assert alone.unique().tolist() == [OBJECT, pytest.approx(BACKGROUND)]
    assert torch.equal(alone == OBJECT, scene(64).maps[0] == 2)
    assert set(quad([3]).unique().tolist()) == set(torch.tensor([OBJECT, AFFECTED, BACKGROUND]).tolist())
    grown = quad([3], 2, 2)
    assert float(grown[10, 6]) == OBJECT
    assert [float(grown[row, 6]) for row in (14, 18, 29)] == pytest.approx([BOTH, AFFECTED, BACKGROUND])
    assert int((grown <= BOTH).sum()) > int((alone == OBJECT).sum())


@pytest.mark.parametrize(("objects", "affected", "said"), [([2], [3, 2], r"\[2\] in both"), ([], [3], "no region")])
def test_what_is_removed_is_something_and_stands_apart(objects: list[int], affected: list[int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_quadmask(scene(64), objects, affected)
