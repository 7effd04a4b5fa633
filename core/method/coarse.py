"""Coarse maps of a whole video: a scan over windows that carries the scene context (paper 4.1-4.2)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..config.settings import Settings
from ..regions.cutting import group_leaves
from ..regions.labels import list_free_labels
from ..types import (
    AnchorLabels,
    Features,
    InputError,
    LabelMaps,
    Progress,
    Region,
    list_labels,
    no_progress,
    require_shape,
)
from .context import NeighborMemory, SceneContext
from .correspondence import refine, vote_by_cell
from .published import vote_by_track
from .scene_changes import find_cuts, find_new_regions, restart_context
from .tokens import make_tokens, without_flow
from .windows import find_window, split_windows


class CoarseScan:
    """The scan, one window at a time, for clips whose features are not held at once.

    The first window must hold the anchor frame, unless a context is given: one made of the anchor with
    `start_context`, or one stored after an earlier window. ``context`` is that for the next window, ``anchor_labels``
    are those given, with what was found since. Where there are leaves, they are what is followed through the clip.
    ``memory`` has what another scan found, which may differ in how labels are refined alone.
    """

    def __init__(
        self,
        anchor_labels: AnchorLabels,
        settings: Settings,
        context: SceneContext | None = None,
        memory: NeighborMemory | None = None,
    ) -> None:
        self.context, self.anchor_labels, self.settings = context, anchor_labels, settings
        chosen = settings.scene.cuts or settings.scene.new_regions  # labels decide which tokens a context has
        self._memory = None if chosen else memory
        self._steps = 0
        self._vote = vote_by_track if settings.variant == "published" else vote_by_cell

    def step(self, window: Features) -> LabelMaps:
        """Label the next window, coarse maps ``(T,h,w)``, and update the context with the (refined) labels."""
        first = self.context is None
        context = self.context or start_context(window, self.anchor_labels, self.settings)
        require_shape("window.queries", window.queries, "T N C", N=window.grid.num_tokens)
        looks = window.queries.shape[-1]  # components that say what a cell looks like, not how it moves, where it lies
        moves = bool(self.anchor_labels.scales.motion)
        counts = moves and bool(context.tokens[:, looks].any())
        tokens = make_tokens(window if counts else without_flow(window), self.anchor_labels.scales)
        config, followed = self.settings.scene, list_followed(self.anchor_labels)
        before = None if first else context.tokens[..., :looks]
        cuts = find_cuts(tokens[..., :looks], before, config) if config.cuts else []
        starts = sorted({0, *cuts})
        maps, votes = [], []
        for start, stop in zip(starts, [*starts[1:], len(tokens)], strict=True):
            part = tokens[start:stop]
            if start in cuts:
                context, followed = restart_context(part[0], looks, context, followed, self.settings)
            memory, device = self._memory, window.device
            neighbors = (
                memory.find(self._steps, context, part, device) if memory else context.find_neighbors(part, device)
            )
            votes.append(context.show_votes(neighbors))
            found = context.vote(neighbors).reshape(-1, *window.grid)
            labels, context, followed = self._labeled(found, part, window.window(start, stop), context, followed)
            maps.append(labels)
        self.context, self._steps = without_motion(context, looks) if moves else context, self._steps + 1
        self.anchor_labels = add_followed(self.anchor_labels, followed)._replace(later=None)  # the context has it
        seen = torch.cat(votes).reshape(len(tokens), *window.grid, -1)
        return group_followed(torch.cat(maps), seen, self.anchor_labels, window.frame_size)

    def _labeled(
        self, maps: Tensor, tokens: Tensor, window: Features, context: SceneContext, followed: tuple[Region, ...]
    ) -> tuple[Tensor, SceneContext, tuple[Region, ...]]:
        """Return labels ``(T,h,w)`` of frames of one scene, by those that the context gave them, refined.

        With them the context after the frames, and what is followed then.
        """
        if not self.settings.scene.new_regions:
            maps = refine(maps, window.matching.to(window.device), self.settings.refinement, self._vote)
            return maps, context.updated(tokens, maps), followed
        looks = window.queries.shape[-1]
        known = context.tokens[..., :looks]
        novelty = find_new_regions(tokens[..., :looks], maps, known, followed, self.settings.scene)
        maps = refine(novelty.maps, window.matching.to(window.device), self.settings.refinement, self._vote)
        sure = ~novelty.unsure
        enough = int(sure.sum()) >= self.settings.context.num_neighbors
        kept = sure if enough else torch.ones_like(sure)
        return maps, context.updated(tokens[kept.flatten(1)], maps[kept.to(maps.device)]), novelty.regions


def start_context(features: Features, anchor_labels: AnchorLabels, settings: Settings) -> SceneContext:
    """Start the scene context from the anchor frame, which must be among the frames, and its labels."""
    if not 0 <= anchor_labels.anchor < features.num_frames:
        raise InputError(
            f"`anchor_labels.anchor` must lie in [0, {features.num_frames - 1}], but got {anchor_labels.anchor}. "
            "Choose an anchor among the frames of the clip; for a clip in windows, of the first window."
        )
    if anchor_labels.cluster_map.shape != tuple(features.grid):
        sizes = ["x".join(map(str, shape)) for shape in (features.grid, anchor_labels.cluster_map.shape)]
        raise InputError(
            f"`anchor_labels` must be of the same frames as `features`, {sizes[0]} cells, but got {sizes[1]}. Use "
            "the features that K-means got."
        )
    require_shape("features.queries", features.queries, "T N C", N=features.grid.num_tokens)
    unknown = set(torch.unique(anchor_labels.cluster_map).tolist()) - set(list_labels(anchor_labels.regions))
    if unknown:
        raise InputError(
            f"`anchor_labels.cluster_map` must hold labels of `anchor_labels.regions`, but got {sorted(unknown)}. "
            "Name every label."
        )
    anchor = anchor_labels.anchor
    window = find_window(anchor, settings.window.length, features.num_frames)
    tokens = make_tokens(features.window(window.start, window.stop), anchor_labels.scales)[anchor - window.start]
    followed = anchor_labels.leaves.maps if anchor_labels.leaves else anchor_labels.cluster_map
    return SceneContext.from_anchor(tokens, followed.flatten(), settings.context, anchor_labels.later)


def segment_coarse(
    features: Features,
    anchor_labels: AnchorLabels,
    settings: Settings,
    *,
    memory: NeighborMemory | None = None,
    progress: Progress = no_progress,
) -> LabelMaps:
    """Label all frames on the coarse grid: predict a window, refine it, update the context, go on (paper 4.1-4.2).

    The scan starts with the window that holds the anchor, and goes from there to the end, then to the beginning, so
    that what is far from the anchor is labeled by what lies between. Reference code: the anchor is the first frame.
    ``memory`` is as for `CoarseScan`; ``progress`` is called after each window, stage ``coarse maps``, in frames.
    """
    context = start_context(features, anchor_labels, settings)
    scan = CoarseScan(anchor_labels, settings, context, memory)
    return scan_clip(features, scan, anchor=anchor_labels.anchor, progress=progress)


def scan_clip(features: Features, scan: CoarseScan, *, anchor: int = 0, progress: Progress = no_progress) -> LabelMaps:
    """Label all frames of a clip by a scan that has its scene context, in both directions from the anchor.

    Where windows overlap, the later overwrites.
    """
    num_frames, settings = features.num_frames, scan.settings
    maps, done = torch.empty((num_frames, *features.grid), dtype=torch.int64), 0
    votes = torch.empty((*maps.shape, scan.context.config.num_neighbors), dtype=torch.uint8) if scan.context else None
    windows = split_windows(num_frames, settings.window, settings.variant)
    first = next(number for number, frames in enumerate(windows) if anchor in frames)
    context: SceneContext | None = None
    for number in (*range(first, len(windows)), *range(first - 1, -1, -1)):
        frames = windows[number]
        if number == first - 1:
            scan.context = context  # as after the window of the anchor
        found = scan.step(features.window(frames.start, frames.stop))
        part = slice(frames.start, frames.stop)
        maps[part] = (found.leaves.maps if found.leaves else found.maps).cpu()
        if votes is not None and found.leaves and found.leaves.votes is not None:
            votes[part] = found.leaves.votes.cpu()
        context, done = (scan.context if number == first else context), done + len(frames)
        progress("coarse maps", min(done, num_frames), num_frames)
    return group_followed(maps, votes, scan.anchor_labels, features.frame_size)


def without_motion(context: SceneContext, looks: int) -> SceneContext:
    """Return a context in which nothing moves: ``looks`` components of a token come before its motion.

    Motion has no say in the windows that follow: it may differ there, while their cells look and lie as those before.
    """
    tokens = context.tokens.clone()
    tokens[:, looks] = 0
    return replace(context, tokens=tokens)


def list_followed(anchor_labels: AnchorLabels) -> tuple[Region, ...]:
    """Return what the scan follows: the leaves, as regions of their own, or the regions where there are none."""
    if anchor_labels.leaves is None:
        return anchor_labels.regions
    return tuple(Region(leaf, f"leaf {leaf}") for leaf in range(len(anchor_labels.leaves.owners)))


def add_followed(anchor_labels: AnchorLabels, followed: tuple[Region, ...]) -> AnchorLabels:
    """Return anchor labels with what was found beside them, among ``followed``: each a region of its own."""
    leaves = anchor_labels.leaves
    if leaves is None:
        return anchor_labels._replace(regions=followed)
    owners, regions = list(leaves.owners), list(anchor_labels.regions)
    for leaf in range(len(owners), len(followed)):
        free = list_free_labels(list_labels(regions))
        label = leaf if leaf in free else free[0]
        owners.append(label)
        regions.append(Region(label, f"new {label}"))
    return anchor_labels._replace(regions=tuple(sorted(regions)), leaves=leaves._replace(owners=tuple(owners)))


def group_followed(
    maps: Tensor, votes: Tensor | None, anchor_labels: AnchorLabels, frame_size: tuple[int, int]
) -> LabelMaps:
    """Return the label maps of maps ``(T,h,w)`` of what the scan follows, and of the votes ``(T,h,w,k)`` for them."""
    leaves = anchor_labels.leaves
    if leaves is None:
        return LabelMaps(maps, anchor_labels.regions, frame_size)
    return group_leaves(maps, leaves.tree, leaves.owners, anchor_labels.regions, frame_size, votes)
