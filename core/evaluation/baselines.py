"""Hyperparameters of what is done with results, and of baselines; each with its source.

What is done: corrections, instances, scene files. "measured" stands for the six DAVIS clips of
`benchmarks/corrections.py` with the bundled model, "chosen" for a value of ours that no measurement backs. How masks
are finished is what the user asks for: `masks.Finish`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..backbones.protocol import Backbone
from ..config.parts import ClusterConfig, RefinementConfig
from ..config.settings import Settings
from ..method.clustering import cluster_anchor
from ..method.coarse import CoarseScan
from ..method.enlarging import enlarge_bilinear
from ..method.features import extract_window_features
from ..method.frames import FrameSource, check_frames, coarse_grid, fit_frames
from ..method.pipeline import label_anchor
from ..method.upsampling import upsample
from ..method.windows import split_spans, split_windows
from ..regions.labels import assign_clusters
from ..types import CoarseMaps, Features, InputError, LabelMaps, Progress, Region, SettingError, no_progress

COLOR_POSITION_WEIGHT = 0.5
"""Length of a frame's sides beside the range of a color channel, in the tokens of the color baseline (chosen)."""
Baseline = Literal["color", "frame"]


class BaselineResult(NamedTuple):
    """What one window gives: its frame numbers and label maps."""

    frames: range
    labels: LabelMaps


def segment_by_color(
    source: FrameSource, settings: Settings, *, reference: Tensor | None = None, progress: Progress = no_progress
) -> Iterator[BaselineResult]:
    """Segment a clip by color and position alone: K-means, then the scene context, enlarged without a model.

    Windows, clusters and scene context are those of ``settings``; correspondences and modulation are not used.

    Args:
        source: the frames.
        settings: frame size, clustering, window and context settings.
        reference: ``(H,W)`` labels of the first frame that name the clusters, or None.
        progress: called as ``("features", done, total)`` in frames.

    Yields:
        The label maps of each window, in order.

    Raises:
        InputError: no frames, or more clusters than tokens.
    """
    scan: CoarseScan | None = None
    regions: tuple[Region, ...] = ()
    for span in split_windows(_num_frames(source), settings.window):
        features = make_color_features(source.read(span.start, span.stop), settings)
        if scan is None:
            anchor_labels = label_anchor(features, settings, reference)
            regions = anchor_labels.regions
            scan = CoarseScan(anchor_labels, settings.context, RefinementConfig(enabled=False))
        labels = enlarge_bilinear(CoarseMaps(scan.step(features), regions), features.frame_size)
        progress("features", len(span), len(span))
        yield BaselineResult(span, labels)


def segment_each_frame(
    backbone: Backbone,
    source: FrameSource,
    settings: Settings,
    *,
    reference: Tensor | None = None,
    progress: Progress = no_progress,
) -> Iterator[BaselineResult]:
    """Segment every frame alone with diffusion features: K-means on its own tokens, no context, no correspondences.

    Clusters are numbered in the order in which they first occur in a frame, top to bottom and left to right, the only
    order that needs no other frame. With a reference each number gets, in all frames, the label it has in the first
    one; a number that does not occur there gets that of number 0.

    Args:
        backbone: the diffusion model.
        source: the frames.
        settings: all settings; modulation is applied as in the full method.
        reference: ``(H,W)`` labels of the first frame that name the clusters, or None.
        progress: called after each unit of work.

    Yields:
        The label maps of each window, in order.

    Raises:
        InputError: no frames, or more clusters than tokens of a frame.
    """
    if settings.cluster.num_clusters == 0:
        raise SettingError("cluster.num_clusters", "be at least 1 for this baseline", 0, "Choose a number")
    alone = ClusterConfig(settings.cluster.num_clusters, settings.cluster.num_restarts, "anchor")
    table: Tensor | None = None
    regions: tuple[Region, ...] = ()
    for span in split_spans(_num_frames(source), settings):
        features = extract_window_features(backbone, source, span, settings, progress)
        kept = features.kept()
        clusters = torch.stack(
            [
                number_by_occurrence(cluster_anchor(kept, alone, settings.sampling.seed, anchor=index))
                for index in range(kept.num_frames)
            ]
        )
        if table is None:
            table, regions = _names(clusters[0], reference, settings)
        coarse = CoarseMaps(table[clusters], regions)
        yield BaselineResult(span.kept, upsample(backbone, features, coarse, settings, progress=progress))


def make_color_features(frames: Tensor, settings: Settings) -> Features:
    """Return mean color and position of each cell of the coarse grid as tokens ``(T,N,6)``.

    The last component is 1, the largest of all, so that dividing a token by its largest component changes nothing.

    Args:
        frames: ``(T,H,W,3)`` floating point in [0, 1].
        settings: frame size.

    Raises:
        InputError: frames of a wrong shape or range.
    """
    check_frames(frames)
    sized = fit_frames(frames, settings.frame)
    height, width = (int(side) for side in sized.shape[1:3])
    grid = coarse_grid((height, width))
    colors = F.adaptive_avg_pool2d(sized.movedim(-1, 1), (grid.h, grid.w))  # (T,H,W,3) -> (T,3,h,w)
    rows, columns = torch.meshgrid(_positions(grid.h), _positions(grid.w), indexing="ij")
    constant = torch.stack([rows, columns, torch.ones(grid)]).expand(len(frames), 3, *grid)
    tokens = torch.cat([colors, constant], dim=1).flatten(2).transpose(1, 2).contiguous()  # (T,6,h,w) -> (T,N,6)
    nothing = torch.empty(len(frames), 0)
    return Features(tokens, tokens, nothing, nothing, grid, (int(frames.shape[1]), int(frames.shape[2])))


def number_by_occurrence(cluster_map: Tensor) -> Tensor:
    """Number the clusters of ``(h,w)`` in the order in which they first occur in raster order.

    >>> number_by_occurrence(torch.tensor([[7, 7, 2], [2, 5, 7]]))
    tensor([[0, 0, 1],
            [1, 2, 0]])
    """
    numbers: dict[int, int] = {}
    flat = [numbers.setdefault(cluster, len(numbers)) for cluster in cluster_map.flatten().tolist()]
    return torch.tensor(flat).reshape(cluster_map.shape)


def _positions(count: int) -> Tensor:
    """Return the centers of ``count`` cells, scaled by `COLOR_POSITION_WEIGHT`."""
    return (torch.arange(count) + 0.5) / count * COLOR_POSITION_WEIGHT


def _names(clusters: Tensor, reference: Tensor | None, settings: Settings) -> tuple[Tensor, tuple[Region, ...]]:
    """Return the label of each cluster number ``(K,)``, and the regions."""
    count = settings.cluster.num_clusters
    if reference is None:
        return torch.arange(count), tuple(Region(number, f"region {number}") for number in range(count))
    labels, regions = assign_clusters(clusters, reference)
    table = labels.flatten()[:1].repeat(count)
    table[clusters.flatten()] = labels.flatten()
    return table, regions


def _num_frames(source: FrameSource) -> int:
    """Return the number of frames of a clip, at least one."""
    if source.num_frames < 1:
        raise InputError("`source` must hold at least one frame, but got none.")
    return source.num_frames
