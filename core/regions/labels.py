"""Labels and their names: named by a reference, merged, renamed, masked, counted (paper 5.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import distance_transform_cdt
from torch import Tensor

from ..leaves import Leaves
from ..types import (
    MAX_LABEL,
    VOID,
    AnchorLabels,
    InputError,
    LabelMaps,
    Progress,
    Region,
    list_labels,
    no_progress,
    require_shape,
)
from .tree import find_nearest_leaves
from .typed import fold_name


def default_name(label: int) -> str:
    """Return what a label is called when nobody named it."""
    return "void" if label == VOID else f"label {label}"


def list_free_labels(labels: Iterable[int]) -> list[int]:
    """Return the labels below 255, void, that are not among ``labels``, in order."""
    return sorted(set(range(MAX_LABEL)) - set(labels))


def spread_indices(labels: Tensor, limit: int) -> Tensor:
    """Return indices of at most ``limit`` elements of each label of ``(M,)``, spread evenly, the smallest label first.

    >>> spread_indices(torch.tensor([5, 5, 5, 5, 2]), 2)
    tensor([4, 0, 2])
    """
    parts = []
    for label in torch.unique(labels):
        places = (labels == label).nonzero()[:, 0]
        count = min(limit, len(places))
        parts.append(places[torch.arange(count, device=places.device) * len(places) // count])
    return torch.cat(parts)


def reduce_reference(reference: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a label image ``(H,W)`` in ``size`` by nearest neighbor: the pixel under the center of each cell.

    Equal to Pillow's ``NEAREST``, also for centers between two pixels, where its rounding decides.
    """
    rows, columns = (_find_nearest(old, new) for old, new in zip(reference.shape, size, strict=True))
    return reference[rows][:, columns]


def _find_nearest(old: int, new: int) -> list[int]:
    """Return the pixel of ``old`` ones under each of ``new`` centers, adding up distances in double precision."""
    distance = old / new
    centers = accumulate([distance / 2] + [distance] * (new - 1))
    return [min(int(center), old - 1) for center in centers]


def assign_clusters(
    cluster_map: Tensor,
    reference: Tensor,
    *,
    ignore: int | None = VOID,
    names: Mapping[int, str] | None = None,
) -> tuple[Tensor, tuple[Region, ...]]:
    """Give clusters ``(h,w)`` the label that most of their cells have in a reference ``(H,W)``; ties: the smallest.

    Cells labeled ``ignore`` do not vote; a cluster of nothing else takes that label. Paper 5.1; the reference code
    has no ignored label (``ignore=None``).

    >>> clusters = torch.tensor([[7, 7, 9]])
    >>> assign_clusters(clusters, torch.tensor([[2, 255, 4]], dtype=torch.uint8))[0]
    tensor([[2, 2, 4]])
    """
    sizes = require_shape("cluster_map", cluster_map, "h w")
    require_shape("reference", reference, "H W")
    if reference.numel() == 0:
        raise InputError("`reference` must not be empty. Pass the label image of the anchor frame.")
    low, high = int(reference.min()), int(reference.max())
    if low < 0 or high > MAX_LABEL:
        raise InputError(f"`reference` must hold labels in [0, {MAX_LABEL}], but got [{low}, {high}].")
    cells = reduce_reference(reference, (sizes["h"], sizes["w"])).to(cluster_map.device).long()
    labels = torch.empty_like(cluster_map)
    for cluster in torch.unique(cluster_map):
        inside = cluster_map == cluster
        labels[inside] = _find_majority(cells[inside], ignore)
    return labels, list_regions(labels, names)


def _find_majority(values: Tensor, ignore: int | None) -> int:
    """Return the most frequent of labels ``(n,)``; ties: the smallest; ``ignore`` only where there is nothing else."""
    counts = torch.bincount(values, minlength=MAX_LABEL + 1)
    if ignore is not None and int(counts.sum() - counts[ignore]) > 0:
        counts[ignore] = 0
    return int((counts == counts.max()).nonzero()[0])


