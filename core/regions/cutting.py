"""Another number of regions after the run: cut the tree of the leaves anew, split a region, merge some."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..documents import number, record, sequence, whole
from ..leaves import Leaves, MergeTree
from ..types import MAX_LABEL, InputError, LabelMaps, Region, SettingError, list_labels
from .labels import list_free_labels
from .tree import cut_tree, find_split, from_linkage, to_linkage


def group_leaves(
    maps: Tensor,
    tree: MergeTree,
    owners: Sequence[int],
    regions: tuple[Region, ...],
    frame_size: tuple[int, int],
    votes: Tensor | None = None,
) -> LabelMaps:
    """Return the regions of maps of leaves ``(T,h,w)`` or ``(T,H,W)``, of which each has an owner."""
    return LabelMaps(_look_up(owners, maps), regions, frame_size, Leaves(maps, tree, tuple(owners), votes))


def _look_up(owners: Sequence[int], maps: Tensor) -> Tensor:
    """Return the owner of each leaf in maps of any shape, in their type; NumPy needs no wider copy of them."""
    if maps.device.type != "cpu":
        return torch.tensor(owners, dtype=maps.dtype, device=maps.device)[maps.long()]
    leaves = maps.numpy()
    return torch.from_numpy(np.asarray(owners, dtype=leaves.dtype)[leaves])


def join_maps(parts: Sequence[LabelMaps]) -> LabelMaps:
    """Return the label maps of parts of a clip, in order, as one; regions are those of the last."""
    last = parts[-1]
    maps = torch.cat([part.maps for part in parts])
    if last.leaves is None:
        return LabelMaps(maps, last.regions, last.frame_size)
    leaves = [require_leaves(part) for part in parts]
    known = [each.votes for each in leaves if each.votes is not None]
    votes = torch.cat(known) if len(known) == len(parts) else None
    joined = last.leaves._replace(maps=torch.cat([each.maps for each in leaves]), votes=votes)
    return LabelMaps(maps, last.regions, last.frame_size, joined)


def cut_regions(labels: LabelMaps, num_regions: int) -> LabelMaps:
    """Return the same labels with another number of regions, those of the tree; a region that stays keeps its name.

    Regions that were found after the anchor frame are beyond that number: they stay as they are.
    """
    leaves = require_leaves(labels)
    later = range(len(leaves.tree.parents), len(leaves.owners))
    return _regrouped(labels, leaves, (*cut_tree(leaves.tree, num_regions), *later))


def split_region(labels: LabelMaps, label: int) -> LabelMaps:
    """Return the same labels with a region in two parts, the next cut of the tree; the new part gets a free label.

    A region of a single leaf stays whole.
    """
    leaves = require_leaves(labels)
    if label not in list_labels(labels.regions):
        raise SettingError("label", f"be one of {list_labels(labels.regions)}", label, "Choose a region")
    inside = [leaf for leaf, owner in enumerate(leaves.owners[: len(leaves.tree.parents)]) if owner == label]
    free, part = list_free_labels(list_labels(labels.regions)), find_split(leaves.tree, inside)
    if not part or not free:
        return labels
    target = part[0] if part[0] in free else free[0]
    return _regrouped(labels, leaves, [target if leaf in part else owner for leaf, owner in enumerate(leaves.owners)])


def merge_owners(leaves: Leaves | None, targets: Mapping[int, int]) -> Leaves | None:
    """Return leaves whose regions are merged, each into its target."""
    return leaves and leaves._replace(owners=tuple(targets.get(owner, owner) for owner in leaves.owners))


def require_leaves(labels: LabelMaps) -> Leaves:
    """Return the leaves of labels, which must have some."""
    if labels.leaves is None:
        raise InputError(
            "`labels` must know the small clusters that regions are made of, but do not. Segment with the method "
            "`tree`, and change the number of regions before they are corrected."
        )
    return labels.leaves


def count_most_regions(labels: LabelMaps) -> int:
    """Return the largest number of regions that can be cut; 0 where it cannot be changed."""
    return len(labels.leaves.tree.parents) if labels.leaves else 0


LEAVES = record(
    {
        "linkage": sequence(sequence(number(0, sys.float_info.max), 4), MAX_LABEL),
        "owners": sequence(whole(0, MAX_LABEL), MAX_LABEL + 1),
    }
)
"""What `describe_leaves` makes."""


def describe_leaves(leaves: Leaves) -> dict[str, Any]:
    """Return tree and owners for JSON; `restore_leaves` takes them back."""
    return {"linkage": to_linkage(leaves.tree), "owners": list(leaves.owners)}


def restore_leaves(maps: Tensor, described: Mapping[str, Any]) -> Leaves:
    """Return the leaves of maps from what `describe_leaves` wrote."""
    tree, owners = from_linkage(described["linkage"]), tuple(described["owners"])
    largest = int(maps.max()) if maps.numel() else 0
    if not len(tree.parents) <= len(owners) <= MAX_LABEL + 1 or largest >= len(owners):
        raise InputError(
            f"`owners` must name a region for each leaf, but got {len(owners)} for {len(tree.parents)} leaves and "
            f"labels up to {largest}. Segment the clip again."
        )
    return Leaves(maps, tree, owners)


def _regrouped(labels: LabelMaps, leaves: Leaves, owners: Sequence[int]) -> LabelMaps:
    """Return labels whose leaves have other owners; a region of the same leaves keeps its name."""
    names = {members: region.name for region, members in _list_members(labels.regions, leaves.owners).items()}
    num_first = len(leaves.tree.parents)
    found = tuple(Region(label, "") for label in sorted(set(owners)))
    regions = tuple(
        region._replace(name=names.get(members) or f"{'new' if region.label >= num_first else 'region'} {region.label}")
        for region, members in _list_members(found, owners).items()
    )
    return group_leaves(leaves.maps, leaves.tree, owners, regions, labels.frame_size, leaves.votes)


def _list_members(regions: Sequence[Region], owners: Sequence[int]) -> dict[Region, tuple[int, ...]]:
    """Return the leaves of each region."""
    return {region: tuple(leaf for leaf, own in enumerate(owners) if own == region.label) for region in regions}
