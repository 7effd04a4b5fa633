"""What travels between the nodes beside the core's own types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...core.config.settings import Settings
from ...core.method.enlarging import enlarge_bilinear
from ...core.regions.labels import merge_labels, reduce_reference, rename_regions
from ...core.types import AnchorLabels, Features, InputError, LabelMaps, Progress, Region, no_progress


@dataclass(frozen=True)
class Scan:
    """What coarse labels were made from, so that refinement can replay the scan with its own feedback.

    Not a tuple: a host that weighs cached outputs by walking tuples must not count the features twice.

    Attributes:
        anchor_labels: their regions stay as they were, so that a replay finds what is new under the same labels.
        merges: for each label merged since the scan the label that it became.
    """

    features: Features
    anchor_labels: AnchorLabels
    settings: Settings
    merges: Mapping[int, int] = field(default_factory=dict)


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
        """Return these labels with new names, and some merged; labels that become one vote as one in refinement.

        Args:
            names: new name by label, after merging.
            merges: for each merged label the label that it becomes, which is not merged itself.
        """
        maps, left = merge_labels(self.maps, self.regions, merges)
        scan = self.scan
        if scan is not None:
            own = dict(scan.anchor_labels.regions)
            seeded = {old: new for old, new in merges.items() if old in own and new in own}
            cluster_map, _ = merge_labels(scan.anchor_labels.cluster_map, scan.anchor_labels.regions, seeded)
            before = {old: merges.get(new, new) for old, new in scan.merges.items()}
            anchor_labels = scan.anchor_labels._replace(cluster_map=cluster_map)
            scan = replace(scan, anchor_labels=anchor_labels, merges={**before, **merges})
        return replace(self, maps=maps, regions=rename_regions(left, names), scan=scan)

    def named_as(self, other: Labels) -> Labels:
        """Return these labels, replayed from the scan of ``other``, with the names and merges of ``other``."""
        merges = other.scan.merges if other.scan else {}
        names = {**dict(self.regions), **dict(other.regions)}
        becomes = {label: merges.get(label, label) for label, _ in self.regions}
        maps = self.maps.clone()
        for label, target in becomes.items():
            maps[self.maps == label] = target
        regions = tuple(Region(label, names[label]) for label in sorted(set(becomes.values())))
        return replace(self, maps=maps, regions=regions)

    def get_ram_usage(self) -> int:
        """Return the size in bytes, without the features they came from, which their own node holds."""
        return self.maps.numel() * self.maps.element_size()


def require_features_of(labels: Labels, features: Features) -> None:
    """Check that ``labels`` and ``features`` belong to the same clip.

    Raises:
        InputError: they do not.
    """
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
    """Check that ``frames`` ``(T,H,W,C)`` and ``labels`` have the same number and size.

    Raises:
        InputError: they differ.
    """
    expected, actual = (labels.num_frames, *labels.frame_size), tuple(frames.shape[:3])
    if expected != actual:
        raise InputError(
            f"`frames` must be the {expected[0]} frames of {expected[2]}x{expected[1]} pixels that were segmented, but "
            f"got {actual[0]} of {actual[2]}x{actual[1]}. Wire the same images here as to the first VidSeg node."
        )
