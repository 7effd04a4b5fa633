"""Corrections as text: the grammar, and which lines belong together.

A correction is a line in the grammar of `picks`: an action, a frame, a point, a name::

    50 0.40,0.62 road           # from frame 50 on, the piece of a region at this point is road
    new 30 0.21,0.35 ball       # the thing at this point is ball, also before; a new region, or more of a known one
    not 30 0.50,0.90 ball       # and this point is not part of it
    box 30 0.10,0.10 ball       # a new region in a box: two lines, opposite corners
    box 30 0.30,0.45 ball
    split 0 0.30,0.50 left arm  # the region under these points is several, here two, in all frames
    split 0 0.62,0.50 right arm
    merge 0 0.10,0.20 trees     # the regions under the points of this name are one, in all frames
    merge 9 0.90,0.20 trees

Where several claim a pixel, the one whose frame is nearest decides, and of one frame the last line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..types import InputError
from .points import PointLine, parse_points

IS, NEW, NOT, BOX, SPLIT, MERGE = "is", "new", "not", "box", "split", "merge"
ACTIONS = (IS, NEW, NOT, BOX, SPLIT, MERGE)
"""What a line may do; a line without an action means the first."""


class CorrectionGroup(NamedTuple):
    """Lines that are one correction."""

    action: str
    frame: int
    name: str
    points: tuple[PointLine, ...]
    outside: tuple[PointLine, ...] = ()


def parse_corrections(text: str) -> tuple[PointLine, ...]:
    """Read the lines of the module's grammar; empty lines and comments are left out.

    >>> parse_corrections("50 0.4,0.62 road")[0].action
    'is'

    Raises:
        InputError: a line is no correction, its point lies outside the frame, it has no name, a box has not two
            corners, a split has one part, or there is a point outside of nothing.
    """
    points = parse_points(text, ACTIONS, field="corrections")
    for point in points:
        if not point.name:
            raise InputError(
                f"`corrections` must name the region at the end of each line, but got no name in line {point.line}. "
                "Write for example '50 0.4,0.6 road'."
            )
    for group in group_corrections(points):
        _require_whole(group, points)
    return points


def _require_whole(group: CorrectionGroup, points: Sequence[PointLine]) -> None:
    """Check that a group has the points that its action needs."""
    title = f"{group.name!r} in frame {group.frame}"
    if group.action == BOX and len(group.points) != 2:
        raise InputError(
            f"`corrections` must hold two `box` lines, opposite corners, for {title}, but got {len(group.points)}. "
            "Add or remove corners."
        )
    if group.action == NOT:
        raise InputError(
            f"`corrections` must hold a `new` line beside each `not` line, but got none for {title}. Add the line."
        )
    parts = {point.name.casefold() for point in points if (point.action, point.frame) == (SPLIT, group.frame)}
    if group.action == SPLIT and len(parts) < 2:
        raise InputError(
            f"`corrections` must hold `split` lines of two names in a frame, but got only {title}. Add a point of the "
            "other part."
        )


def group_corrections(points: Sequence[PointLine]) -> tuple[CorrectionGroup, ...]:
    """Join the lines that are one correction, in the order of their first lines."""
    found: dict[tuple[str, int, str], list[PointLine]] = {}
    outside: dict[tuple[int, str], list[PointLine]] = {}
    seeds = {(point.frame, point.name.casefold()) for point in points if point.action == NEW}
    for point in points:
        name, frame = point.name.casefold(), point.frame
        if point.action == NOT and (frame, name) in seeds:
            outside.setdefault((frame, name), []).append(point)
            continue
        if point.action == SPLIT:
            name = ""
        if point.action == MERGE:
            frame = -1
        found.setdefault((point.action, frame, name), []).append(point)
    return tuple(
        CorrectionGroup(action, lines[0].frame, lines[0].name, tuple(lines), tuple(outside.get((frame, name), ())))
        if action == NEW
        else CorrectionGroup(action, lines[0].frame, lines[0].name, tuple(lines))
        for (action, frame, name), lines in found.items()
    )
