"""Corrections on any frame, as lines of text, propagated through the clip by the features: no diffusion is run.

A correction is a line in the grammar of `points`: an action, a frame, a point, a name::

    50 0.40,0.62 road           # from frame 50 on, the piece of a region at this point is road
    new 30 0.21,0.35 ball       # the thing at this point is ball, also before; a new region, or more of a known one
    not 30 0.50,0.90 ball       # and this point is not part of it
    box 30 0.10,0.10 ball       # a new region in a box: two lines, opposite corners
    box 30 0.30,0.45 ball
    split 0 0.30,0.50 left arm  # the region under these points is several, here two, in all frames
    split 0 0.62,0.50 right arm
    merge 0 0.10,0.20 trees     # the regions under the points of this name are one, in all frames
    merge 9 0.90,0.20 trees

Corrections are applied in the order of their lines, each to what the ones before left. Where several claim a pixel, the
one whose frame is nearest decides, and of one frame the last line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..types import MAX_LABEL, Features, InputError, LabelMaps, Progress, Region, no_progress, require_shape
from .growing import GrowthConfig, Walker, find_piece, find_thing_in_box, reduce_mask
from .labels import find_label_called, list_free_labels, merge_labels, reduce_reference, rename_regions
from .points import PointLine, find_cells, find_label_under, find_pixel, mark_box, parse_points, title_point
from .propagation import Layers, PropagationConfig, enlarge_shares, propagate_shares, reduce_tokens
from .typed import fold_name

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
    """
    points = parse_points(text, ACTIONS, field="corrections")
    for point in points:
        if not point.name:
            raise InputError(
                f"`corrections` must name the region at the end of each line, but got no name in line {point.line}. "
                "Write for example '50 0.4,0.6 road'."
            )
    parts: dict[int, set[str]] = {}
    for point in points:
        if point.action == SPLIT:
            parts.setdefault(point.frame, set()).add(fold_name(point.name))
    for group in group_corrections(points):
        _require_whole(group, len(parts.get(group.frame, ())))
    return points


def _require_whole(group: CorrectionGroup, num_parts: int) -> None:
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
    if group.action == SPLIT and num_parts < 2:
        raise InputError(
            f"`corrections` must hold `split` lines of two names in a frame, but got only {title}. Add a point of the "
            "other part."
        )


def group_corrections(points: Sequence[PointLine]) -> tuple[CorrectionGroup, ...]:
    """Join the lines that are one correction, in the order of their first lines."""
    found: dict[tuple[str, int, str], list[PointLine]] = {}
    outside: dict[tuple[int, str], list[PointLine]] = {}
    grown = {(point.frame, fold_name(point.name)) for point in points if point.action == NEW}
    for point in points:
        name, frame = fold_name(point.name), point.frame
        if point.action == NOT and (frame, name) in grown:
            outside.setdefault((frame, name), []).append(point)
            continue
        if point.action == SPLIT:
            name = ""
        if point.action == MERGE:
            frame = -1
        found.setdefault((point.action, frame, name), []).append(point)
    groups = []
    for (action, frame, key), lines in found.items():
        beside = outside.get((frame, key), ()) if action == NEW else ()
        groups.append(CorrectionGroup(action, lines[0].frame, lines[0].name, tuple(lines), tuple(beside)))
    return tuple(groups)


class Painted(NamedTuple):
    """A region that was painted: ``mask`` ``(H,W)`` in any size, not 0 inside, of ``frame``, and its ``name``."""

    mask: Tensor
    frame: int
    name: str


class Correction(NamedTuple):
    """Labels after corrections, in the resolution they came in, and a sentence for each line that found nothing."""

    labels: LabelMaps
    problems: tuple[str, ...]


def correct_labels(
    features: Features,
    labels: LabelMaps,
    points: Sequence[PointLine],
    *,
    painted: Painted | None = None,
    progress: Progress = no_progress,
) -> Correction:
    """Apply corrections, then a painted region, to labels in any resolution, by nearest neighbors among the queries.

    Maps keep shape and type; regions are never removed but by merging.
    """
    require_shape("labels.maps", labels.maps, "T H W")
    if len(labels.maps) != features.num_frames:
        counts = f"as many frames as `features`, {features.num_frames}, but got {len(labels.maps)}"
        raise InputError(f"`labels` must have {counts}. Take both of the same clip.")
    groups = group_corrections(points)
    correction = _Correction(features, labels)
    for done, group in enumerate(groups, 1):
        correction.apply(group)
        progress("corrections", done, len(groups))
    if painted is not None:
        correction.paint(painted)
    correction.settle()
    fixed = replace(labels, maps=correction.maps, regions=correction.regions, leaves=None)
    return Correction(fixed, tuple(correction.problems))


