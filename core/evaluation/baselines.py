"""Baselines: segmentation by color, by SLIC, of each frame alone, and label propagation from the first frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..backbones.protocol import FeatureSource
from ..config.parts import SceneConfig
from ..config.settings import Settings, replace_parts
from ..method.clustering import cluster_anchor, gather_tokens
from ..method.coarse import CoarseScan
from ..method.enlarging import enlarge_bilinear
from ..method.features import extract_windows
from ..method.frames import FrameSource, check_frames, coarse_grid, fit_frames
from ..method.pipeline import ScanState, WindowResult, label_anchor, segment_windows
from ..method.upsampling import upsample
from ..method.windows import split_spans, split_windows
from ..regions.growing import reduce_mask
from ..regions.labels import assign_clusters, list_regions
from ..regions.propagation import PropagationConfig, PropagationMemory, enlarge_shares
from ..types import VOID, Features, InputError, LabelMaps, Progress, Region, SettingError, no_progress
from .slic import segment_by_slic

COLOR_POSITION_WEIGHT = 0.5
"""Length of a frame's sides beside the range of a color channel, in the tokens of the color baseline (chosen)."""
DIFT = PropagationConfig(
    num_neighbors=15, radius=15, num_frames=28, temperature=0.2, anchor_margin=None, keep_agreed=False
)
"""Label propagation of DIFT (Tang et al. 2023): settings of its README for DAVIS, Stable Diffusion."""


Kind = Literal["method", "color", "slic", "frame", "propagation"]
"""What segments a clip: the paper's method, or a baseline."""
MODEL_FREE: tuple[Kind, ...] = ("color", "slic")
"""The baselines that need no model."""


class Start(NamedTuple):
    """What a run starts from: labels ``(H,W)`` of the first frame; of the method alone, the state to go on from."""

    reference: Tensor | None = None
    state: ScanState | None = None


def run_method(
    kind: Kind,
    backbone: FeatureSource | None,
    source: FrameSource,
    settings: Settings,
    start: Start | None = None,
    progress: Progress = no_progress,
) -> Iterator[WindowResult]:
    """Return the windows of a clip, one after the other, by the method or a baseline; `MODEL_FREE` need no model."""
    reference, state = start or Start()
    if kind == "color":
        return segment_by_color(source, settings, reference=reference, progress=progress)
    if kind == "slic":
        return segment_by_slic(source, settings, reference=reference, progress=progress)
    if backbone is None:
        raise InputError(
            f"`model` must name a model, but got none; only the baselines {' and '.join(MODEL_FREE)} need none. "
            "Give a .safetensors file."
        )
    if kind == "method":
        return segment_windows(backbone, source, settings, reference=reference, state=state, progress=progress)
    segment = segment_each_frame if kind == "frame" else propagate_anchor
    return segment(backbone, source, settings, reference=reference, progress=progress)


def segment_by_color(
    source: FrameSource, settings: Settings, *, reference: Tensor | None = None, progress: Progress = no_progress
) -> Iterator[WindowResult]:
    """Segment a clip by color and position alone: K-means, then the scene context, enlarged without a model.

    Windows, clusters and scene context are those of ``settings``; correspondences and modulation are not used.
    """
    scan: CoarseScan | None = None
    seen = "anchor" if settings.cluster.fit_frames == "anchor" else "window"
    cluster = {"method": "kmeans", "place": 0.0, "motion": 0.0, "fit_frames": seen}
    plain = replace_parts(settings, refinement={"enabled": False}, cluster=cluster)
    plain = replace(plain, scene=SceneConfig())
    for span in split_windows(_num_frames(source), settings.window, settings.variant):
        features = make_color_features(source.read(span.start, span.stop), settings)
        if scan is None:
            scan = CoarseScan(label_anchor(features, plain, reference), plain)
        labels = enlarge_bilinear(scan.step(features))
        progress("features", len(span), len(span))
        yield WindowResult(span, labels)


