"""Labels between nodes, and what people type to choose, name and merge their regions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...core.config.settings import Settings
from ...core.method.context import NeighborMemory
from ...core.method.enlarging import enlarge_bilinear
from ...core.regions.cutting import cut_regions, group_leaves, merge_owners, split_region
from ...core.regions.labels import merge_labels, reduce_reference, rename_regions
from ...core.regions.typed import BLANK, clean_name, fold_name, parse_whole, split_lines, strip_blanks
from ...core.types import (
    MAX_LABEL,
    MAX_NAME,
    AnchorLabels,
    Features,
    InputError,
    LabelMaps,
    Progress,
    Region,
    list_labels,
    no_progress,
    quote,
)


@dataclass(frozen=True)
class Scan:
    """What coarse labels were made from, so that refinement can replay the scan with its own feedback."""

    # Not a tuple: a host that weighs cached outputs by walking tuples must not count the features twice.
    features: Features
    anchor_labels: AnchorLabels  # with their regions as they were: a replay finds what is new under the same labels
    settings: Settings
    merges: Mapping[int, int] = field(default_factory=dict)
    """For each label merged since the scan the label that it became."""
    memory: NeighborMemory = field(default_factory=NeighborMemory)
    """Neighbors of cells, which a replay need not search again."""


@dataclass(frozen=True, eq=False, repr=False)
class Labels(LabelMaps):
    """Labels of a clip, and where they come from; None after loading, and from the node that does it all."""

    scan: Scan | None = None

    def full(self, progress: Progress = no_progress) -> LabelMaps:
        """Return the label maps in full resolution; coarse ones are enlarged without the model."""
        return enlarge_bilinear(self, progress) if self.is_coarse else self

    def on_grid(self, size: tuple[int, int]) -> Tensor:
        """Return the labels ``(T,h,w)`` int64 on a coarse grid of ``size``, by nearest neighbor."""
        if tuple(self.maps.shape[1:]) == size:
            return self.maps.long()
        return torch.stack([reduce_reference(frame, size) for frame in self.maps]).long()

    def with_names(self, names: Mapping[int, str], merges: Mapping[int, int]) -> Labels:
        """Return these labels merged, each into one that is not merged itself, then named; they vote as one."""
        maps, left = merge_labels(self.maps, self.regions, merges)
        scan = self.scan
        if scan is not None:
            own = dict(scan.anchor_labels.regions)
            seeded = {old: new for old, new in merges.items() if old in own and new in own}
            cluster_map, _ = merge_labels(scan.anchor_labels.cluster_map, scan.anchor_labels.regions, seeded)
            before = {old: merges.get(new, new) for old, new in scan.merges.items()}
            made_of = merge_owners(scan.anchor_labels.leaves, seeded)
            anchor_labels = scan.anchor_labels._replace(cluster_map=cluster_map, leaves=made_of)
            scan = replace(scan, anchor_labels=anchor_labels, merges={**before, **merges})
        leaves = merge_owners(self.leaves, merges)
        return replace(self, maps=maps, regions=rename_regions(left, names), leaves=leaves, scan=scan)

    def cut(self, num_regions: int, splits: Sequence[int] = ()) -> Labels:
        """Return these labels in another number of regions, 0 for the same, some of which are split in two."""
        found: LabelMaps = cut_regions(self, num_regions) if num_regions else self
        for label in splits:
            found = split_region(found, label)
        if found is self:
            return self
        scan, leaves = self.scan, found.leaves
        if scan and leaves and scan.anchor_labels.leaves:
            given = scan.anchor_labels.leaves
            cut = group_leaves(given.maps, given.tree, leaves.owners[: len(given.owners)], found.regions, (0, 0))
            anchor = scan.anchor_labels._replace(cluster_map=cut.maps, regions=cut.regions, leaves=cut.leaves)
            scan = replace(scan, anchor_labels=anchor, merges={})
        return replace(self, maps=found.maps, regions=found.regions, leaves=leaves, scan=scan)

    def named_as(self, other: Labels) -> Labels:
        """Return these labels, replayed from the scan of ``other``, with the names and merges of ``other``."""
        merges = other.scan.merges if other.scan else {}
        names = {**dict(self.regions), **dict(other.regions)}
        becomes = {label: merges.get(label, label) for label, _ in self.regions}
        maps = self.maps.clone()
        for label, target in becomes.items():
            maps[self.maps == label] = target
        regions = tuple(Region(label, names[label]) for label in sorted(set(becomes.values())))
        return replace(self, maps=maps, regions=regions, leaves=merge_owners(self.leaves, becomes))

    def get_ram_usage(self) -> int:
        """Return the size in bytes, without the features they came from, which their own node holds."""
        held = [self.maps, *([self.leaves.maps, self.leaves.votes] if self.leaves else [])]
        found = self.scan.memory.num_bytes if self.scan else 0
        return found + sum(each.nbytes for each in held if each is not None)


def require_features_of(labels: Labels, features: Features) -> None:
    """Check that ``labels`` and ``features`` belong to the same clip."""
    if not labels.is_coarse:
        raise InputError(
            "`labels` must be coarse, but got labels that are already in full resolution. Wire the labels of "
            "Correspondence Refine (or Scene Context KNN) here."
        )
    made_of = labels.scan.features if labels.scan else None
    same_clip = made_of is None or made_of is features or (
        made_of.latents.shape == features.latents.shape and torch.equal(made_of.latents, features.latents)
    )  # fmt: skip
    if labels.num_frames != features.num_frames:
        raise InputError(
            f"`labels` must have as many frames as `features`, {features.num_frames}, but got {labels.num_frames}. "
            "Wire the same features here as to Scene Context KNN."
        )
    if not same_clip or tuple(labels.maps.shape[1:]) != tuple(features.grid):
        raise InputError(
            "`features` must be those that `labels` were made from, but got features of another clip or size. Wire "
            "the same features here as to Scene Context KNN."
        )


def require_frames_of(labels: Labels, frames: Tensor) -> None:
    """Check that ``frames`` ``(T,H,W,C)`` and ``labels`` have the same number and size."""
    expected, actual = (labels.num_frames, *labels.frame_size), tuple(frames.shape[:3])
    if expected != actual:
        raise InputError(
            f"`frames` must be the {expected[0]} frames of {expected[2]}x{expected[1]} pixels that were segmented, but "
            f"got {actual[0]} of {actual[2]}x{actual[1]}. Wire the same images here as to the first VidSeg node."
        )


_RANGE = re.compile(f"([0-9]+){BLANK}*-{BLANK}*([0-9]+)")
_LISTED = 20
"""Regions that a message lists at most."""


def join_labels(regions: Sequence[Region]) -> str:
    """Return the regions in words, for messages."""
    listed = ", ".join(f"{region.label} ({region.name[:40]})" for region in regions[:_LISTED]) or "none"
    return f"{listed}, and {len(regions) - _LISTED} more" if len(regions) > _LISTED else listed


def choose_labels(text: str, regions: Sequence[Region], field: str = "regions") -> tuple[int, ...]:
    """Return the labels of regions chosen by id, range of ids or name, separated by commas or lines of ``field``.

    >>> choose_labels("sky, 3-5", (Region(1, "Sky"), Region(3, "a"), Region(5, "b")))
    (1, 3, 5)
    """
    return tuple(sorted(choose_in_order(text, regions, field)))


def choose_in_order(text: str, regions: Sequence[Region], field: str = "regions") -> tuple[int, ...]:
    """Return the labels of `choose_labels` in the order in which ``text`` names them first."""
    parts = _split_entries(text, field)
    if not parts:
        raise InputError(
            f"`{field}` must name at least one region, but got nothing. There are: {join_labels(regions)}."
        )
    named: dict[str, list[int]] = {}
    for region in regions:
        named.setdefault(fold_name(region.name), []).append(region.label)
    labels, chosen = set(list_labels(regions)), dict[int, None]()
    for part in dict.fromkeys(parts):
        found = named.get(fold_name(part)) or sorted(labels & _read_span(part))
        if not found:
            raise InputError(f"`{field}` must name regions, but got {quote(part)}. There are: {join_labels(regions)}.")
        chosen.update(dict.fromkeys(found))
    return tuple(chosen)


def _split_entries(text: str, field: str) -> list[str]:
    """Return what stands between commas, semicolons and line ends."""
    lines = split_lines(text, field)
    return [part for line in lines for entry in re.split("[,;]", line) if (part := strip_blanks(entry))]


def _read_span(part: str) -> set[int]:
    """Return the labels that a number or a range of numbers means."""
    span = _RANGE.fullmatch(part)
    ends = [parse_whole(text) for text in (span.groups() if span else (part, part))]
    low, high = (MAX_LABEL + 1 if end is None else end for end in ends)
    return set(range(low, min(high, MAX_LABEL) + 1))


def parse_names_and_merges(text: str, regions: Sequence[Region]) -> tuple[dict[int, str], dict[int, int]]:
    """Return new names, and what each merged label becomes, the smallest of its line, by lines ``person: 3, 7``.

    >>> parse_names_and_merges("person: 3, 7", (Region(3, "region 3"), Region(7, "region 7")))
    ({3: 'person'}, {7: 3})
    """
    names: dict[int, str] = {}
    merges: dict[int, int] = {}
    for line in filter(None, split_lines(text, "names")):
        called, colon, choice = (strip_blanks(part) for part in line.partition(":"))
        name = clean_name(called)
        if not colon or not name:
            raise InputError(
                f"`names` must hold lines such as 'person: 3, 7', but got {quote(line)}. Put a name of at most "
                f"{MAX_NAME} characters and a colon."
            )
        first, *others = choose_labels(choice, regions, "names")
        twice = sorted({first, *others} & (set(names) | set(merges)))
        if twice:
            raise InputError(f"`names` must name each region once, but got {twice} twice. Remove one of the lines.")
        names[first] = name
        merges.update(dict.fromkeys(others, first))
    return names, merges


def parse_class_names(text: str) -> dict[int, str]:
    """Read names of classes such as ``0: background, 1: dog``, separated by commas or lines."""
    names: dict[int, str] = {}
    for entry in _split_entries(text, "class_names"):
        typed, _, called = (strip_blanks(part) for part in entry.partition(":"))
        number, name = parse_whole(typed), clean_name(called)
        if number is None or number > MAX_LABEL or not name:
            raise InputError(
                f"`class_names` must hold entries such as '1: dog', but got {quote(entry)}. Put number, colon, name."
            )
        names[number] = name
    return names


ALL_REGIONS = "Empty: all regions."


def choose_or_all(regions: str, labels: Labels) -> tuple[int, ...]:
    """Return the labels of the regions that a text lists, of all regions where it is empty."""
    return choose_labels(regions, labels.regions) if regions.strip() else list_labels(labels.regions)
