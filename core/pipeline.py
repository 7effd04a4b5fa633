"""The order of stages and windows, nothing else (paper, figure 2).

frames -> features -> seeds -> coarse maps (scene context, refinement) -> label maps (masked modulation)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .backbones.protocol import Backbone, Denoiser, VideoBackbone
from .backbones.schedule import sampling_sigmas
from .clustering import cluster_anchor, seeds_from_clusters
from .coarse import CoarseScan, SceneChanges
from .config.parts import SamplingConfig
from .config.settings import Settings
from .feature_pass import read_queries
from .frames import check_frames, coarse_grid, fit_frames
from .labels import seeds_from_reference
from .method.sampling import frame_noise, window_noise
from .scan_state import ScanState
from .types import (
    PIXELS_PER_LATENT,
    VOID,
    CoarseMaps,
    Features,
    InputError,
    LabelMaps,
    Progress,
    Region,
    Seeds,
    no_progress,
)
from .upsampling import upsample
from .video_features import extract_video_features, keep_only
from .video_windows import Span, context_windows, require_kind, spans


class FrameSource(Protocol):
    """Frames that are read when they are needed."""

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        ...

    def read(self, start: int, stop: int) -> Tensor:
        """Return frames ``start`` (included) to ``stop`` (excluded), ``(T,H,W,3)`` float32 in [0, 1]."""
        ...


class WindowResult(NamedTuple):
    """What one window gives: its frame numbers, label maps, coarse maps, and the state after it."""

    frames: range
    labels: LabelMaps
    coarse: CoarseMaps
    state: ScanState


def extract_features(
    backbone: Backbone,
    frames: Tensor,
    settings: Settings,
    *,
    first_frame: int = 0,
    progress: Progress = no_progress,
) -> Features:
    """Encode frames, add noise and read the self-attention queries while denoising (paper 4.1).

    Args:
        backbone: the diffusion model.
        frames: ``(T,H,W,3)`` floating point in [0, 1].
        settings: frame size, sampling and feature settings.
        first_frame: number of the first of these frames in the clip; its noise depends on it.
        progress: called as ``("features", done, total)`` in frames.

    Returns:
        Queries of all frames on the CPU, and the latents and noise they came from.

    Raises:
        InputError: frames of a wrong shape or range, or settings of another kind of model.
    """
    check_frames(frames)
    require_kind(backbone, settings)
    sized = fit_frames(frames, settings.frame)
    pictures = (sized.clamp(0, 1) * 255).round().to(torch.uint8)
    frame_size = (int(frames.shape[1]), int(frames.shape[2]))
    if isinstance(backbone, VideoBackbone):
        features = extract_video_features(
            backbone, sized, frame_size, settings, first_frame=first_frame, progress=progress
        )
        return features._replace(pictures=pictures)
    size = (int(sized.shape[1]), int(sized.shape[2]))
    latents, noise = _latents_and_noise(backbone, sized, settings.sampling, first_frame)
    shape = tuple(latents.shape[1:])
    count, batch = len(latents), backbone.batch_size(shape)
    sigmas = sampling_sigmas(backbone.training_sigmas, settings.sampling.num_steps)

    def job(denoiser: Denoiser) -> list[tuple[Tensor, Tensor]]:
        parts = []
        for start in range(0, count, batch):
            part = slice(start, start + batch)
            parts.append(read_queries(denoiser, latents[part], noise[part], sigmas, settings))
            progress("features", min(start + batch, count), count)
        return parts

    parts = backbone.run(job, settings.sampling.guidance_scale, (min(batch, count), *shape))
    queries, matching = (torch.cat(column) for column in zip(*parts, strict=True))
    return Features(queries, matching, latents, noise, coarse_grid(size), frame_size, pictures)


def _latents_and_noise(
    backbone: Backbone, frames: Tensor, config: SamplingConfig, first_frame: int
) -> tuple[Tensor, Tensor]:
    """Return clean latents and the noise to add, both ``(T,4,H/8,W/8)``."""
    shape = (4, frames.shape[1] // PIXELS_PER_LATENT, frames.shape[2] // PIXELS_PER_LATENT)
    if config.noise == "window":
        posterior_noise, noise = window_noise(config.seed, (len(frames), *shape))
    else:
        numbers = range(first_frame, first_frame + len(frames))
        noise = frame_noise(config.seed, numbers, shape)
        posterior_noise = frame_noise(config.seed + 1, numbers, shape) if config.posterior == "sample" else noise
    return backbone.encode(frames, posterior_noise if config.posterior == "sample" else None), noise


def window_features(
    backbone: Backbone, source: FrameSource, span: Span, settings: Settings, progress: Progress = no_progress
) -> Features:
    """Return the features of the frames of ``span``; `Features.kept` are those whose results count.

    Args:
        backbone: the diffusion model.
        source: the frames.
        span: of `video_windows.spans`.
        settings: frame size, sampling and feature settings.
        progress: called as ``("features", done, total)`` in frames.
    """
    frames = source.read(span.frames.start, span.frames.stop)
    features = extract_features(backbone, frames, settings, first_frame=span.frames.start, progress=progress)
    return keep_only(features, span)


def make_seeds(
    features: Features,
    settings: Settings,
    reference: Tensor | None = None,
    *,
    anchor: int = 0,
    progress: Progress = no_progress,
) -> Seeds:
    """Cluster the anchor frame, and name the clusters by a reference label map if there is one (paper 4.1, 5.1).

    Args:
        features: of the first window at least.
        settings: clustering, window and sampling settings.
        reference: ``(H,W)`` uint8 labels of the anchor frame, 255 = void, or None.
        anchor: index of the anchor frame.
        progress: called as by `cluster_anchor`.

    Returns:
        Labels of the anchor frame: cluster numbers, or labels of ``reference``.
    """
    clusters = cluster_anchor(
        features,
        settings.cluster,
        settings.sampling.seed,
        anchor=anchor,
        window_length=settings.window.length,
        progress=progress,
    )
    if reference is None:
        return seeds_from_clusters(clusters, anchor)
    return seeds_from_reference(clusters, reference, anchor, ignore=None if settings.cluster.void_votes else VOID)


def segment_windows(
    backbone: Backbone,
    source: FrameSource,
    settings: Settings,
    *,
    reference: Tensor | None = None,
    state: ScanState | None = None,
    progress: Progress = no_progress,
) -> Iterator[WindowResult]:
    """Segment a clip window by window, in memory that does not depend on its length.

    Args:
        backbone: the diffusion model.
        source: the frames.
        settings: all settings.
        reference: ``(H,W)`` labels of the first frame that name the clusters, or None.
        state: of the last finished window, to continue an interrupted run; labels equal those of a run in one go.
        progress: called after each unit of work.

    Yields:
        The result of each window, in order; with overlapping windows the later result of a frame is the valid one.
    """
    if source.num_frames < 1:
        raise InputError("`source` must hold at least one frame, but got none.")
    require_kind(backbone, settings)
    seeds, context = (state.seeds, state.context) if state else (None, None)
    work = spans(source.num_frames, settings)
    for index in range(state.next_window if state else 0, len(work)):
        span = work[index]
        features = window_features(backbone, source, span, settings, progress)
        seeds = seeds or make_seeds(features, settings, reference, progress=progress)
        scan = CoarseScan(seeds, settings.context, settings.refinement, context, SceneChanges.of(settings))
        maps = [scan.step(features.window(part.start, part.stop)) for part in context_windows(span, settings)]
        seeds = seeds._replace(regions=scan.regions)
        coarse = CoarseMaps(torch.cat(maps), seeds.regions)
        labels = upsample(backbone, features, coarse, settings, progress=progress)
        context = scan.context
        if context is None:
            raise RuntimeError("a window was labelled without a scene context")
        yield WindowResult(span.kept, labels, coarse, ScanState(index + 1, seeds, context))


def segment(
    backbone: Backbone,
    source: FrameSource,
    settings: Settings,
    *,
    reference: Tensor | None = None,
    progress: Progress = no_progress,
) -> LabelMaps:
    """Segment a whole clip that fits into memory; see `segment_windows`.

    Args:
        backbone: the diffusion model.
        source: the frames.
        settings: all settings.
        reference: ``(H,W)`` labels of the first frame that name the clusters, or None.
        progress: called after each unit of work.

    Returns:
        Label maps ``(T,H,W)`` uint8 in the size of the frames.

    Raises:
        InputError: no frames.
    """
    maps: Tensor | None = None
    regions: tuple[Region, ...] = ()
    for result in segment_windows(backbone, source, settings, reference=reference, progress=progress):
        if maps is None:
            maps = result.labels.maps.new_zeros((source.num_frames, *result.labels.maps.shape[1:]))
        maps[result.frames.start : result.frames.stop] = result.labels.maps
        regions = result.labels.regions
    if maps is None:
        raise InputError("`source` must hold at least one frame, but got none.")
    return LabelMaps(maps, regions)