def segment_each_frame(
    backbone: FeatureSource,
    source: FrameSource,
    settings: Settings,
    *,
    reference: Tensor | None = None,
    progress: Progress = no_progress,
) -> Iterator[WindowResult]:
    """Segment every frame alone with diffusion features: K-means on its own tokens, no context, no correspondences.

    Clusters are numbered in the order in which they first occur in a frame, top to bottom and left to right, the only
    order that needs no other frame. With a reference each number gets, in all frames, the label it has in the first
    one; a number that does not occur there gets that of number 0.
    """
    if settings.cluster.num_clusters == 0:
        raise SettingError("cluster.num_clusters", "be at least 1 for this baseline", 0, "Choose a number")
    alone, seed = replace(settings.cluster, fit_frames="anchor", place=0.0), settings.sampling.seed
    table: Tensor | None = None
    regions: tuple[Region, ...] = ()
    work = split_spans(_num_frames(source), settings)
    for span, features in extract_windows(backbone, source, work, settings, progress):
        kept = features.kept()
        clusters = torch.stack(
            [
                number_by_occurrence(cluster_anchor(gather_tokens(kept, alone, index, 1), kept.grid, alone, seed))
                for index in range(kept.num_frames)
            ]
        )
        if table is None:
            table, regions = _names(clusters[0], reference, settings)
        coarse = LabelMaps(table[clusters], regions, features.frame_size)
        yield WindowResult(span.kept, upsample(backbone, features, coarse, settings, progress=progress))


def propagate_anchor(
    backbone: FeatureSource,
    source: FrameSource,
    settings: Settings,
    *,
    reference: Tensor | None,
    progress: Progress = no_progress,
) -> Iterator[WindowResult]:
    """Propagate labels ``(H,W)`` of the first frame, void left out, to the cells of later frames, as DIFT does.

    The sources of a frame are the first frame, with its true labels, and the recent frames, with their soft labels.
    This baseline is given the true shapes of the first frame, the paper's protocol only their names. Features are the
    method's own, so that the two differ in how labels are propagated, not in what they see.
    """
    if reference is None or bool((reference == VOID).all()):
        raise InputError("`reference` must label the first frame, but it does not. Choose a clip with a first mask.")
    regions = list_regions(reference[reference != VOID])
    labels = torch.tensor([region.label for region in regions])
    memory: PropagationMemory | None = None
    work = split_spans(source.num_frames, settings)
    for span, seen in extract_windows(backbone, source, work, settings, progress):
        features = seen.kept()
        grid, maps = features.grid, []
        for tokens in F.normalize(features.queries, dim=-1):
            if memory is None:
                soft = reduce_mask(reference == labels[:, None, None], grid).T  # (N,K)
                memory = PropagationMemory(tokens, soft, grid, DIFT)
            else:
                soft = memory.propagate(tokens)
                memory.remember(tokens, soft)
            winner = enlarge_shares(soft.T, grid, features.frame_size).argmax(0)  # ties: the smallest label
            maps.append(labels[winner].to(torch.uint8))
        yield WindowResult(span.kept, LabelMaps(torch.stack(maps), regions))


def make_color_features(frames: Tensor, settings: Settings) -> Features:
    """Return mean color and position of each cell of the coarse grid as tokens ``(T,N,6)``, of frames ``(T,H,W,3)``.

    The last component is 1, the largest of all, so that dividing a token by its largest component changes nothing.
    """
    check_frames(frames)
    sized = fit_frames(frames, settings)
    height, width = (int(side) for side in sized.shape[1:3])
    grid = coarse_grid((height, width))
    colors = F.adaptive_avg_pool2d(sized.movedim(-1, 1), (grid.h, grid.w))  # (T,H,W,3) -> (T,3,h,w)
    rows, columns = torch.meshgrid(_place_cells(grid.h), _place_cells(grid.w), indexing="ij")
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


def _place_cells(count: int) -> Tensor:
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
