"""Coarse maps of a whole video: a scan over windows that carries the scene context (paper 4.1-4.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config.parts import ContextConfig
from ..config.settings import Settings
from ..types import AnchorLabels, Features, InputError, LabelMaps, Progress, list_labels, no_progress, require_shape
from .clustering import normalize_tokens
from .context import SceneContext
from .correspondence import refine, vote_by_cell
from .published import vote_by_track
from .scene_changes import find_cuts, find_new_regions, restart_context
from .windows import split_windows


class CoarseScan:
    """The scan, one window at a time, for clips whose features are not held at once.

    The first window must hold the anchor frame, unless a context is given: one made of the anchor with
    `start_context`, or one stored after an earlier window. ``context`` is that for the next window, ``regions`` are
    those of the anchor labels and those found since.
    """

    def __init__(self, anchor_labels: AnchorLabels, settings: Settings, context: SceneContext | None = None) -> None:
        self.context, self.regions, self.settings = context, anchor_labels.regions, settings
        self._anchor_labels = anchor_labels
        self._vote = vote_by_track if settings.variant == "published" else vote_by_cell

    def step(self, window: Features) -> Tensor:
        """Label the next window, ``(T,h,w)`` int64, and update the context with the (refined) labels."""
        first = self.context is None
        context = self.context or start_context(window, self._anchor_labels, self.settings.context)
        require_shape("window.queries", window.queries, "T N C", N=window.grid.num_tokens)
        tokens = normalize_tokens(window.queries)
        config = self.settings.scene
        cuts = find_cuts(tokens, None if first else context.tokens, config) if config.cuts else []
        starts = sorted({0, *cuts})
        maps = []
        for start, stop in zip(starts, [*starts[1:], len(tokens)], strict=True):
            part = tokens[start:stop]
            if start in cuts:
                cluster, seed = self.settings.cluster, self.settings.sampling.seed
                context, self.regions = restart_context(part[0], context, self.regions, config, cluster, seed)
            labels, context = self._labeled(part, window.window(start, stop), context)
            maps.append(labels)
        self.context = context
        return torch.cat(maps)

    def _labeled(self, tokens: Tensor, window: Features, context: SceneContext) -> tuple[Tensor, SceneContext]:
        """Return labels ``(T,h,w)`` of frames of one scene, and the context after them."""
        maps = context.predict(tokens).reshape(-1, *window.grid)
        if not self.settings.scene.new_regions:
            maps = refine(maps, window.matching, self.settings.refinement, self._vote)
            return maps, context.updated(tokens, maps)
        novelty = find_new_regions(tokens, maps, context.tokens, self.regions, self.settings.scene)
        self.regions = novelty.regions
        maps = refine(novelty.maps, window.matching, self.settings.refinement, self._vote)
        sure = ~novelty.unsure
        enough = int(sure.sum()) >= self.settings.context.num_neighbors
        kept = sure if enough else torch.ones_like(sure)
        return maps, context.updated(tokens[kept.flatten(1)], maps[kept.to(maps.device)])


def start_context(features: Features, anchor_labels: AnchorLabels, config: ContextConfig) -> SceneContext:
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
    tokens = normalize_tokens(features.queries[anchor_labels.anchor])
    return SceneContext.from_anchor(tokens, anchor_labels.cluster_map.flatten(), config)


def segment_coarse(
    features: Features, anchor_labels: AnchorLabels, settings: Settings, *, progress: Progress = no_progress
) -> LabelMaps:
    """Label all frames on the coarse grid: predict a window, refine it, update the context, go on (paper 4.1-4.2).

    Windows run from the first frame on, wherever the anchor is: its tokens are the context of the first window.
    ``progress`` is called after each window with stage ``coarse maps`` and numbers of frames.
    """
    context = start_context(features, anchor_labels, settings.context)
    return scan_clip(features, CoarseScan(anchor_labels, settings, context), progress=progress)


def scan_clip(features: Features, scan: CoarseScan, *, progress: Progress = no_progress) -> LabelMaps:
    """Label all frames of a clip by a scan that has its scene context; where windows overlap, the later overwrites."""
    num_frames, settings = features.num_frames, scan.settings
    maps = torch.empty((num_frames, *features.grid), dtype=torch.int64)
    for frames in split_windows(num_frames, settings.window, settings.variant):
        maps[frames.start : frames.stop] = scan.step(features.window(frames.start, frames.stop)).cpu()
        progress("coarse maps", frames.stop, num_frames)
    return LabelMaps(maps, scan.regions, features.frame_size)
