"""Things of a region keep their ids."""

from __future__ import annotations

import pytest
import torch
from vidseg.core.regions.instances import InstanceConfig, split_instances
from vidseg.core.types import InputError, LabelMaps, Region

REGIONS = (Region(0, "ground"), Region(3, "person"))
ANY = InstanceConfig(min_share=0.0, min_frames=1)


def clip(*columns: tuple[int, ...], width: int = 24) -> LabelMaps:
    """Squares of 4x4 pixels at the given columns of each frame."""
    maps = torch.zeros(len(columns), 10, width, dtype=torch.uint8)
    for frame, starts in zip(maps, columns, strict=True):
        for start in starts:
            frame[3:7, start : start + 4] = 3
    return LabelMaps(maps, REGIONS)


def test_two_things_keep_their_ids_while_they_move() -> None:
    result = split_instances(clip((1, 15), (2, 14), (3, 13)), [3])
    assert result.regions == (Region(0, "ground"), Region(1, "person 2"), Region(3, "person 1"))
    assert [frame[5, 3].item() for frame in result.maps] == [3, 3, 3]
    assert [frame[5, 16].item() for frame in result.maps] == [1, 1, 1]
    assert torch.equal(result.maps > 0, clip((1, 15), (2, 14), (3, 13)).maps > 0)


def test_things_that_touch_stay_two_and_part_as_they_were() -> None:
    result = split_instances(clip((1, 12), (4, 9), (6, 10), (4, 12), (2, 14)), [3])
    assert set(result.maps.unique().tolist()) == {0, 1, 3}
    assert result.maps[2, 5, 6] == 3
    assert result.maps[2, 5, 13] == 1
    assert result.maps[4, 5, 3] == 3
    assert result.maps[4, 5, 16] == 1


def test_what_is_small_or_short_joins_the_nearest() -> None:
    labels = clip((1, 15), (1, 15), (1, 15), (1, 15))
    labels.maps[1, 9, 22] = 3  # a single pixel in a single frame
    result = split_instances(labels, [3])
    assert result.maps[1, 9, 22] == result.maps[1, 5, 16]
    assert len(result.regions) == 3
    assert len(split_instances(labels, [3], ANY).regions) == 4


@pytest.mark.parametrize("gaps", [(5,), (0,), (2, 4, 6, 8)])
def test_a_gap_of_a_frame_does_not_cut_a_thing_in_two(gaps: tuple[int, ...]) -> None:
    maps = torch.zeros(10, 12, 40, dtype=torch.uint8)
    maps[:, 3:9, 4:34] = 3
    maps[list(gaps), :, 20:22] = 0
    labels = LabelMaps(maps, REGIONS)
    result = split_instances(labels, [3])
    assert result.regions == REGIONS
    assert torch.equal(result.maps, maps)
    assert len(split_instances(labels, [3], ANY).regions) == 3


def test_what_comes_where_a_piece_was_for_a_frame_is_no_part_of_it() -> None:
    maps = torch.zeros(6, 12, 40, dtype=torch.uint8)
    maps[:, 3:9, 4:34] = 3
    maps[1, :, 20:22] = 0
    maps[2:, :, 27:] = 0
    maps[3:, 3:9, 29:34] = 3
    result = split_instances(LabelMaps(maps, REGIONS), [3])
    assert [frame.unique().tolist() for frame in result.maps] == [[0, 3]] * 3 + [[0, 1, 3]] * 3


def test_a_thing_that_comes_off_for_long_stays_another() -> None:
    result = split_instances(clip((4, 8), (4, 8), (4, 11), (4, 11), (4, 11), (4, 8)), [3])
    assert result.maps[1, 5].unique().tolist() == [0, 3]
    assert [len(frame.unique()) for frame in result.maps[2:]] == [3, 3, 3, 3]


def test_a_thing_goes_on_where_enough_of_it_was() -> None:
    twice = InstanceConfig(min_share=8 / 240, min_frames=1)  # a thing has 8 pixels or more, so that 2 continue it
    assert len(split_instances(clip((1,), (4,)), [3], twice).regions) == 2  # a column of 4
    labels = clip((1,), (4,))
    labels.maps[1] = labels.maps[1].roll(3, 0)  # a corner of 1
    assert len(split_instances(labels, [3], twice).regions) == 3


def test_in_a_clip_of_two_frames_two_are_enough() -> None:
    assert len(split_instances(clip((1, 15), (2, 14)), [3]).regions) == 3


def test_a_thing_hidden_for_a_frame_comes_back_as_itself() -> None:
    result = split_instances(clip((1, 15), (1,), (1, 15), (1, 15)), [3])
    assert result.maps[0, 5, 16] == result.maps[3, 5, 16] == 1


def test_one_thing_keeps_label_and_name() -> None:
    labels = clip((1,), (2,), (3,))
    result = split_instances(labels, [3])
    assert result.regions == REGIONS
    assert torch.equal(result.maps, labels.maps)


def test_the_split_does_not_depend_on_other_regions_or_repetition() -> None:
    labels = clip((1, 15), (2, 14), (3, 13))
    assert torch.equal(split_instances(labels, [3]).maps, split_instances(labels, [3]).maps)
    assert torch.equal(split_instances(labels, [0, 3]).maps == 3, split_instances(labels, [3]).maps == 3)


def test_absent_and_unknown_regions() -> None:
    labels = clip((), ())
    assert torch.equal(split_instances(labels, [3]).maps, labels.maps)
    with pytest.raises(InputError, match="labels of regions"):
        split_instances(labels, [9])


def test_more_things_than_labels_are_refused() -> None:
    regions = tuple(Region(label, str(label)) for label in range(254))
    labels = LabelMaps(clip((1, 9, 17)).maps, regions)
    with pytest.raises(InputError, match="at most 2 things"):
        split_instances(labels, [3], ANY)