def list_regions(maps: Tensor, names: Mapping[int, str] | None = None) -> tuple[Region, ...]:
    """Return the regions that occur in label maps of any shape, sorted by label."""
    known = names or {}
    labels = [int(label) for label in torch.unique(maps)]
    return tuple(Region(label, known.get(label, default_name(label))) for label in labels)


def name_anchor(
    anchor_labels: AnchorLabels,
    reference: Tensor,
    *,
    ignore: int | None = VOID,
    names: Mapping[int, str] | None = None,
    named: str = "leaves",
) -> AnchorLabels:
    """Return anchor labels that are those of a reference label image ``(H,W)`` of their frame (see `assign_clusters`).

    Where regions are made of leaves, each of these is named by itself, or each region: ``named``, as in
    `ClusterConfig.named`. A leaf that the anchor frame lacks is called as the leaf of its region that is nearest in the
    tree; a region of nothing but such leaves came later: it stays one of its own, under a label that is free.
    """
    leaves = anchor_labels.leaves
    clusters = leaves.maps if leaves and named == "leaves" else anchor_labels.cluster_map
    labels, regions = assign_clusters(clusters, reference, ignore=ignore, names=names)
    if leaves:
        owners = dict(zip(leaves.maps.flatten().tolist(), labels.flatten().tolist(), strict=True))
        leaves, regions = _name_later(leaves, owners, regions)
    return anchor_labels._replace(cluster_map=labels, regions=regions, leaves=leaves)


def _name_later(
    leaves: Leaves, owners: Mapping[int, int], regions: tuple[Region, ...]
) -> tuple[Leaves, tuple[Region, ...]]:
    """Return leaves with an owner for each, also for those without one in ``owners``, and the regions."""
    nearest, before = find_nearest_leaves(leaves.tree, owners), leaves.owners
    own: dict[int, int] = {}
    found = []
    for leaf, region in enumerate(before):
        free = list_free_labels([*list_labels(regions), *own.values()])
        if before[nearest[leaf]] != region and region not in own and free:
            own[region] = region if region in free else free[0]
        found.append(owners.get(leaf, own.get(region, owners[nearest[leaf]])))
    later = (Region(label, f"region {label}") for label in own.values())
    return leaves._replace(owners=tuple(found)), tuple(sorted((*regions, *later)))


def find_label_called(regions: Iterable[Region], name: str) -> int | None:
    """Return the first label that is called ``name``, however it is capitalized; None if there is none."""
    folded = fold_name(name)
    return next((region.label for region in regions if fold_name(region.name) == folded), None)


def rename_regions(regions: Iterable[Region], names: Mapping[int, str]) -> tuple[Region, ...]:
    """Return ``regions`` with the names given for some labels."""
    known = tuple(regions)
    _require_known("names", names, known)
    return tuple(region._replace(name=names.get(region.label, region.name)) for region in known)


def merge_labels(
    maps: Tensor, regions: Sequence[Region], targets: Mapping[int, int]
) -> tuple[Tensor, tuple[Region, ...]]:
    """Give some labels the label of another region, ``targets``; all at once, so two labels may also be exchanged.

    >>> merge_labels(torch.tensor([[1, 2, 3]]), [Region(1, "a"), Region(2, "b"), Region(3, "c")], {3: 1})
    (tensor([[1, 2, 1]]), (Region(label=1, name='a'), Region(label=2, name='b')))
    """
    _require_known("targets", targets, regions)
    _require_known("targets", targets.values(), regions)
    result = maps.clone()
    for label, target in targets.items():
        result[maps == label] = target
    left = {targets.get(region.label, region.label) for region in regions}
    return result, tuple(region for region in regions if region.label in left)


def mask_labels(maps: Tensor, labels: Sequence[int]) -> Tensor:
    """Return where each label lies: boolean ``(K,*maps.shape)`` for ``K`` labels, in their order."""
    masks = torch.empty(len(labels), *maps.shape, dtype=torch.bool, device=maps.device)
    for mask, label in zip(masks, labels, strict=True):
        torch.eq(maps, label, out=mask)
    return masks


