"""Split a region into its separate things, each with one id over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label

from .labels import free_labels
from .scene_config import InstanceConfig
from .types import InputError, LabelMaps, Region, region_labels, require_shape

_ALL_AROUND = np.ones((3, 3))
"""Pixels that touch at a corner are connected."""

Numbers = NDArray[np.int64]
"""Numbers of tracks ``(T,H,W)``, from 1 on; 0 outside the region."""


class _Piece(NamedTuple):
    """A connected piece of one frame: where it is, and the tracks it lies on, with their shared pixels."""

    inside: NDArray[np.bool_]
    area: int
    tracks: dict[int, int]


def split_instances(labels: LabelMaps, chosen: Sequence[int], config: InstanceConfig | None = None) -> LabelMaps:
    """Give the connected pieces of regions labels of their own, which they keep from frame to frame.

    A piece continues the track that it overlaps most with. Where things that were apart touch, the piece is divided by
    distance to where they were; where a thing comes apart, its largest piece goes on and the others are new, if they
    are large. What is too small or too short-lived to be a thing joins the nearest track of its region.

    Args:
        labels: ``(T,H,W)`` labels in any resolution, and their regions.
        chosen: labels of the regions to split.
        config: what is too small or too short-lived.

    Returns:
        Maps of the same shape and type. The first thing of a region keeps its label; if there are several, they are
        called ``name 1``, ``name 2``, ... in the order in which they appear, large ones first.

    Raises:
        InputError: a label belongs to no region, or there are more things than labels.
    """
    require_shape("labels.maps", labels.maps, "T H W")
    unknown = sorted(set(chosen) - set(region_labels(labels.regions)))
    if unknown:
        raise InputError(f"`chosen` must hold labels of regions, but got {unknown}. Check the legend.")
    settings = config or InstanceConfig()
    maps, regions = labels.maps.clone(), {region.label: region.name for region in labels.regions}
    for region in chosen:
        numbers = _tracked((labels.maps == region).cpu().numpy(), settings)
        count = int(numbers.max())
        free = free_labels(regions)
        if count - 1 > len(free):
            raise InputError(
                f"`regions` must hold at most {len(free) + 1} things, but {regions[region]!r} has {count}. Split fewer "
                "regions, or ignore smaller pieces."
            )
        name = regions[region]
        for number, spare in zip(range(1, count + 1), (region, *free), strict=False):
            maps[torch.from_numpy(numbers == number)] = spare
            regions[spare] = f"{name} {number}" if count > 1 else name
    return LabelMaps(maps, tuple(sorted(Region(spare, name) for spare, name in regions.items())))


def _tracked(region: NDArray[np.bool_], config: InstanceConfig) -> Numbers:
    """Return the tracks of a region ``(T,H,W)`` bool, numbered in the order in which they appear."""
    least = max(1, round(config.min_share * region[0].size))
    numbers = np.zeros(region.shape, dtype=np.int64)
    last = np.zeros(region.shape[1:], dtype=np.int64)  # where each track was when it was seen last
    count = 0
    for frame, inside in enumerate(region):
        count = _continued(inside, last, numbers[frame], count, least)
        seen = numbers[frame]
        last[np.isin(last, np.unique(seen[seen > 0]))] = 0
        last[seen > 0] = seen[seen > 0]
    kept = [number for number in range(1, count + 1) if _is_thing(numbers == number, least, config)]
    return _absorbed(numbers, region, kept or list(range(1, min(count, 1) + 1)))


def _continued(inside: NDArray[np.bool_], last: Numbers, numbers: Numbers, count: int, least: int) -> int:
    """Number the pieces of a frame, in ``numbers`` ``(H,W)``; return how many tracks there are now."""
    found, pieces = label(inside, _ALL_AROUND)
    listed = [_piece(found == number, last) for number in range(1, pieces + 1)]
    owned: set[int] = set()
    for piece in sorted(listed, key=lambda piece: (-max(piece.tracks.values(), default=0), -piece.area)):
        mine = [track for track, shared in piece.tracks.items() if track not in owned and shared * 4 >= least]
        if len(mine) > 1:
            nearest = distance_transform_edt(~np.isin(last, mine), return_distances=False, return_indices=True)
            numbers[piece.inside] = last[tuple(nearest)][piece.inside]
        elif mine:
            numbers[piece.inside] = mine[0]
        elif piece.area >= least or not piece.tracks:
            count += 1
            numbers[piece.inside], mine = count, [count]
        else:
            numbers[piece.inside] = max(piece.tracks, key=lambda track: piece.tracks[track])
        owned.update(mine)
    return count


def _piece(inside: NDArray[np.bool_], last: Numbers) -> _Piece:
    below, counts = np.unique(last[inside], return_counts=True)
    return _Piece(inside, int(inside.sum()), {int(t): int(n) for t, n in zip(below, counts, strict=True) if t})


def _is_thing(track: NDArray[np.bool_], least: int, config: InstanceConfig) -> bool:
    """Tell whether a track ``(T,H,W)`` is large enough for long enough."""
    areas = track.reshape(len(track), -1).sum(1)
    return int(areas.max()) >= least and int((areas > 0).sum()) >= min(config.min_frames, len(track))


def _absorbed(numbers: Numbers, region: NDArray[np.bool_], kept: Sequence[int]) -> Numbers:
    """Return the kept tracks, numbered from 1 on; pixels of others join the nearest one, in space, then in time."""
    table = np.zeros(int(numbers.max()) + 1, dtype=np.int64)
    table[list(kept)] = np.arange(1, len(kept) + 1)
    result = table[numbers]
    latest = next((frame for frame in result if frame.any()), result[0])
    for frame, inside in zip(result, region, strict=True):
        known = frame if frame.any() else latest
        left = inside & (frame == 0)
        if left.any() and known.any():
            nearest = distance_transform_edt(known == 0, return_distances=False, return_indices=True)
            frame[left] = known[tuple(nearest)][left]
        latest = frame if frame.any() else latest
    return result
