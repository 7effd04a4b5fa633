"""Corrections reach the frames that they should, from the features alone."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from vidseg.core.regions import corrections
from vidseg.core.regions import growing as marks
from vidseg.core.regions.corrections import Correction, Painted, correct_labels, parse_corrections
from vidseg.core.regions.labels import mask_labels
from vidseg.core.regions.propagation import PropagationConfig, propagate_shares, reduce_tokens
from vidseg.core.types import Features, Grid, InputError, LabelMaps, Region

GRID = Grid(12, 16)
NUM_FRAMES = 6
THINGS = {"left": (range(2, 6), range(1, 5)), "right": (range(5, 9), range(10, 14))}
REGIONS = (Region(0, "ground"), Region(7, "sky"))


def truth() -> Tensor:
    """Two squares, 1 and 2, that move down by a cell in every second frame, before a ground of two halves."""
    maps = torch.zeros(NUM_FRAMES, *GRID, dtype=torch.int64)
    for frame in range(NUM_FRAMES):
        for number, (rows, columns) in enumerate(THINGS.values(), 1):
            move = frame // 2
            maps[frame, rows.start + move : rows.stop + move, columns.start : columns.stop] = number
    return maps


@pytest.fixture(scope="module")
def features() -> Features:
    generator = torch.Generator().manual_seed(1)
    kinds = torch.randn(3, 24, generator=generator) * 3
    queries = kinds[truth().flatten(1)] + 0.3 * torch.randn(NUM_FRAMES, GRID.num_tokens, 24, generator=generator)
    nothing = torch.empty(NUM_FRAMES, 0)
    return Features(queries, queries, nothing, nothing, GRID, (96, 128))


@pytest.fixture(scope="module", params=[(12, 16), (96, 128)], ids=["coarse", "full"])
def labels(request: Any) -> LabelMaps:
    maps = torch.zeros(NUM_FRAMES, *request.param, dtype=torch.uint8)
    maps[:, : request.param[0] // 12] = 7  # a sky of one row of cells
    return LabelMaps(maps, REGIONS)


def applied(features: Features, labels: LabelMaps, text: str, painted: Painted | None = None) -> Correction:
    return correct_labels(features, labels, parse_corrections(text), painted=painted)


def region(result: Correction, name: str) -> Tensor:
    """Return where a region lies, ``(T,h,w)`` bool on the grid."""
    (label,) = (region.label for region in result.labels.regions if region.name == name)
    maps = result.labels.maps
    step = maps.shape[1] // GRID.h
    return mask_labels(maps[:, step // 2 :: step, step // 2 :: step], [label])[0]


def overlap(mask: Tensor, number: int, frames: slice = slice(None)) -> float:
    wanted = truth()[frames] == number
    return float((mask[frames] & wanted).sum() / (mask[frames] | wanted).sum())


def test_examples_in_the_documentation() -> None:
    assert [doctest.testmod(module).failed for module in (corrections, marks)] == [0, 0]


def test_a_point_in_a_middle_frame_finds_the_thing_in_all_frames(features: Features, labels: LabelMaps) -> None:
    result = applied(features, labels, "new 3 0.18,0.4 ball")
    assert overlap(region(result, "ball"), 1) > 0.9
    assert not result.problems
    assert result.labels.maps.shape == labels.maps.shape
    assert result.labels.maps.dtype == labels.maps.dtype


def test_a_box_and_a_painted_mask_find_the_thing(features: Features, labels: LabelMaps) -> None:
    boxed = applied(features, labels, "box 0 0.55,0.3 cup\nbox 0 0.92,0.8 cup")
    assert overlap(region(boxed, "cup"), 2) > 0.9
    mask = torch.nn.functional.interpolate((truth()[2] == 2).float()[None, None], (48, 64))[0, 0]
    painted = applied(features, labels, "", Painted(mask, 2, "cup"))
    assert overlap(region(painted, "cup"), 2) > 0.9


def test_a_spot_is_another_region_from_its_frame_on(features: Features, labels: LabelMaps) -> None:
    found = applied(features, labels, "new 0 0.18,0.3 ball\nnew 0 0.75,0.6 cup").labels
    result = applied(features, found, "3 0.18,0.4 cup")
    assert overlap(region(result, "ball"), 1, slice(0, 3)) > 0.9
    assert not bool(region(result, "ball")[3:].any())
    both = (truth() > 0)[3:]
    assert float((region(result, "cup")[3:] & both).sum() / (region(result, "cup")[3:] | both).sum()) > 0.9


def test_split_and_merge_are_inverse(features: Features, labels: LabelMaps) -> None:
    found = applied(features, labels, "new 0 0.18,0.3 ball\nnew 0 0.75,0.6 cup").labels
    both = applied(features, found, "merge 0 0.18,0.3 things\nmerge 1 0.75,0.6 things")
    assert [region.name for region in both.labels.regions] == ["ground", "things", "sky"]
    parts = applied(features, both.labels, "split 2 0.18,0.4 ball\nsplit 2 0.75,0.6 cup")
    assert torch.equal(parts.labels.maps, found.maps)


def test_regions_marked_before_are_split_and_merged(features: Features, labels: LabelMaps) -> None:
    things = "new 0 0.18,0.3 things\nnew 0 0.75,0.6 things\n"
    parts = applied(features, labels, things + "split 0 0.18,0.3 ball\nsplit 0 0.75,0.6 cup")
    assert [region.name for region in parts.labels.regions] == ["ground", "ball", "cup", "sky"]
    assert min(overlap(region(parts, "ball"), 1), overlap(region(parts, "cup"), 2)) > 0.9
    text = "new 0 0.18,0.3 ball\nnew 0 0.75,0.6 cup\nmerge 0 0.18,0.3 things\nmerge 0 0.75,0.6 things"
    assert [region.name for region in applied(features, labels, text).labels.regions] == ["ground", "things", "sky"]


def test_a_name_stands_for_one_region(features: Features, labels: LabelMaps) -> None:
    parts = applied(features, labels, "split 0 0.18,0.3 Sky\nsplit 0 0.75,0.6 cup")
    assert sorted(region.name for region in parts.labels.regions) == ["cup", "sky"]
    assert bool(region(parts, "sky")[:, 0].all())
    assert bool(region(parts, "sky")[0, 3, 3])
    one = applied(features, labels, "new 0 0.18,0.3 ball\nmerge 0 0.18,0.3 sky")
    assert [region.name for region in one.labels.regions] == ["ground", "sky"]
    assert torch.equal(region(one, "sky")[0], (truth()[0] == 1) | (torch.arange(GRID.h) == 0)[:, None])


def test_points_outside_hold_a_thing_back(features: Features, labels: LabelMaps) -> None:
    free = region(applied(features, labels, "new 0 0.45,0.9 floor"), "floor")[0]
    held = region(applied(features, labels, "new 0 0.45,0.9 floor\nnot 0 0.95,0.9 floor"), "floor")[0]
    assert bool(held.any())
    assert not bool((held & ~free)[:, 13:].any())
    assert not bool(held[10, 15])


def test_a_second_point_corrects_the_spot_alone(features: Features, labels: LabelMaps) -> None:
    result = applied(features, labels, "new 0 0.18,0.3 ball\nnew 4 0.75,0.7 ball")
    assert overlap(region(result, "ball"), 1, slice(0, 1)) > 0.9
    assert bool(region(result, "ball")[4, 8, 12])
    spot = region(applied(features, labels, "new 0 0.18,0.3 ball\nnew 5 0.95,0.01 ball"), "ball")[5]
    assert bool(spot[0, 15])
    assert not bool(spot[1:, 8:].any())  # only of the sky, on which the point lies


def test_a_painted_mask_is_the_whole_region_in_its_frame(features: Features, labels: LabelMaps) -> None:
    wrong = "new 0 0.18,0.3 ball\nnew 0 0.75,0.6 ball"  # the second thing is no ball
    mask = torch.nn.functional.interpolate((truth()[5] == 1).float()[None, None], (48, 64))[0, 0]
    result = region(applied(features, labels, wrong, Painted(mask, 5, "Ball")), "ball")
    assert overlap(result, 1, slice(3, 6)) > 0.9
    assert bool(result[0, 6, 11])
    assert not bool(result[5, 8, 11])


def test_the_nearest_mark_decides(features: Features, labels: LabelMaps) -> None:
    result = applied(features, labels, "new 0 0.18,0.3 ball\nnew 5 0.18,0.5 ground")
    assert bool(region(result, "ball")[0, 3, 3])
    assert not bool(region(result, "ball")[5, 6, 2])


@pytest.mark.parametrize("then", ["3 0.18,0.4 cup", "3 0.5,0.01 ball"], ids=["another name", "the same name"])
def test_a_piece_in_the_frame_of_a_thing_leaves_the_thing_before(
    features: Features, labels: LabelMaps, then: str
) -> None:
    ball = region(applied(features, labels, f"new 3 0.18,0.4 ball\n{then}"), "ball")
    assert overlap(ball, 1, slice(0, 3)) > 0.9
    assert bool(ball[3:, 5, 2].any()) == then.endswith("ball")


@pytest.mark.parametrize("name", ["ball", "road"], ids=["another region", "the same region"])
def test_of_one_frame_the_last_decides(features: Features, labels: LabelMaps, name: str) -> None:
    ground = "3 0.5,0.95 road"
    mask = torch.nn.functional.interpolate((truth()[3] == 1).float()[None, None], (96, 128))[0, 0]
    assert overlap(region(applied(features, labels, f"{ground}\nnew 3 0.18,0.4 ball"), "ball"), 1) > 0.9
    painted = region(applied(features, labels, ground, Painted(mask, 3, name)), name)
    assert overlap(painted, 1, slice(3, 4)) > 0.9


@pytest.mark.parametrize("text", ["9 0.5,0.5 road", "new 6 0.1,0.1 x", "split 7 0.1,0.1 a\nsplit 7 0.9,0.9 b"])
def test_a_frame_that_is_not_there_is_reported(features: Features, labels: LabelMaps, text: str) -> None:
    result = applied(features, labels, text)
    assert "there is no frame" in result.problems[0]
    assert "line 1" in result.problems[0]
    assert torch.equal(result.labels.maps, labels.maps)


def test_a_split_of_two_regions_is_reported(features: Features, labels: LabelMaps) -> None:
    result = applied(features, labels, "split 0 0.5,0.01 a\nsplit 0 0.5,0.9 b")
    assert len(result.problems) == 2
    assert torch.equal(result.labels.maps, labels.maps)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5 1.2,0.5 road", r"points in \[0, 1\]"),
        ("5 0.2,0.5", "name the region"),
        ("road 5 0.2,0.5", "start its lines with one of is, new"),
        ("box 1 0.1,0.1 a", "two `box` lines"),
        ("split 1 0.1,0.1 a\nsplit 1 0.2,0.1 A", "two names"),
        ("not 1 0.1,0.1 a", "a `new` line"),
    ],
)
def test_wrong_lines_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_corrections(text)


def test_wrong_inputs_are_refused(features: Features, labels: LabelMaps) -> None:
    with pytest.raises(InputError, match="empty"):
        applied(features, labels, "", Painted(torch.zeros(8, 8), 0, "a"))
    with pytest.raises(InputError, match="mask_frame"):
        applied(features, labels, "", Painted(torch.ones(8, 8), 6, "a"))
    with pytest.raises(InputError, match=r"`labels` must have as many frames"):
        applied(features, LabelMaps(labels.maps[:2], REGIONS), "0 0.5,0.5 a")
    full = tuple(Region(label, f"region {label}") for label in range(255))
    with pytest.raises(InputError, match="all 255 are in use"):
        applied(features, LabelMaps(labels.maps, full), "new 0 0.18,0.3 ball")
    with pytest.raises(InputError, match="finite"):
        applied(features._replace(queries=features.queries * torch.nan), labels, "")


def test_nothing_to_correct_changes_nothing(features: Features, labels: LabelMaps) -> None:
    result = applied(features, labels, "# a comment\n\n")
    assert torch.equal(result.labels.maps, labels.maps)
    assert result.labels.regions == labels.regions


def test_the_same_text_gives_the_same_labels(features: Features, labels: LabelMaps) -> None:
    text = "new 3 0.18,0.4 ball\n4 0.75,0.7 cup\nbox 0 0.55,0.3 pot\nbox 0 0.92,0.8 pot"
    assert torch.equal(applied(features, labels, text).labels.maps, applied(features, labels, text).labels.maps)


def test_a_still_clip_keeps_the_part() -> None:
    tokens = reduce_tokens(torch.randn(1, 30, 8, generator=torch.Generator().manual_seed(2)).repeat(4, 1, 1), 32)
    start = (torch.arange(30) % 4 == 0).float()[:, None]
    shares = propagate_shares(tokens, Grid(5, 6), start, 1, PropagationConfig(num_neighbors=1), both_ways=True)
    assert torch.equal(shares, start.expand(4, 30, 1))
    assert not bool(propagate_shares(tokens, Grid(5, 6), start, 1, PropagationConfig())[0].any())


class Work(TorchDispatchMode):
    """Counts operations, the values that they make, and the multiplications of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.values = self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = sum(part.numel() for part in tree_leaves(result) if isinstance(part, Tensor))
        self.calls += 1
        self.values += made
        if func.overloadpacket in {torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm}:
            self.products += made * args[-1].shape[-2]
        return result


