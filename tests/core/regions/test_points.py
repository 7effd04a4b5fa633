"""Points as text, and the regions found under them: round trips, loops, and what happens when a clip has changed."""

from __future__ import annotations

import doctest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vidseg.core.regions import points as picks
from vidseg.core.regions.labels import list_regions
from vidseg.core.regions.points import (
    PointLine,
    describe_picks,
    find_label_under,
    find_pixel,
    format_points,
    parse_points,
    resolve_points,
)
from vidseg.core.types import InputError, LabelMaps, Region

# Quarters of two frames: 1 2 / 3 4, and the same turned around.
MAPS = torch.tensor([[[1, 2], [3, 4]], [[4, 3], [2, 1]]], dtype=torch.uint8).repeat_interleave(8, 1)
MAPS = MAPS.repeat_interleave(12, 2)
CLIP = LabelMaps(MAPS, list_regions(MAPS, {4: "grass"}))

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=12)
COORDINATES = st.integers(0, 10_000).map(lambda number: number / 10_000)
POINTS = st.builds(
    PointLine, st.sampled_from(picks.ACTIONS), st.integers(0, 99_999), COORDINATES, COORDINATES, NAMES, st.just(0)
)


def test_examples_in_the_documentation() -> None:
    assert doctest.testmod(picks).failed == 0


@settings(max_examples=30)
@given(st.lists(POINTS, max_size=6))
def test_what_is_written_is_read_again(points: list[PointLine]) -> None:
    again = parse_points(format_points(points))
    assert [point._replace(line=0) for point in again] == points
    assert format_points(again) == format_points(points)


