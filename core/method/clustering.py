"""K-means on tokens, which starts the scene context (paper 4.1)."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..config.parts import MAX_AUTOMATIC_CLUSTERS, ClusterConfig, WindowConfig
from ..leaves import TokenScales
from ..types import (
    AnchorLabels,
    Features,
    Grid,
    Progress,
    Region,
    SettingError,
    no_progress,
    require_finite,
    require_shape,
)
from .frames import require_tokens_for
from .kmeans import fit_centers
from .tokens import make_tokens, measure_scales, normalize_tokens, without_flow
from .windows import find_window, spread_frames


def cluster_tokens(
    tokens: Tensor, config: ClusterConfig, seed: int, *, device: str = "cpu", progress: Progress = no_progress
) -> Tensor:
    """Fit K-means (k-means++, best of ``num_restarts`` runs) to normalized ``(M,C)``; return centers ``(K,C)``.

    Fewer than K distinct tokens give centers that coincide, hence fewer clusters in use. The starts are those that
    scikit-learn draws for ``n_init`` runs from the same seed; see `kmeans`. Runs go on a GPU, if ``device`` is one.
    """
    num_tokens = require_shape("tokens", tokens, "M C")["M"]
    require_finite("tokens", tokens)
    require_tokens_for(config.num_clusters, num_tokens)
    return fit_centers(tokens, config.num_clusters, config.num_restarts, seed, progress, torch.device(device))


def choose_num_clusters(tokens: Tensor, granularity: float, seed: int, *, progress: Progress = no_progress) -> int:
    """Choose the number of clusters: the least, 2 to 64, that explain a share of the variance of ``(M,C)`` tokens.

    The explained share is 1 less the mean squared distance to the nearest center over that to the mean. It grows with
    the number of clusters, so a larger ``granularity`` never gives fewer; the number is found by bisection, with one
    run of K-means for each that is tried.
    """
    total = float((tokens - tokens.mean(0)).square().sum())
    low, high = min(2, len(tokens)), min(MAX_AUTOMATIC_CLUSTERS, len(tokens))
    span = high - low
    while low < high:
        middle = (low + high) // 2
        centers = cluster_tokens(tokens, ClusterConfig(middle, num_restarts=1), seed)
        left = float((tokens.cpu() - centers[find_nearest_centers(tokens, centers)]).square().sum())
        low, high = (low, middle) if left <= (1 - granularity) * total else (middle + 1, high)
        progress("number of clusters", span - (high - low), span)
    return low


def find_nearest_centers(tokens: Tensor, centers: Tensor) -> Tensor:
    """Return for tokens ``(...,C)`` the nearest of ``(K,C)`` centers, ``(...)`` int64; ties: the smallest."""
    exact, flat = centers.double(), tokens.reshape(-1, tokens.shape[-1]).to(centers.device).double()
    distances = exact.square().sum(1) - 2 * flat @ exact.T  # less the token's own norm, which is common to a row
    return distances.argmin(1).reshape(tokens.shape[:-1])


class AnchorTokens(NamedTuple):
    """Tokens that the anchor frame is divided by, normalized, with the places of their cells.

    Attributes:
        seen: ``(M,C)`` of all frames that K-means sees.
        shown: ``(N,C)`` of the anchor frame.
        num_looks: components that say what a cell looks like; motion and place follow.
        scales: those of motion and place.
        device: where K-means runs; see `Features.device`.
    """

    seen: Tensor
    shown: Tensor
    num_looks: int
    scales: TokenScales
    device: str = "cpu"


def gather_tokens(features: Features, config: ClusterConfig, anchor: int, window_length: int) -> AnchorTokens:
    """Return the tokens by which the anchor frame, one of those of ``features``, is divided.

    Paper: K-means sees the anchor frame alone. Reference code: K-means sees all frames of the first window. Both are
    values of ``config.fit_frames``, which can also spread as many frames as a window has over all of ``features``.
    """
    require_shape("features.queries", features.queries, "T N C", N=features.grid.num_tokens)
    if not 0 <= anchor < features.num_frames:
        raise SettingError("anchor", f"lie in [0, {features.num_frames - 1}]", anchor, "Choose a frame of the clip")
    window = find_window(anchor, window_length, features.num_frames)
    if config.fit_frames == "clip":
        frames = sorted({anchor, *spread_frames(features.num_frames, WindowConfig(window_length))})
        around = without_flow(features._replace(queries=features.queries[frames]))  # too far apart to be followed
    else:
        frames = list(window)
        around = features.window(window.start, window.stop)
    if around.flow is None and around.pictures is None:
        config = replace(config, motion=0.0)
    index = frames.index(anchor)
    seen = slice(index, index + 1) if config.fit_frames == "anchor" else slice(None)
    looks = normalize_tokens(around.queries[seen])
    scales = measure_scales(looks, features.grid, config)
    tokens = make_tokens(around, scales)
    return AnchorTokens(tokens[seen].flatten(0, 1), tokens[index], looks.shape[-1], scales, features.device)


def cluster_anchor(
    tokens: AnchorTokens, grid: Grid, config: ClusterConfig, seed: int, *, progress: Progress = no_progress
) -> Tensor:
    """Cluster the anchor frame: ``(h,w)`` int64 clusters in [0, K), on the CPU."""
    if config.num_clusters == 0:
        number = choose_num_clusters(tokens.shown, config.granularity, seed, progress=progress)
        config = replace(config, num_clusters=number)
    centers = cluster_tokens(tokens.seen, config, seed, device=tokens.device, progress=progress)
    return find_nearest_centers(tokens.shown, centers).reshape(grid)


def name_clusters_by_number(cluster_map: Tensor, anchor: int = 0) -> AnchorLabels:
    """Take the clusters that occur in ``(h,w)`` as regions called ``region 0``, ``region 1``, ... after their label."""
    require_shape("cluster_map", cluster_map, "h w")
    regions = tuple(Region(label, f"region {label}") for label in torch.unique(cluster_map, sorted=True).tolist())
    return AnchorLabels(anchor, cluster_map, regions)