def mask_union(maps: Tensor, labels: Sequence[int], progress: Progress = no_progress) -> Tensor:
    """Return where any of the labels lies in maps ``(T,H,W)``, without a mask of each.

    >>> mask_union(torch.tensor([[[1, 2, 3]]]), [1, 3]).tolist()
    [[[True, False, True]]]
    """
    require_shape("maps", maps, "T H W")
    inside = torch.zeros(MAX_LABEL + 1, dtype=torch.bool, device=maps.device)
    inside[list(labels)] = True
    masks = torch.empty(maps.shape, dtype=torch.bool, device=maps.device)
    for number, frame in enumerate(maps):
        masks[number] = inside[frame.long()]
        progress("masks", number + 1, len(maps))
    return masks


def _require_known(name: str, labels: Iterable[int], regions: Iterable[Region]) -> None:
    """Check that all labels belong to regions."""
    known = [region.label for region in regions]
    unknown = [label for label in labels if label not in known]
    if unknown:
        raise InputError(f"`{name}` must hold labels of regions {known}, but got {unknown}. Check the legend.")


_DEPTH_SIDE = 128
"""Pixels of the longer side at which the point deepest inside a region is looked for."""


class RegionRow(NamedTuple):
    """A region in numbers.

    Attributes:
        label: its id.
        name: its name.
        share: fraction of all pixels of the clip, in [0, 1].
        first: number of the first frame that shows it; None if none does.
        last: number of the last one.
        frame: number of the frame that shows most of it, the earliest of them.
        x: of a point on it in that frame, far from its border, as a fraction of the width.
        y: of that point, as a fraction of the height.
    """

    label: int
    name: str
    share: float
    first: int | None
    last: int | None
    frame: int | None
    x: float
    y: float


def count_pixels(maps: Tensor, progress: Progress = no_progress) -> Tensor:
    """Return how many pixels of each frame have each label, ``(T,256)`` int64, of label maps ``(T,H,W)``.

    ``progress`` is called with stage ``areas`` in frames.
    """
    require_shape("maps", maps, "T H W")
    counts = torch.empty(len(maps), MAX_LABEL + 1, dtype=torch.int64, device=maps.device)
    for number, frame in enumerate(maps):
        counts[number] = torch.bincount(frame.flatten(), minlength=MAX_LABEL + 1)
        progress("areas", number + 1, len(maps))
    return counts


def tabulate_regions(labels: LabelMaps, progress: Progress = no_progress) -> tuple[RegionRow, ...]:
    """Return a row for each region, in their order; those that no frame shows have None and 0 in it.

    ``progress`` is called with stage ``areas`` in frames.
    """
    counts = count_pixels(labels.maps, progress).cpu()
    num_pixels = max(1, labels.maps.numel())
    rows = []
    for label, name in labels.regions:
        column = counts[:, label]
        frames = column.nonzero().flatten().tolist()
        if not frames:
            rows.append(RegionRow(label, name, 0.0, None, None, None, 0.0, 0.0))
            continue
        most = int(column.argmax())
        x, y = find_inner_point(labels.maps[most] == label)
        share = int(column.sum()) / num_pixels
        rows.append(RegionRow(label, name, share, frames[0], frames[-1], most, x, y))
    return tuple(rows)


def find_inner_point(mask: Tensor) -> tuple[float, float]:
    """Return a point of a mask ``(H,W)`` far from its border, (x, y) as fractions of width and height.

    It is the center of a pixel; of equally deep ones the middle one in raster order.
    """
    sizes = require_shape("mask", mask, "H W")
    height, width = sizes["H"], sizes["W"]
    stride = -(-max(height, width) // _DEPTH_SIDE)
    small = reduce_reference(mask, (-(-height // stride), -(-width // stride)))
    if not bool(small.any()):
        small = mask
    depth = distance_transform_cdt(np.pad(small.cpu().numpy(), 1), "taxicab")[1:-1, 1:-1]
    deepest = np.flatnonzero(depth == depth.max())
    row, column = divmod(int(deepest[len(deepest) // 2]), small.shape[1])
    return (column + 0.5) / small.shape[1], (row + 0.5) / small.shape[0]
