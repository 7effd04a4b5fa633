"""Regions chosen by points, as text: read it, write it, and find the regions under the points.

Cluster numbers change with the seed, the number of clusters and the clip; a point on the thing does not. So a choice is
kept as lines of text, one point each, and is resolved against the labels at run time::

    # lines like this one are comments
    0 0.412,0.305 dog
    12 0.5,0.61 dog
    name 0 0.1,0.1 sky
    hide 3 0.9,0.95
    split 0 0.3,0.7

A line is an action (``pick`` if there is none), the number of a frame from 0 on, a point as fractions of width and
height from the upper left corner, and a name (none: the region keeps its own). Points of one name are one region.
``split`` comes first: it divides the region under the point in two, where its tree does.
What lines, blanks, numbers and names are is told in `typed`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

import torch
from torch import Tensor

from ..types import Grid, InputError, LabelMaps, Region, list_labels, quote, require_shape
from .cutting import merge_owners, split_region
from .labels import merge_labels, rename_regions
from .typed import BLANK, INK, clean_name, fold_name, parse_fraction, parse_whole, split_lines

PICK, NAME, HIDE, SPLIT = "pick", "name", "hide", "split"
ACTIONS = (PICK, NAME, HIDE, SPLIT)
"""``pick``: into the mask; ``name``: named only; ``hide``: out of sight in the picker, and not in the mask; ``split``:
two regions instead of one, before all others."""
DIGITS = 4
"""Digits of a coordinate in the text: fine enough for every pixel of frames up to 5000 pixels."""
_LINE = re.compile(
    f"(?:([A-Za-z-]+){BLANK}+)?([0-9]+){BLANK}+((?:(?!,){INK})+){BLANK}*,{BLANK}*({INK}+)(?:{BLANK}+(.*))?", re.DOTALL
)


class PointLine(NamedTuple):
    """One line of text: what to do with the region under a point.

    Attributes:
        action: one of the actions that the text may hold.
        frame: number of the frame, from 0 on.
        x: distance from the left border, as a fraction of the width in [0, 1].
        y: distance from the upper border, as a fraction of the height in [0, 1].
        name: what the region is to be called; empty for none.
        line: number of the line in the text, from 1 on; 0 if it comes from no text.
    """

    action: str
    frame: int
    x: float
    y: float
    name: str = ""
    line: int = 0


class Picks(NamedTuple):
    """What the points found.

    Attributes:
        points: the points, in the order of the text.
        labels: label maps and regions with the new names, regions of one name merged into the smallest label.
        names: new name by label before merging.
        merges: for each merged label the label that it becomes.
        picked: labels, after merging, that belong into the mask, sorted.
        hidden: labels, after merging, that are out of sight, sorted.
        found: for each point the label under it before merging, or None where there is no region.
        problems: one sentence for each point that is not resolved.
        splits: labels that were split, in order, before all else.
    """

    points: tuple[PointLine, ...]
    labels: LabelMaps
    names: dict[int, str]
    merges: dict[int, int]
    picked: tuple[int, ...]
    hidden: tuple[int, ...]
    found: tuple[int | None, ...]
    problems: tuple[str, ...]
    splits: tuple[int, ...] = ()


def parse_points(text: str, actions: Sequence[str] = ACTIONS, *, field: str = "picks") -> tuple[PointLine, ...]:
    """Read lines of points; empty lines and comments are left out. The first of ``actions`` needs no word.

    >>> parse_points("0 0.5,0.25 black dog")
    (PointLine(action='pick', frame=0, x=0.5, y=0.25, name='black dog', line=1),)
    """
    lines = enumerate(split_lines(text, field), 1)
    return tuple(_parse_line(line, number, actions, field) for number, line in lines if line and line[0] != "#")


def _parse_line(line: str, number: int, actions: Sequence[str], field: str) -> PointLine:
    match = _LINE.fullmatch(line)
    x, y = (parse_fraction(match[3]), parse_fraction(match[4])) if match else (None, None)
    frame, name = (parse_whole(match[2]), clean_name(match[5] or "")) if match else (None, None)
    if not match or x is None or y is None or frame is None or name is None:
        raise InputError(
            f"`{field}` must hold lines such as '0 0.5,0.25 dog' (frame, x,y as fractions of width and height, name), "
            f"but got {quote(line)} in line {number}. Correct the line or remove it."
        )
    action = (match[1] or actions[0]).lower()
    if action not in actions:
        raise InputError(
            f"`{field}` must start its lines with one of {', '.join(actions)} or a frame number, but got "
            f"{quote(match[1])} in line {number}. Put the name at the end."
        )
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise InputError(
            f"`{field}` must hold points in [0, 1], but got {match[3]},{match[4]} in line {number}. Divide pixels by "
            "the width and the height of the frame."
        )
    return PointLine(action, frame, x, y, name, number)


def format_points(points: Iterable[PointLine]) -> str:
    """Write points as lines that `parse_points` reads; the action ``pick`` is left out.

    >>> format_points([PointLine("hide", 3, 0.9, 1 / 3)])
    'hide 3 0.9,0.3333'
    """
    return "\n".join(_format_point(point) for point in points)


def _format_point(point: PointLine) -> str:
    x, y = (_format_coordinate(value) for value in (point.x, point.y))
    parts = ("" if point.action == PICK else point.action, str(point.frame), f"{x},{y}", point.name)
    return " ".join(filter(None, parts))


def _format_coordinate(value: float) -> str:
    """Return a coordinate with `DIGITS` digits; halves are rounded up, as in the browser."""
    rounded = Decimal(abs(value)).quantize(Decimal(1).scaleb(-DIGITS), ROUND_HALF_UP)
    return f"{rounded:f}".rstrip("0").rstrip(".")


def find_pixel(point: PointLine, size: tuple[int, int]) -> tuple[int, int]:
    """Return row and column of the pixel under a point, or of the nearest one, in frames of ``size`` (H, W)."""
    height, width = size
    return min(int(point.y * height), height - 1), min(int(point.x * width), width - 1)


def find_cells(points: Iterable[PointLine], grid: Grid) -> Tensor:
    """Return the cells ``(S,)`` int64 of the coarse grid under points, sorted."""
    places = (find_pixel(point, (grid.h, grid.w)) for point in points)
    return torch.tensor(sorted({row * grid.w + column for row, column in places})).long()


def mark_box(corners: Sequence[PointLine], grid: Grid) -> Tensor:
    """Return the cells ``(h,w)`` bool of the box between two opposite corners, at least one."""
    (top, left), (bottom, right) = (find_pixel(corner, (grid.h, grid.w)) for corner in corners)
    box = torch.zeros(tuple(grid), dtype=torch.bool)
    box[min(top, bottom) : max(top, bottom) + 1, min(left, right) : max(left, right) + 1] = True
    return box


def title_point(point: PointLine) -> str:
    """Return what a message calls a point: its line and its name."""
    place = f"line {point.line}" if point.line else f"the point {point.x:g},{point.y:g} of frame {point.frame}"
    return f"{place} ({point.name})" if point.name else place


def find_label_under(maps: Tensor, point: PointLine) -> int | None:
    """Return the label in ``maps`` ``(T,H,W)`` under a point; None where the clip has no such frame."""
    sizes = require_shape("maps", maps, "T H W")
    if point.frame >= sizes["T"]:
        return None
    row, column = find_pixel(point, (sizes["H"], sizes["W"]))
    return int(maps[point.frame, row, column])


def split_regions(points: Iterable[PointLine], labels: LabelMaps) -> tuple[LabelMaps, tuple[int, ...]]:
    """Split the regions under the points that say so, in their order; return what was split, too."""
    splits: list[int] = []
    for point in points:
        label = find_label_under(labels.maps, point) if point.action == SPLIT and labels.leaves else None
        if label in list_labels(labels.regions) and label is not None:
            parts = split_region(labels, label)
            splits += [label] if parts is not labels else []
            labels = parts
    return labels, tuple(splits)


def resolve_points(points: Sequence[PointLine], labels: LabelMaps) -> Picks:
    """Split regions, find those under points, name them, merge those of one name, and say which are picked.

    The first name of a region stays, and a later point that calls it something else is not resolved. Of several
    actions on one region the last counts. A merged region is picked if any of its parts is, and hidden if all are.
    """
    labels, splits = split_regions(points, labels)
    names: dict[int, PointLine] = {}
    actions: dict[int, str] = {}
    found: list[int | None] = []
    problems, known = [], {region.label for region in labels.regions}
    for point in points:
        label = find_label_under(labels.maps, point)
        problem = _find_problem(point, label, len(labels.maps), known, names)
        found.append(label if label in known else None)
        if problem or label is None:
            problems.append(problem)
            continue
        if point.action == SPLIT:
            if labels.leaves is None:
                problems.append(f"{title_point(point)}: only regions of the method tree can be split.")
            continue
        actions[label] = point.action
        if point.name:
            names.setdefault(label, point)
    new_names, merges = _group_names(names)
    maps, left = merge_labels(labels.maps, labels.regions, merges)
    made_of = merge_owners(labels.leaves, merges)
    named = replace(labels, maps=maps, regions=rename_regions(left, new_names), leaves=made_of)
    picked = {merges.get(label, label) for label, action in actions.items() if action == PICK}
    seen = {merges.get(region.label, region.label) for region in labels.regions if actions.get(region.label) != HIDE}
    hidden = {merges.get(label, label) for label, action in actions.items() if action == HIDE} - seen
    chosen, unseen = tuple(sorted(picked)), tuple(sorted(hidden))
    return Picks(tuple(points), named, new_names, merges, chosen, unseen, tuple(found), tuple(problems), splits)


def _find_problem(
    point: PointLine, label: int | None, num_frames: int, known: set[int], names: dict[int, PointLine]
) -> str:
    """Return why a point is not resolved, or nothing."""
    title = title_point(point)
    if label is None:
        return f"{title}: there is no frame {point.frame}, the last one is {num_frames - 1}."
    if label not in known:
        return f"{title}: there is no region at this point."
    first = names.get(label)
    if first and point.name and fold_name(first.name) != fold_name(point.name):
        return f"{title}: the point lies on the same region as {title_point(first)}, whose name stays."
    return ""


def _group_names(names: dict[int, PointLine]) -> tuple[dict[int, str], dict[int, int]]:
    """Return the name of each region that is named, and for the others of that name the smallest label of them."""
    groups: dict[str, list[int]] = {}
    for label, point in names.items():
        groups.setdefault(fold_name(point.name), []).append(label)
    leaders = {min(group): names[group[0]].name for group in groups.values()}
    merges = {label: min(group) for group in groups.values() for label in group if label != min(group)}
    return leaders, merges


def describe_picks(picks: Picks, share: Callable[[int], str] = lambda _label: "") -> str:
    """Return the outcome in words, a line each for picked and hidden regions and for every point not resolved.

    ``share`` tells what is known of a label after merging, such as its share of the clip.
    """
    return "\n".join(_describe(picks, share))


def _describe(picks: Picks, share: Callable[[int], str]) -> Iterator[str]:
    by_label = {region.label: region for region in picks.labels.regions}
    if picks.picked:
        yield "Picked: " + "; ".join(_format_region(by_label[label], share(label)) for label in picks.picked)
    else:
        yield "Picked: nothing. Click a region in the picker, or write a line such as '0 0.5,0.5 name'."
    if picks.hidden:
        yield "Hidden: " + "; ".join(_format_region(by_label[label], "") for label in picks.hidden)
    for problem in picks.problems:
        yield f"Not found: {problem}"


def _format_region(region: Region, known: str) -> str:
    return f"{region.name} ({', '.join(filter(None, (f'id {region.label}', known)))})"