class _Correction:
    """Label maps and the claims on them."""

    def __init__(self, features: Features, labels: LabelMaps) -> None:
        self.grid, self.maps, self.regions = features.grid, labels.maps.cpu().clone(), labels.regions
        self.size = (int(self.maps.shape[1]), int(self.maps.shape[2]))
        self.problems: list[str] = []
        self.config, self.growth = PropagationConfig(), GrowthConfig()
        self.tokens = reduce_tokens(features.queries, self.config.num_components)
        self.layers = Layers(self.tokens, self.grid, self.config)
        self.mean = self.tokens.flatten(0, 1).mean(0)

    def apply(self, group: CorrectionGroup) -> None:
        """Apply one correction, or say why not."""
        late = [point for point in (*group.points, *group.outside) if point.frame >= len(self.maps)]
        last = len(self.maps) - 1
        self.problems += [
            f"{title_point(point)}: there is no frame {point.frame}, the last one is {last}." for point in late
        ]
        if late:
            return
        if group.action == SPLIT:
            self._split(group)
        elif group.action == MERGE:
            self._merge(group)
        elif group.action == IS:
            self._relabel(group)
        else:
            self._add(group)

    def settle(self) -> None:
        """Write all marked regions into the maps."""
        maps = [self.layers.lay_over(labels, frame) for frame, labels in enumerate(self.maps)]
        if self.layers.clear():
            self.maps = torch.stack(maps)

    def paint(self, painted: Painted) -> None:
        """Lay a painted region over the others: in its frame it is all of that region."""
        require_shape("mask", painted.mask, "H W")
        if not 0 <= painted.frame < len(self.maps):
            raise InputError(
                f"`mask_frame` must lie in [0, {len(self.maps) - 1}], but got {painted.frame}. Choose the frame that "
                "was painted on."
            )
        if not bool(painted.mask.any()):
            raise InputError("`mask` must mark the new region, but it is empty. Paint it, or disconnect the mask.")
        label = self._take_label(painted.name)
        self.layers.mark(label, painted.frame, reduce_mask(painted.mask != 0, self.grid), whole=True)

    def _relabel(self, group: CorrectionGroup) -> None:
        """From a frame on, the pieces of regions under the points are another region."""
        current = self.layers.lay_over(self.maps[group.frame], group.frame)
        pieces = torch.zeros(self.size, dtype=torch.bool)
        for point in group.points:
            pieces |= find_piece(current, *find_pixel(point, self.size))
        label = self._take_label(group.name)
        self.layers.mark(label, group.frame, reduce_mask(pieces, self.grid), both_ways=False, exact=pieces)

    def _add(self, group: CorrectionGroup) -> None:
        """Label the thing at the points or in the box, in frames before and after too."""
        tokens = self.tokens[group.frame] - self.mean
        if group.action == BOX:
            marks = find_thing_in_box(tokens, mark_box(group.points, self.grid), self.growth)
        else:
            walker = Walker(tokens, self.grid, self.growth)
            points = find_cells(group.points, self.grid)
            if find_label_called(self.regions, group.name) is not None:
                marks = walker.find_patch(points, self._find_around(group))
            else:
                marks = walker.grow(points, find_cells(group.outside, self.grid))
        self.layers.mark(self._take_label(group.name), group.frame, marks.float())

    def _find_around(self, group: CorrectionGroup) -> Tensor:
        """Return the cells ``(N,)`` of the regions that points lie on now."""
        current = self.layers.lay_over(self.maps[group.frame], group.frame)
        found = {int(current[find_pixel(point, self.size)]) for point in group.points}
        cells = reduce_reference(current, (self.grid.h, self.grid.w)).flatten()
        return torch.isin(cells.long(), torch.tensor(sorted(found)))

    def _split(self, group: CorrectionGroup) -> None:
        """Divide the regions under the points among their names, in all frames."""
        self.settle()
        for label, points in self._group_by_label(group.points).items():
            parts: dict[str, list[PointLine]] = {}
            for point in points:
                parts.setdefault(fold_name(point.name), []).append(point)
            if len(parts) < 2:
                self.problems.append(f"{title_point(points[0])}: no point of another name lies on this region.")
            else:
                self._divide(label, list(parts.values()), group.frame)

    def _divide(self, label: int, parts: Sequence[Sequence[PointLine]], frame: int) -> None:
        """Divide one region; what no part is propagated to stays with the first."""
        inside = self.maps == label
        walker = Walker(self.tokens[frame] - self.mean, self.grid, self.growth)
        cells = torch.arange(self.grid.num_tokens)
        starts = [torch.isin(cells, find_cells(points, self.grid)).float() for points in parts]
        nearest = torch.stack([walker.count_visits(start) for start in starts]).argmax(0)
        covered = reduce_mask(inside[frame], self.grid)
        shares = torch.stack([covered * (nearest == part) for part in range(len(parts))], dim=1)
        propagated = propagate_shares(self.tokens, self.grid, shares, frame, self.config, both_ways=True)
        enlarged = (enlarge_shares(propagated[..., part], self.grid, self.size) for part in range(len(parts)))
        winner = torch.stack(list(enlarged)).argmax(0)
        self._call(label, parts[0][0].name)
        for part, points in enumerate(parts[1:], 1):
            self.maps[inside & (winner == part)] = self._take_label(points[0].name)

    def _merge(self, group: CorrectionGroup) -> None:
        """Make the regions under the points one."""
        self.settle()
        first, *others = sorted(self._group_by_label(group.points))
        self.maps, self.regions = merge_labels(self.maps, self.regions, dict.fromkeys(others, first))
        self._call(first, group.name)

    def _group_by_label(self, points: Sequence[PointLine]) -> dict[int, list[PointLine]]:
        """Return the points by the label under them."""
        found: dict[int, list[PointLine]] = {}
        for point in points:
            label = find_label_under(self.maps, point)
            if label is not None:
                found.setdefault(label, []).append(point)
        return found

    def _call(self, label: int, name: str) -> None:
        """Call a region ``name``; if another is called so already, it becomes part of that."""
        others = tuple(region for region in self.regions if region.label != label)
        known = find_label_called(others, name)
        if known is None:
            self.regions = rename_regions(self.regions, {label: name})
        else:
            self.maps, self.regions = merge_labels(self.maps, self.regions, {label: known})

    def _take_label(self, name: str) -> int:
        """Return the label of the region called ``name``; a new one if there is none."""
        known = find_label_called(self.regions, name)
        if known is not None:
            return known
        free = list_free_labels(region.label for region in self.regions)
        if not free:
            raise InputError(
                f"`labels` must leave a label for {name!r}, but all {MAX_LABEL} are in use. Merge some regions first."
            )
        self.regions = tuple(sorted((*self.regions, Region(free[0], name))))
        return free[0]
