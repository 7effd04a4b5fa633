"""Regions as tracks of SAM 3 in ComfyUI and back, and as the four-valued mask by which VOID removes a thing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..types import MAX_LABEL, InputError, LabelMaps, Progress, Region, no_progress, require_shape
from .labels import list_free_labels, mask_labels
from .masks import Finish, finish_masks

OBJECT, BOTH, AFFECTED, BACKGROUND = 0 / 255, 63 / 255, 127 / 255, 255 / 255
"""Values of VOID's mask: what is to go, where it and what it affects overlap, what it affects, what stays."""
_BITS = 8
"""Pixels in a byte of a packed mask; the first is its lowest bit."""


def pack_track(labels: LabelMaps, chosen: Sequence[int], progress: Progress = no_progress) -> dict[str, Any]:
    """Return regions as ``SAM3_TRACK_DATA``: one object for each of ``chosen``, in their order.

    Masks are stored at the size of the frames, so that nodes that scale them to that size change nothing. Where the
    width is no multiple of 8, which packing needs, each pixel is repeated along the row; scaling undoes that exactly.

    Returns:
        ``packed_masks`` ``(T,K,H,W*r/8)`` uint8 or None, ``orig_size`` ``(H,W)``, ``n_frames``, ``scores``.
    """
    count, height, width = labels.maps.shape
    track = {"packed_masks": None, "orig_size": (height, width), "n_frames": count, "scores": [1.0] * len(chosen)}
    if not chosen:
        return track
    repeats = _BITS // math.gcd(width, _BITS)
    packed = torch.empty(count, len(chosen), height, width * repeats // _BITS, dtype=torch.uint8)
    for number, frame in enumerate(labels.maps):
        masks = mask_labels(frame, chosen).repeat_interleave(repeats, -1)
        packed[number] = torch.from_numpy(np.packbits(masks.cpu().numpy(), axis=-1, bitorder="little"))
        progress("masks", number + 1, count)
    return {**track, "packed_masks": packed}


def unpack_track(
    track: Mapping[str, Any],
    names: Sequence[str] = (),
    below: LabelMaps | None = None,
    progress: Progress = no_progress,
) -> LabelMaps:
    """Return the objects of ``SAM3_TRACK_DATA`` as regions; where masks overlap, the first object is on top.

    Args:
        track: of the host's SAM 3 nodes.
        names: of the objects; left out, ``object 0`` and so on.
        below: regions in full resolution that the objects are drawn over; left out, all else is background, label 0.
        progress: called with stage ``objects`` in frames.

    Raises:
        InputError: ``track`` is none, or has another size or number of frames than ``below``, or too many objects.
    """
    count, size, packed = _read(track)
    num_objects = packed.shape[1]
    if below is None:
        below = LabelMaps(torch.zeros(count, *size, dtype=torch.uint8), (Region(0, "background"),))
    if tuple(below.maps.shape) != (count, *size):
        raise InputError(
            f"`track` must be of the same clip as the labels, {below.num_frames} frames of {below.frame_size[1]}x"
            f"{below.frame_size[0]}, but got {count} of {size[1]}x{size[0]}. Give both nodes the same frames."
        )
    if len(names) > num_objects:
        raise InputError(f"`names` must be at most {num_objects}, one per object, but got {len(names)}. Remove some.")
    free = list_free_labels(region.label for region in below.regions)
    if num_objects > len(free):
        raise InputError(
            f"`track` must leave room below {MAX_LABEL} labels, but got {num_objects} objects on top of "
            f"{len(below.regions)} regions. Merge regions, or track fewer objects."
        )
    given = [*names, *(f"object {number}" for number in range(len(names), num_objects))]
    added = tuple(Region(label, name) for label, name in zip(free, given, strict=False))
    maps = below.maps.clone()
    for number in range(count if num_objects else 0):
        masks = _unpack(packed[number], size)
        for region, mask in reversed(list(zip(added, masks, strict=True))):
            maps[number][mask] = region.label
        progress("objects", number + 1, count)
    return LabelMaps(maps, tuple(sorted((*below.regions, *added))))


def _read(track: Mapping[str, Any]) -> tuple[int, tuple[int, int], Tensor]:
    """Return number of frames, their size, and packed masks ``(T,K,h,w/8)`` of a track; none without objects."""
    if not isinstance(track, Mapping) or "packed_masks" not in track or "orig_size" not in track:
        raise InputError(f"`track` must be SAM3_TRACK_DATA, but got {type(track).__name__}. Wire Run SAM3 Video Track.")
    height, width = (int(side) for side in track["orig_size"])
    packed: Tensor | None = track["packed_masks"]
    if packed is None:
        return int(track["n_frames"]), (height, width), torch.empty(0, 0, 0, 0, dtype=torch.uint8)
    require_shape("packed_masks", packed, "T K h w")
    return len(packed), (height, width), packed.cpu()


def _unpack(packed: Tensor, size: tuple[int, int]) -> Tensor:
    """Return masks ``(K,H,W)`` bool of packed ones ``(K,h,w/8)``, scaled as the host does and cut at a half."""
    masks = torch.from_numpy(np.unpackbits(packed.numpy(), axis=-1, bitorder="little"))
    if tuple(masks.shape[1:]) == size:
        return masks > 0
    return F.interpolate(masks[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0] > 0.5


def make_quadmask(
    labels: LabelMaps,
    objects: Sequence[int],
    affected: Sequence[int],
    grow_object: int = 0,
    grow_affected: int = 0,
    progress: Progress = no_progress,
) -> Tensor:
    """Return VOID's mask ``(T,H,W)`` float32 of the regions to remove and those that they act on, each grown.

    Raises:
        InputError: a region is in both, or there is nothing to remove.
    """
    twice = sorted(set(objects) & set(affected))
    if twice or not objects:
        got = f"{twice} in both" if twice else "no region to remove"
        raise InputError(f"`objects` and `affected` must be different regions, but got {got}. Choose others.")
    away = finish_masks(_union(labels.maps, objects), Finish(grow=grow_object, border=0), progress) > 0
    touched = finish_masks(_union(labels.maps, affected), Finish(grow=grow_affected, border=0)) > 0
    quad = torch.full(labels.maps.shape, BACKGROUND)
    quad[touched] = AFFECTED
    quad[away] = OBJECT
    quad[away & touched] = BOTH
    return quad


def _union(maps: Tensor, labels: Sequence[int]) -> Tensor:
    """Return the union of some labels of ``maps`` ``(T,H,W)`` as float32; empty where there are none."""
    return torch.isin(maps, torch.tensor(list(labels), dtype=maps.dtype)).float()
