"""Hyperparameters of what is done with results, and of baselines; each with its source.

What is done: corrections, instances, scene files. "measured" stands for the six DAVIS clips of
`benchmarks/corrections.py` with the bundled model, "chosen" for a value of ours that no measurement backs. How masks
are finished is what the user asks for: `masks.Finish`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects, label
from torch import Tensor

from ..config.fields import Part, setting
from ..types import InputError, LabelMaps, Progress, Region, list_labels, no_progress, require_shape
from .labels import list_free_labels


@dataclass(frozen=True)
class InstanceConfig(Part):
    """Which connected pieces of a region are things (ours, chosen)."""

    min_share: float = setting(
        0.001,
        "Share of the frame that a thing covers at least in some frame; smaller pieces join the nearest thing",
        low=0.0,
        high=1.0,
    )
    min_frames: int = setting(
        3,
        "Frames in which a thing is apart from the others at least; what comes apart for fewer is one",
        low=1,
        high=1000,
    )


_ALL_AROUND = np.ones((3, 3))
"""Pixels that touch at a corner are connected."""
_MIN_OVERLAP = 0.25
"""Share of the smallest thing's area that a piece must share with a track to continue it (our choice)."""
Numbers = NDArray[Any]
"""Numbers of tracks in a frame ``(H,W)``, from 1 on, in as few bytes as they take; 0 outside the region."""


@dataclass
class _Track:
    """A thing over time: in how many frames it is a piece of its own, and whether it came off another one."""

    alone: int = 0
    came_off: bool = False


class _Piece(NamedTuple):
    """A connected piece of one frame: its box, where it is in it, and the tracks it lies on, with shared pixels."""

    box: tuple[slice, slice]
    inside: NDArray[np.bool_]
    area: int
    tracks: dict[int, int]


def split_instances(
    labels: LabelMaps,
    chosen: Sequence[int],
    config: InstanceConfig | None = None,
    *,
    progress: Progress = no_progress,
) -> LabelMaps:
    """Give the connected pieces of regions labels of their own, which they keep from frame to frame ``(T,H,W)``.

    A piece continues the track that it overlaps most with. Where things that were apart touch, the piece is divided by
    distance to where they were; where a thing comes apart, its largest piece goes on and the others are new, if they
    are large and stay apart for long enough. What is too small, or for too short a time a piece of its own, to be a
    thing joins the nearest track of its region.

    The first thing of a region keeps its label; if there are several, they are called ``name 1``, ``name 2``, ... in
    the order in which they appear, large ones first.
    """
    require_shape("labels.maps", labels.maps, "T H W")
    unknown = sorted(set(chosen) - set(list_labels(labels.regions)))
    if unknown:
        raise InputError(f"`chosen` must hold labels of regions, but got {unknown}. Check the legend.")
    settings = config or InstanceConfig()
    settings.check()
    maps, regions = labels.maps.clone(), {region.label: region.name for region in labels.regions}
    steps, total = count(1), len(chosen) * len(maps)
    for region in chosen:
        rows, columns = _find_extent(labels.maps, region)
        least = max(1, round(settings.min_share * labels.maps[0].numel()))
        extent = labels.maps[:, rows, columns].cpu().numpy()  # a view: each frame is compared when it is its turn
        numbers = _track_pieces(extent, region, least, settings, lambda: progress("instances", next(steps), total))
        _write_things(maps[:, rows, columns], numbers, region, regions)
        numbers.clear()  # before those of the next region are made
    return replace(labels, maps=maps, regions=tuple(sorted(Region(*pair) for pair in regions.items())))


def _write_things(maps: Tensor, numbers: Sequence[Numbers], region: int, regions: dict[int, str]) -> None:
    """Write the things of a region, by their ``numbers``, into ``maps``, and their names into ``regions``."""
    things, free, name = _find_highest(numbers), list_free_labels(regions), regions[region]
    if things - 1 > len(free):
        raise InputError(
            f"`regions` must hold at most {len(free) + 1} things, but {name!r} has {things}. Split fewer regions, or "
            "ignore smaller pieces."
        )
    table = np.array([0, region, *free][: things + 1], dtype=np.uint8)
    for frame, seen in zip(maps, numbers, strict=True):
        frame[torch.from_numpy(seen > 0)] = torch.from_numpy(table[seen[seen > 0]]).to(frame)
    for number, spare in zip(range(1, things + 1), (region, *free), strict=False):
        regions[spare] = f"{name} {number}" if things > 1 else name


def _find_highest(numbers: Sequence[Numbers]) -> int:
    return max(int(frame.max()) for frame in numbers)


