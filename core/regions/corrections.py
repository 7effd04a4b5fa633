"""Corrections on any frame, propagated through the clip by the features: no diffusion is run.

Corrections are applied in the order of their lines, each to what the ones before left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..types import MAX_LABEL, Features, InputError, LabelMaps, Progress, Region, no_progress, require_shape
from .correction_text import BOX, IS, MERGE, SPLIT, CorrectionGroup, group_corrections
from .growing import GrowthConfig, Walker, find_piece, find_thing_in_box, reduce_mask
from .labels import list_free_labels, merge_labels, reduce_reference, rename_regions
from .points import PointLine, find_label_under, find_pixel, title_point
from .propagation import Layers, PropagationConfig, enlarge_shares, propagate_shares, reduce_tokens


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
    """Apply corrections to label maps by nearest neighbors among the features.

    Args:
        features: of the clip; only the queries are used.
        labels: ``(T,h,w)`` labels on the coarse grid, or ``(T,H,W)`` in any resolution, and their regions.
        points: see `correction_text.parse_corrections`.
        painted: a region that was painted in one frame, applied last; or None.
        progress: called with stage ``corrections`` after each one.

    Returns:
        Maps of the same shape and type, on the CPU; regions are never removed but by merging.

    Raises:
        InputError: features and labels disagree, the painted mask is empty or of no frame, or there is no free label.
    """
    require_shape("labels.maps", labels.maps, "T H W")
    if len(labels.maps) != features.num_frames:
        raise InputError(
            f"`labels` must have as many frames as `features`, {features.num_frames}, but got {len(labels.maps)}. "
            "Take both of the same clip."
        )
    groups = group_corrections(points)
    correction = _Correction(features, labels)
    for done, group in enumerate(groups, 1):
        correction.apply(group)
        progress("corrections", done, len(groups))
    if painted is not None:
        correction.paint(painted)
    correction.settle()
    return Correction(replace(labels, maps=correction.maps, regions=correction.regions), tuple(correction.problems))


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
        maps = [self.layers.over(labels, frame) for frame, labels in enumerate(self.maps)]
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
        label = self._label_called(painted.name)
        self.layers.mark(label, painted.frame, reduce_mask(painted.mask != 0, self.grid), whole=True)

    def _relabel(self, group: CorrectionGroup) -> None:
        """From a frame on, the pieces of regions under the points are another region."""
        current, pieces = (
            self.layers.over(self.maps[group.frame], group.frame),
            torch.zeros(self.size, dtype=torch.bool),
        )
        for point in group.points:
            pieces |= find_piece(current, *find_pixel(point, self.size))
        label = self._label_called(group.name)
        self.layers.mark(label, group.frame, reduce_mask(pieces, self.grid), both_ways=False, exact=pieces)

    def _add(self, group: CorrectionGroup) -> None:
        """Label the thing at the points or in the box, in frames before and after too."""
        tokens = self.tokens[group.frame] - self.mean
        if group.action == BOX:
            marks = find_thing_in_box(tokens, self._box(group), self.growth)
        else:
            walker = Walker(tokens, self.grid, self.growth)
            points = self._cells(group.points)
            if _label_of(self.regions, group.name) is not None:
                marks = walker.patch(points, self._around(group))
            else:
                marks = walker.grown(points, self._cells(group.outside))
        self.layers.mark(self._label_called(group.name), group.frame, marks.float())

    def _around(self, group: CorrectionGroup) -> Tensor:
        """Return the cells ``(N,)`` of the regions that points lie on now."""
        current = self.layers.over(self.maps[group.frame], group.frame)
        found = {int(current[find_pixel(point, self.size)]) for point in group.points}
        cells = reduce_reference(current, (self.grid.h, self.grid.w)).flatten()
        return torch.isin(cells.long(), torch.tensor(sorted(found)))

    def _split(self, group: CorrectionGroup) -> None:
        """Divide the regions under the points among their names, in all frames."""
        self.settle()
        for label, points in self._by_label(group.points):
            parts: dict[str, list[PointLine]] = {}
            for point in points:
                parts.setdefault(point.name.casefold(), []).append(point)
            if len(parts) < 2:
                self.problems.append(f"{title_point(points[0])}: no point of another name lies on this region.")
            else:
                self._divide(label, list(parts.values()), group.frame)

    def _divide(self, label: int, parts: Sequence[Sequence[PointLine]], frame: int) -> None:
        """Divide one region; what no part is propagated to stays with the first."""
        inside = self.maps == label
        walker = Walker(self.tokens[frame] - self.mean, self.grid, self.growth)
        cells = torch.arange(self.grid.num_tokens)
        starts = [torch.isin(cells, self._cells(points)).float() for points in parts]
        nearest = torch.stack([walker.visits(start) for start in starts]).argmax(0)
        covered = reduce_mask(inside[frame], self.grid)
        shares = torch.stack([covered * (nearest == part) for part in range(len(parts))], dim=1)
        propagated = propagate_shares(self.tokens, self.grid, shares, frame, self.config, both_ways=True)
        enlarged = (enlarge_shares(propagated[..., part], self.grid, self.size) for part in range(len(parts)))
        winner = torch.stack(list(enlarged)).argmax(0)
        self._call(label, parts[0][0].name)
        for part, points in enumerate(parts[1:], 1):
            self.maps[inside & (winner == part)] = self._label_called(points[0].name)

    def _merge(self, group: CorrectionGroup) -> None:
        """Make the regions under the points one."""
        self.settle()
        first, *others = sorted(label for label, _ in self._by_label(group.points))
        self.maps, self.regions = merge_labels(self.maps, self.regions, dict.fromkeys(others, first))
        self._call(first, group.name)

    def _by_label(self, points: Sequence[PointLine]) -> Iterator[tuple[int, list[PointLine]]]:
        """Yield the points by the label under them."""
        found: dict[int, list[PointLine]] = {}
        for point in points:
            label = find_label_under(self.maps, point)
            if label is not None:
                found.setdefault(label, []).append(point)
        yield from found.items()

    def _call(self, label: int, name: str) -> None:
        """Call a region ``name``; if another is called so already, it becomes part of that."""
        others = tuple(region for region in self.regions if region.label != label)
        known = _label_of(others, name)
        if known is None:
            self.regions = rename_regions(self.regions, {label: name})
        else:
            self.maps, self.regions = merge_labels(self.maps, self.regions, {label: known})

    def _label_called(self, name: str) -> int:
        """Return the label of the region called ``name``; a new one if there is none."""
        known = _label_of(self.regions, name)
        if known is not None:
            return known
        free = list_free_labels(region.label for region in self.regions)
        if not free:
            raise InputError(
                f"`labels` must leave a label for {name!r}, but all {MAX_LABEL} are in use. Merge some regions first."
            )
        self.regions = tuple(sorted((*self.regions, Region(free[0], name))))
        return free[0]

    def _places(self, points: Sequence[PointLine]) -> list[tuple[int, int]]:
        """Return rows and columns of the cells under points."""
        return [find_pixel(point, (self.grid.h, self.grid.w)) for point in points]

    def _cells(self, points: Sequence[PointLine]) -> Tensor:
        """Return the cells ``(S,)`` under points."""
        return torch.tensor(sorted({row * self.grid.w + column for row, column in self._places(points)})).long()

    def _box(self, group: CorrectionGroup) -> Tensor:
        """Return the cells ``(h,w)`` of a box, at least one."""
        (top, left), (bottom, right) = self._places(group.points)
        box = torch.zeros(tuple(self.grid), dtype=torch.bool)
        box[min(top, bottom) : max(top, bottom) + 1, min(left, right) : max(left, right) + 1] = True
        return box


def _label_of(regions: Sequence[Region], name: str) -> int | None:
    """Return the first label that is called ``name``, however it is capitalized; None if there is none."""
    return next((region.label for region in regions if region.name.casefold() == name.casefold()), None)
