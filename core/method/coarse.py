"""Coarse maps of a whole video: a scan over windows that carries the scene context (paper 4.1-4.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..config.parts import ClusterConfig, ContextConfig, RefinementConfig, SceneConfig, WindowConfig
from ..config.settings import Settings
from ..types import AnchorLabels, Features, InputError, LabelMaps, Progress, list_labels, no_progress, require_shape
from .clustering import normalize_tokens
from .context import SceneContext
from .correspondence import refine
from .scene_changes import find_cuts, find_new_regions, restart_context
from .windows import split_windows


class SceneChanges(NamedTuple):
    """What to do about unseen things and cuts; by default nothing.

    Attributes:
        config: which of them, and thresholds.
        cluster: K-means after a cut.
        seed: of that K-means.
    """

    config: SceneConfig = SceneConfig()
    cluster: ClusterConfig = ClusterConfig()
    seed: int = 1

    @classmethod
    def of(cls, settings: Settings) -> SceneChanges:
        """Return what ``settings`` say about unseen things and cuts."""
        return cls(settings.scene, settings.cluster, settings.sampling.seed)


class CoarseScan:
    """The scan, one window at a time, for clips whose features are not held at once.

    The first window must hold the anchor frame, unless a context is given: one made of the anchor with
    `start_context`, or one stored after an earlier window.

    Attributes:
        context: scene context for the next window; None before the first.
        regions: those of the anchor_labels, and those found since.
    """

    def __init__(
        self,
        anchor_labels: AnchorLabels,
        context_config: ContextConfig,
        refinement_config: RefinementConfig,
        context: SceneContext | None = None,
        changes: SceneChanges | None = None,
    ) -> None:
        self.context, self.regions = context, anchor_labels.regions
        self._changes = changes or SceneChanges()
        self._anchor_labels = anchor_labels
        self._context_config = context_config
        self._refinement_config = refinement_config

    def step(self, window: Features) -> Tensor:
        """Label the next window and update the context with the (refined) labels.

        Args:
            window: features of its frames.

        Returns:
            ``(T,h,w)`` int64 labels.

        Raises:
            InputError: the anchor is not in the first window, shapes disagree, or features hold NaN or infinity.
        """
        first = self.context is None
        context = self.context or start_context(window, self._anchor_labels, self._context_config)
        require_shape("window.queries", window.queries, "T N C", N=window.grid.num_tokens)
        tokens = normalize_tokens(window.queries)
        config = self._changes.config
        cuts = find_cuts(tokens, None if first else context.tokens, config) if config.cuts else []
        starts = sorted({0, *cuts})
        maps = []
        for start, stop in zip(starts, [*starts[1:], len(tokens)], strict=True):
            part = tokens[start:stop]
            if start in cuts:
                context, self.regions = restart_context(
                    part[0], context, self.regions, config, self._changes.cluster, self._changes.seed
                )
            labels, context = self._labeled(part, window.window(start, stop), context)
            maps.append(labels)
        self.context = context
        return torch.cat(maps)

    def _labeled(self, tokens: Tensor, window: Features, context: SceneContext) -> tuple[Tensor, SceneContext]:
        """Return labels ``(T,h,w)`` of frames of one scene, and the context after them."""
        maps = context.predict(tokens).reshape(-1, *window.grid)
        if not self._changes.config.new_regions:
            maps = refine(maps, window.matching, self._refinement_config)
            return maps, context.updated(tokens, maps)
        novelty = find_new_regions(tokens, maps, context.tokens, self.regions, self._changes.config)
        self.regions = novelty.regions
        maps = refine(novelty.maps, window.matching, self._refinement_config)
        sure = ~novelty.unsure
        enough = int(sure.sum()) >= self._context_config.num_neighbors
        kept = sure if enough else torch.ones_like(sure)
        return maps, context.updated(tokens[kept.flatten(1)], maps[kept.to(maps.device)])


def start_context(features: Features, anchor_labels: AnchorLabels, config: ContextConfig) -> SceneContext:
    """Start the scene context from the anchor frame and its labels.

    Args:
        features: of the clip, or of a first window that holds the anchor.
        anchor_labels: labels of the anchor frame.
        config: number of neighbors, and what is remembered.

    Raises:
        InputError: the anchor is not among the frames, its map does not fit the grid or holds an unknown label.
    """
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
    Reference code: where windows overlap, the later one overwrites.

    Args:
        features: of the whole clip.
        anchor_labels: labels of the anchor frame.
        settings: windows, scene context, refinement, which may be switched off, and scene changes.
        progress: called after each window with stage ``coarse maps`` and numbers of frames.

    Returns:
        Maps of all frames and the regions of the anchor labels, with new ones if ``settings`` ask for them.

    Raises:
        InputError: the anchor is no frame, shapes disagree, or features hold NaN or infinity.
    """
    context = start_context(features, anchor_labels, settings.context)
    scan = CoarseScan(anchor_labels, settings.context, settings.refinement, context, SceneChanges.of(settings))
    return scan_clip(features, scan, settings.window, progress=progress)


def scan_clip(
    features: Features, scan: CoarseScan, window: WindowConfig, *, progress: Progress = no_progress
) -> LabelMaps:
    """Label all frames of a clip by a scan that has its scene context.

    Args:
        features: of the whole clip.
        scan: the scan; afterwards it holds the context and the regions of the end of the clip.
        window: length and tail of the windows.
        progress: called after each window with stage ``coarse maps`` and numbers of frames.

    Returns:
        Maps of all frames, and the regions of the scan.

    Raises:
        InputError: shapes disagree, or features hold NaN or infinity.
    """
    num_frames = features.num_frames
    maps = torch.empty((num_frames, *features.grid), dtype=torch.int64)
    for frames in split_windows(num_frames, window):
        maps[frames.start : frames.stop] = scan.step(features.window(frames.start, frames.stop)).cpu()
        progress("coarse maps", frames.stop, num_frames)
    return LabelMaps(maps, scan.regions, features.frame_size)