def work_of(num_frames: int) -> Work:
    """Return what one point in the middle of a clip takes at the size of the bundled model, 448x256."""
    grid = Grid(16, 28)
    generator = torch.Generator().manual_seed(1)
    scene = torch.randn(1, grid.num_tokens, 128, generator=generator)
    queries = scene + 0.2 * torch.randn(num_frames, grid.num_tokens, 128, generator=generator)
    nothing = torch.empty(num_frames, 0)
    clip = Features(queries, queries, nothing, nothing, grid, (256, 448))
    maps = torch.zeros(num_frames, *grid, dtype=torch.uint8)
    maps[:, 4:10, 8:16] = 1
    text = f"{num_frames // 2} 0.4,0.4 road"
    with Work() as work:
        correct_labels(clip, LabelMaps(maps, (Region(0, "a"), Region(1, "b"))), parse_corrections(text))
    return work


def test_work_grows_with_the_frames_alone() -> None:
    """The least work that was reached, with little to spare: about ten milliseconds of a processor for each frame."""
    short, long = work_of(20), work_of(100)
    cells = 100 * 16 * 28
    assert long.values < 5.2 * short.values
    assert long.calls < 5.2 * short.calls
    assert long.calls < 60 * 100
    assert long.values < 5_000 * cells
    assert long.products < 15_000 * cells
