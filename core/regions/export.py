"""Regions as other programs want them: boxes, first-frame masks, segments of the Impact Pack, COCO, ID video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..types import InputError, LabelMaps, Progress, Region, no_progress
from .labels import mask_labels


class Box(NamedTuple):
    """A box in pixels: its upper left corner, and its size."""

    x: int
    y: int
    width: int
    height: int


class SEG(NamedTuple):
    """A segment as the Impact Pack defines it, field by field; boxes are (x1, y1, x2, y2)."""

    cropped_image: Any
    cropped_mask: Any
    confidence: float
    crop_region: tuple[int, int, int, int]
    bbox: tuple[int, int, int, int]
    label: str
    control_net_wrapper: Any = None


def find_box(mask: Tensor) -> Box | None:
    """Return the smallest box around a mask ``(H,W)`` bool, or None where it is empty.

    >>> find_box(torch.tensor([[False, True, True], [False, True, False]]))
    Box(x=1, y=0, width=2, height=2)
    """
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    return Box(left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top)


def find_boxes(labels: LabelMaps, chosen: Sequence[int], progress: Progress = no_progress) -> list[list[Box]]:
    """Return for each frame the boxes of the chosen regions that it holds, in the order of ``chosen``.

    ``progress`` is called with stage ``find_boxes`` in frames.
    """
    found = []
    for number, frame in enumerate(labels.maps):
        found.append([box for box in map(find_box, mask_labels(frame, chosen)) if box])
        progress("boxes", number + 1, len(labels.maps))
    return found


def take_masks(labels: LabelMaps, chosen: Sequence[int], frame: int) -> tuple[Tensor, list[int]]:
    """Return masks ``(K,H,W)`` float32 of the chosen regions that a frame holds, and the labels of those it lacks."""
    if not 0 <= frame < len(labels.maps):
        raise InputError(
            f"`frame` must lie in [0, {len(labels.maps) - 1}], but got {frame}. Choose a frame of the clip."
        )
    masks = mask_labels(labels.maps[frame], chosen)
    there = masks.flatten(1).any(1)
    if not bool(there.any()):
        raise InputError(f"`frame` must show one of the regions, but frame {frame} has none. Choose another frame.")
    return masks[there].float(), [label for label, found in zip(chosen, there.tolist(), strict=True) if not found]


def make_segs(
    labels: LabelMaps, chosen: Sequence[int], margin: float = 1.5, progress: Progress = no_progress
) -> tuple[tuple[int, int], list[SEG]]:
    """Return regions as the Impact Pack's SEGS, ``(H, W)`` and one segment per region that occurs, over all frames.

    Masks are ``(T,h,w)`` float32, or ``(h,w)`` for a single frame, of crops of ``margin`` times the box.
    """
    height, width = (int(side) for side in labels.maps.shape[1:])
    names = {region.label: region.name for region in labels.regions}
    found = []
    for number, label in enumerate(chosen, 1):
        masks = labels.maps == label
        box = find_box(masks.any(0))
        if box:
            left, right = _crop(box.x, box.width, margin, width)
            top, bottom = _crop(box.y, box.height, margin, height)
            mask = masks[:, top:bottom, left:right].float()
            corners = (box.x, box.y, box.x + box.width, box.y + box.height)
            seg = SEG(None, mask if len(mask) > 1 else mask[0].numpy(), 1.0, (left, top, right, bottom), corners, "")
            found.append(seg._replace(label=names[label]))
        progress("segments", number, len(chosen))
    return (height, width), found


def _crop(start: int, size: int, margin: float, limit: int) -> tuple[int, int]:
    """Return start and end of a crop of ``margin`` times ``size`` around a stretch, inside [0, limit]."""
    extra = int(size * (max(margin, 1.0) - 1) / 2)
    return max(0, start - extra), min(limit, start + size + extra)


def encode_run_lengths(mask: Tensor) -> list[int]:
    """Return COCO's uncompressed run lengths of a mask ``(H,W)`` bool: column by column, outside first.

    >>> encode_run_lengths(torch.tensor([[False, True], [True, True]]))
    [1, 3]
    """
    flat = mask.T.flatten()
    changes = (flat[1:] != flat[:-1]).nonzero()[:, 0] + 1
    edges = torch.cat([changes.new_zeros(1), changes, changes.new_full((1,), len(flat))])
    counts = (edges[1:] - edges[:-1]).tolist()
    return [0, *counts] if bool(flat[0]) else list(counts)


def make_coco(labels: LabelMaps, progress: Progress = no_progress) -> dict[str, Any]:
    """Return label maps in COCO's format, with one category per region; ``track_id`` is the region's label.

    Ids of images and annotations start with 1, and those of categories are labels plus 1: tools take 0 for nothing.
    Masks are run lengths of things that are no crowd, which evaluations and training read.
    """
    height, width = (int(side) for side in labels.maps.shape[1:])
    annotations: list[dict[str, Any]] = []
    for number, frame in enumerate(labels.maps):
        for label, _ in labels.regions:
            mask = frame == label
            box = find_box(mask)
            if box:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number + 1,
                        "category_id": label + 1,
                        "track_id": label,
                        "segmentation": {"size": [height, width], "counts": encode_run_lengths(mask)},
                        "area": int(mask.sum()),
                        "bbox": list(box),
                        "iscrowd": 0,
                    }
                )
        progress("outlines", number + 1, len(labels.maps))
    images = [
        {"id": number + 1, "file_name": f"labels/{number:05d}.png", "width": width, "height": height, "frame": number}
        for number in range(len(labels.maps))
    ]
    categories = [{"id": region.label + 1, "name": region.name, "supercategory": ""} for region in labels.regions]
    info = {"description": "Regions of a video by VidSeg", "version": "1.0"}
    return {"info": info, "licenses": [], "images": images, "categories": categories, "annotations": annotations}


def join_names(regions: Sequence[Region], labels: Sequence[int]) -> str:
    """Return the names of some regions, separated by commas."""
    names = {region.label: region.name for region in regions}
    return ", ".join(names[label] for label in labels)
