"""Labels and their names: naming of clusters by a reference, merging, renaming, masks (paper 5.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from ..types import MAX_LABEL, VOID, AnchorLabels, InputError, Progress, Region, no_progress, require_shape


def default_name(label: int) -> str:
    """Return what a label is called when nobody named it."""
    return "void" if label == VOID else f"label {label}"


def list_free_labels(labels: Iterable[int]) -> list[int]:
    """Return the labels below 255, void, that are not among ``labels``, in order."""
    return sorted(set(range(MAX_LABEL)) - set(labels))


def spread_indices(labels: Tensor, limit: int) -> Tensor:
    """Return indices of at most ``limit`` elements of each label, spread evenly over those there are.

    >>> spread_indices(torch.tensor([5, 5, 5, 5, 2]), 2)
    tensor([4, 0, 2])

    Args:
        labels: ``(M,)`` integers.
        limit: at least 1.

    Returns:
        ``(K,)`` int64, label after label from the smallest on.
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
    rows, columns = (_nearest(old, new) for old, new in zip(reference.shape, size, strict=True))
    return reference[rows][:, columns]


def _nearest(old: int, new: int) -> list[int]:
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
    """Give each cluster the label that most of its cells have in a reference; ties go to the smallest label.

    Cells labeled ``ignore`` do not vote; a cluster of nothing else takes that label. Paper 5.1; the reference code
    has no ignored label (``ignore=None``).

    >>> clusters = torch.tensor([[7, 7, 9]])
    >>> assign_clusters(clusters, torch.tensor([[2, 255, 4]], dtype=torch.uint8))[0]
    tensor([[2, 2, 4]])

    Args:
        cluster_map: ``(h,w)`` int64 clusters.
        reference: ``(H,W)`` labels in [0, 255] of any size.
        ignore: label without a vote, or None.
        names: names of labels; `default_name` for the others.

    Returns:
        ``(h,w)`` int64 labels, and the regions that occur, sorted by label.

    Raises:
        InputError: shapes are wrong, or a label lies outside [0, 255].
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
        labels[inside] = _majority(cells[inside], ignore)
    return labels, list_regions(labels, names)


def _majority(values: Tensor, ignore: int | None) -> int:
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


def name_clusters_by_reference(
    cluster_map: Tensor,
    reference: Tensor,
    anchor: int = 0,
    *,
    ignore: int | None = VOID,
    names: Mapping[int, str] | None = None,
) -> AnchorLabels:
    """Return anchor labels that are those of a reference label image of the anchor frame (see `assign_clusters`).

    Args:
        cluster_map: ``(h,w)`` int64 clusters of the anchor frame.
        reference: ``(H,W)`` labels in [0, 255] of any size.
        anchor: index of the anchor frame.
        ignore: label without a vote, or None.
        names: names of labels.

    Raises:
        InputError: shapes are wrong, or a label lies outside [0, 255].
    """
    labels, regions = assign_clusters(cluster_map, reference, ignore=ignore, names=names)
    return AnchorLabels(anchor, labels, regions)


def rename_regions(regions: Iterable[Region], names: Mapping[int, str]) -> tuple[Region, ...]:
    """Return ``regions`` with the names given for some labels.

    Raises:
        InputError: a name is given for a label that no region has.
    """
    known = tuple(regions)
    _require_known("names", names, known)
    return tuple(region._replace(name=names.get(region.label, region.name)) for region in known)


def merge_labels(
    maps: Tensor, regions: Sequence[Region], targets: Mapping[int, int]
) -> tuple[Tensor, tuple[Region, ...]]:
    """Give some labels the label of another region; all at once, so two labels may also be exchanged.

    >>> merge_labels(torch.tensor([[1, 2, 3]]), [Region(1, "a"), Region(2, "b"), Region(3, "c")], {3: 1})
    (tensor([[1, 2, 1]]), (Region(label=1, name='a'), Region(label=2, name='b')))

    Args:
        maps: integer labels of any shape.
        regions: the regions that may occur in them.
        targets: new label of each label that changes.

    Returns:
        Maps of the same shape and type, and the regions that are left, which keep their names.

    Raises:
        InputError: a label or a new label belongs to no region.
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
    """Return where any of the labels lies, without a mask of each.

    >>> mask_union(torch.tensor([[[1, 2, 3]]]), [1, 3]).tolist()
    [[[True, False, True]]]

    Args:
        maps: ``(T,H,W)`` integer labels in [0, 255].
        labels: any number of them.
        progress: called with stage ``masks`` in frames.

    Returns:
        ``(T,H,W)`` bool.

    Raises:
        InputError: ``maps`` has not three axes.
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