def _find_extent(maps: Tensor, region: int) -> tuple[slice, slice]:
    """Return rows and columns of ``(T,H,W)`` labels that hold a region; the first of each where there is none."""
    rows, columns = (torch.zeros(size, dtype=torch.bool, device=maps.device) for size in maps.shape[1:])
    for frame in maps:
        inside = frame == region
        rows |= inside.any(1)
        columns |= inside.any(0)
    found = [side.nonzero().squeeze(1).tolist() or [0] for side in (rows, columns)]
    first, second = (slice(places[0], places[-1] + 1) for places in found)
    return first, second


def _track_pieces(
    maps: NDArray[np.uint8], region: int, least: int, config: InstanceConfig, advance: Callable[[], None]
) -> list[Numbers]:
    """Return the tracks of a region of ``(T,H,W)`` labels, numbered in the order in which they appear."""
    numbers: list[Numbers] = []
    last = np.zeros(maps.shape[1:], dtype=np.int64)  # where each track was when it was seen last
    tracks: list[_Track] = []
    frames, areas = min(config.min_frames, len(maps)), np.zeros(1, dtype=np.int64)
    for labels in maps:
        seen = np.zeros(labels.shape, dtype=np.int64)
        _continue_tracks(tracks, labels == region, last, seen, least, frames)
        numbers.append(seen.astype(np.min_scalar_type(len(tracks))))
        here_areas = np.bincount(seen.ravel(), minlength=len(tracks) + 1)
        here_areas[: len(areas)] = np.maximum(here_areas[: len(areas)], areas)
        areas = here_areas
        here = np.zeros(len(tracks) + 1, dtype=np.bool_)
        here[seen] = True
        last[here[last]] = 0
        last[seen > 0] = seen[seen > 0]
        advance()
    kept = [number for number, track in enumerate(tracks, 1) if areas[number] >= least and track.alone >= frames]
    return _absorb(numbers, maps, region, kept or [1][: len(tracks)])


def _continue_tracks(
    tracks: list[_Track], inside: NDArray[np.bool_], last: Numbers, numbers: Numbers, least: int, frames: int
) -> None:
    """Number the pieces of a frame, in ``numbers`` ``(H,W)``, by old and new tracks.

    A track that came off another one ends where they touch again, unless it was a piece of its own in enough frames.
    """
    found, _ = label(inside, _ALL_AROUND)
    listed = [_describe_piece(box, found[box] == number, last) for number, box in enumerate(find_objects(found), 1)]
    owned: set[int] = set()
    for piece in sorted(listed, key=lambda piece: (-max(piece.tracks.values(), default=0), -piece.area)):
        near = [t for t, shared in piece.tracks.items() if t not in owned and shared >= _MIN_OVERLAP * least]
        mine = [t for t in near if tracks[t - 1].alone >= frames or not tracks[t - 1].came_off] or near[:1]
        if len(mine) < len(near):
            last[np.isin(last, sorted(set(near) - set(mine)))] = 0
        place = numbers[piece.box]
        if len(mine) > 1:
            nearest = distance_transform_edt(~np.isin(last, mine), return_distances=False, return_indices=True)
            place[piece.inside] = last[tuple(nearest)][piece.box][piece.inside]
        elif not mine and piece.tracks and piece.area < least:
            place[piece.inside] = max(piece.tracks, key=lambda track: piece.tracks[track])
        else:
            if not mine:
                tracks.append(_Track(came_off=bool(piece.tracks)))
                mine = [len(tracks)]
            place[piece.inside] = mine[0]
            tracks[mine[0] - 1].alone += 1
        owned.update(mine)


def _describe_piece(box: tuple[slice, slice], inside: NDArray[np.bool_], last: Numbers) -> _Piece:
    below, counts = np.unique(last[box][inside], return_counts=True)
    return _Piece(box, inside, int(inside.sum()), {int(t): int(n) for t, n in zip(below, counts, strict=True) if t})


def _absorb(numbers: list[Numbers], maps: NDArray[np.uint8], region: int, kept: Sequence[int]) -> list[Numbers]:
    """Return the kept tracks, numbered from 1 on; pixels of others join the nearest one, in space, then in time."""
    table = np.zeros(_find_highest(numbers) + 1, dtype=np.min_scalar_type(len(kept)))
    table[list(kept)] = np.arange(1, len(kept) + 1)
    for number, frame in enumerate(numbers):
        numbers[number] = table[frame]
    latest = next((frame for frame in numbers if frame.any()), numbers[0])
    for frame, labels in zip(numbers, maps, strict=True):
        known = frame if frame.any() else latest
        left = (labels == region) & (frame == 0)
        if left.any() and known.any():
            nearest = distance_transform_edt(known == 0, return_distances=False, return_indices=True)
            frame[left] = known[tuple(nearest)][left]
        latest = frame if frame.any() else latest
    return numbers