def test_spaces_comments_and_empty_lines_do_not_matter() -> None:
    text = "  # two points\n\n\tPICK  7 .5 , 1.  a   dog \r\n  name 0 0,0\n"
    assert parse_points(text) == (PointLine("pick", 7, 0.5, 1.0, "a dog", 3), PointLine("name", 0, 0.0, 0.0, "", 4))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dog", "frame, x,y as fractions"),
        ("0 0.5 0.5 dog", "frame, x,y as fractions"),
        ("-1 0.5,0.5", "frame, x,y as fractions"),
        ("1.5 0.5,0.5", "frame, x,y as fractions"),
        ("0 nan,0.5", "frame, x,y as fractions"),
        ("0 1e-1,0.5", "frame, x,y as fractions"),
        ("0 320,200 dog", r"Divide pixels by the width"),
        ("0 0.5,-0.1", r"\[0, 1\]"),
        ("paint 0 0.5,0.5", "one of pick, name, hide"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(line: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        parse_points(f"0 0.1,0.1\n{line}")
    assert "line 2" in str(error.value)
    assert str(error.value).startswith("`picks` must")


def test_other_inputs_have_other_actions() -> None:
    assert parse_points("0 0,0\nnew 1 1,1", ("move", "new"), field="fixes")[0].action == "move"
    with pytest.raises(InputError, match="`fixes` must start its lines with one of move, new"):
        parse_points("pick 0 0,0", ("move", "new"), field="fixes")


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (480, 854)])
def test_centers_of_pixels_are_found_again(size: tuple[int, int]) -> None:
    for row in range(size[0]):
        for column in {0, size[1] // 3, size[1] - 1}:
            text = format_points([PointLine("pick", 0, (column + 0.5) / size[1], (row + 0.5) / size[0])])
            assert find_pixel(parse_points(text)[0], size) == (row, column)


def test_borders_belong_to_the_frame() -> None:
    assert [find_label_under(MAPS, PointLine("pick", 0, x, y)) for y in (0, 1) for x in (0, 1)] == [1, 2, 3, 4]
    assert find_label_under(MAPS, PointLine("pick", 2, 0, 0)) is None


def test_points_of_one_name_are_one_region_through_the_clip() -> None:
    found = resolve_points(parse_points("1 0.1,0.1 Dog\n0 0.1,0.9 dog\n0 0.9,0.1"), CLIP)
    assert found.labels.regions == (Region(1, "label 1"), Region(2, "label 2"), Region(3, "Dog"))
    assert torch.equal(found.labels.maps, torch.where(MAPS == 4, 3, MAPS))
    assert (found.picked, found.hidden, found.found, found.problems) == ((2, 3), (), (4, 3, 2), ())


def test_the_order_of_points_changes_no_region() -> None:
    lines = ["0 0.1,0.1 a", "0 0.9,0.1 b", "1 0.1,0.1 a", "hide 0 0.1,0.9"]
    first = resolve_points(parse_points("\n".join(lines)), CLIP)
    turned = resolve_points(parse_points("\n".join(reversed(lines))), CLIP)
    assert torch.equal(first.labels.maps, turned.labels.maps)
    assert (first.picked, first.hidden, first.labels.regions) == (turned.picked, turned.hidden, turned.labels.regions)


@given(st.permutations([1, 2, 3, 4]))
def test_other_label_numbers_pick_the_same_pixels(numbers: list[int]) -> None:
    table = torch.tensor([0, *numbers], dtype=torch.uint8)
    maps = table[MAPS.long()]
    points = parse_points("0 0.1,0.1 a\n1 0.1,0.1 a\nname 0 0.9,0.1 b")
    masks = []
    for clip in (CLIP, LabelMaps(maps, list_regions(maps))):
        found = resolve_points(points, clip)
        masks.append(torch.isin(found.labels.maps, torch.tensor(found.picked, dtype=torch.uint8)))
        assert {region.name for region in found.labels.regions} >= {"a", "b"}
    assert torch.equal(*masks)


def test_the_last_action_on_a_region_counts() -> None:
    found = resolve_points(parse_points("0 0.1,0.1\nhide 1 0.9,0.9\nhide 0 0.9,0.1\n0 0.95,0.05"), CLIP)
    assert (found.picked, found.hidden) == ((2,), (1,))


def test_a_merged_region_is_hidden_only_as_a_whole_and_picked_in_part() -> None:
    assert resolve_points(parse_points("hide 0 0,0 a\nname 0 1,0 a"), CLIP).hidden == ()
    assert resolve_points(parse_points("hide 0 0,0 a\nhide 0 1,0 a"), CLIP).hidden == (1,)
    assert resolve_points(parse_points("hide 0 0,0 a\n0 1,0 a"), CLIP).picked == (1,)


def test_what_is_not_found_is_said_and_the_rest_holds() -> None:
    void = LabelMaps(CLIP.maps, CLIP.regions[1:])
    text = "9 0.5,0.5 cat\n0 0.1,0.1 sky\n0 0.9,0.1 dog\n1 0.1,0.9 wolf\n0 0.9,0.9"
    found = resolve_points(parse_points(text), void)
    assert found.problems == (
        "line 1 (cat): there is no frame 9, the last one is 1.",
        "line 2 (sky): there is no region at this point.",
        "line 4 (wolf): the point lies on the same region as line 3 (dog), whose name stays.",
    )
    assert found.found == (None, None, 2, 2, 4)
    assert found.picked == (2, 4)
    words = describe_picks(found, lambda label: f"{label} %")
    assert words.splitlines()[0] == "Picked: dog (id 2, 2 %); grass (id 4, 4 %)"
    assert words.count("Not found: ") == 3


def test_nothing_picked_is_no_error() -> None:
    found = resolve_points((), CLIP)
    assert found.labels.regions == CLIP.regions
    assert torch.equal(found.labels.maps, MAPS)
    assert found.picked == ()
    assert describe_picks(found).startswith("Picked: nothing.")
    hidden = describe_picks(resolve_points(parse_points("hide 0 1,1"), CLIP))
    assert "Hidden: grass (id 4)" in hidden
