"""Denoise to the feature step and read the self-attention queries there (paper 4.1, 4.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..backbones.protocol import (
    PIXELS_PER_LATENT,
    FeatureBackbone,
    FeatureDenoiser,
    FeatureSource,
    Layer,
    VisionBackbone,
    find_vision,
    require_diffusion,
)
from ..config.parts import FeatureConfig
from ..config.settings import Settings
from ..types import Features, Grid, InputError, Progress, SeenWindow, no_progress
from .frames import FittedFrames, FrameSource, check_frames, coarse_grid, read_ahead, resize_frames, to_floats
from .joining import join_layers
from .published import draw_video_window_noise, draw_window_noise
from .sampling import add_noise, draw_frame_noise, list_sigmas, sample_euler, scale_clean
from .tiles import LATENTS_PER_CELL, TileMean, split_tiles
from .windows import Span, require_kind, split_noise, split_seen

ENCODED_TOGETHER = 32
"""Frames that are encoded in one call: a window of any model."""
PICTURES_TOGETHER = 4
"""Frames that a vision model sees in one call: it is small, and they are independent."""


def extract_features(
    source: FeatureSource,
    frames: Tensor,
    settings: Settings,
    *,
    first_frame: int = 0,
    progress: Progress = no_progress,
) -> Features:
    """Encode frames ``(T,H,W,3)``, add noise and read the self-attention queries while denoising (paper 4.1).

    Windows of a video model that overlap share latents and noise; frames that an earlier window has finished keep its
    queries. Noise depends on ``first_frame``, the number of the first of them in the clip. A vision model reads the
    frames as they are.
    """
    check_frames(frames)
    frame_size = (int(frames.shape[1]), int(frames.shape[2]))
    return _extract(source, resize_frames(frames, settings), frame_size, settings, first_frame, progress)


def _extract(
    source: FeatureSource,
    sized: Tensor,
    frame_size: tuple[int, int],
    settings: Settings,
    first_frame: int,
    progress: Progress,
) -> Features:
    """Return the features of what `resize_frames` made of frames that had ``frame_size``."""
    require_kind(source, settings)
    if vision := find_vision(source):
        return _read_pictures(vision, sized, settings, frame_size, progress)
    backbone = require_diffusion(source)
    size = (int(sized.shape[1]), int(sized.shape[2]))
    draws = _Draws(settings, first_frame, len(sized), size)
    latents = _encode(backbone, sized, draws.posterior)
    parts, seen = [], []
    for span in split_seen(len(sized), settings):
        start, kept = span.frames.start, span.kept
        conditioning = backbone.condition(to_floats(sized[start]), draws.of_image(start), settings.video)
        window = SeenWindow(start, span.frames.stop, kept.start, conditioning)

        def report(share: float, kept: range = kept) -> None:
            done = kept.start + int(len(kept) * share)
            if done:
                progress("features", done, len(sized))

        read = _read_window(backbone, window, latents, draws.noise, settings, report)
        parts.append([queries[span.num_finished :] for queries in read])
        seen.append(window)
    queries, matching = (torch.cat(column) if len(column) > 1 else column[0] for column in zip(*parts, strict=True))
    video = tuple(seen) if settings.video.frames else ()
    pictures, device = _as_bytes(sized), find_gpu(backbone.device)
    return Features(queries, matching, latents, draws.noise, coarse_grid(size), frame_size, pictures, video, device)


def _encode(backbone: FeatureBackbone, sized: Tensor, posterior: Tensor | None) -> Tensor:
    """Return the latents of frames ``(T,H,W,3)``, some at a time, so that not all of them are made float32 at once."""
    parts = []
    for start in range(0, len(sized), ENCODED_TOGETHER):
        part = slice(start, start + ENCODED_TOGETHER)
        parts.append(backbone.encode(to_floats(sized[part]), None if posterior is None else posterior[part]))
    return torch.cat(parts)


def _read_window(
    backbone: FeatureBackbone,
    window: SeenWindow,
    latents: Tensor,
    noise: Tensor,
    settings: Settings,
    report: Callable[[float], None],
) -> tuple[Tensor, Tensor]:
    """Return aggregated and matching queries ``(T,N,C)`` of some frames, in batches of tiles if the model allows it."""
    unit = backbone.conditioned(window.conditioning, settings.video)
    frames, num_frames = slice(window.start, window.stop), window.stop - window.start
    tiling, sigmas = split_tiles(_grid_of(latents), settings.frame.tiles), list_sigmas(backbone, settings)
    count, shape = num_frames * len(tiling.corners), tuple(tiling.cut(latents[:1], (0,)).shape[1:])
    batch = count if settings.video.frames else min(count, backbone.batch_size(shape))

    def job(denoiser: FeatureDenoiser) -> tuple[Tensor, Tensor]:
        queries, matching = TileMean(tiling, num_frames), TileMean(tiling, num_frames)
        for first in range(0, count, batch):
            part = range(first, min(first + batch, count))

            def after_step(done: int, steps: int, part: range = part) -> None:
                report((part.start + len(part) * done / steps) / count)

            seen = tiling.cut(latents[frames], part), tiling.cut(noise[frames], part)
            read = read_queries(denoiser, *seen, sigmas, settings, after_step)
            queries.add(part, read[0])
            matching.add(part, read[1])
        return queries.result(), matching.result()

    return unit.run(job, settings.sampling.guidance_scale, (batch, *shape))


def _grid_of(latents: Tensor) -> Grid:
    """Return the coarse grid of latents ``(T,4,H/8,W/8)``."""
    return Grid(latents.shape[-2] // LATENTS_PER_CELL, latents.shape[-1] // LATENTS_PER_CELL)


def extract_windows(
    backbone: FeatureSource,
    source: FrameSource,
    spans: Sequence[Span],
    settings: Settings,
    progress: Progress = no_progress,
) -> Iterator[tuple[Span, Features]]:
    """Yield the features of each window, whose frames are read while the one before is worked on."""
    coming = read_ahead(source, (span.frames for span in spans), settings)
    for span, fitted in zip(spans, coming, strict=True):
        yield span, extract_window_features(backbone, fitted, span, settings, progress)


def extract_window_features(
    backbone: FeatureSource, fitted: FittedFrames, span: Span, settings: Settings, progress: Progress = no_progress
) -> Features:
    """Return the features of the frames of ``span``; `Features.kept` are those whose results count."""
    features = _extract(backbone, *fitted, settings, span.frames.start, progress)
    return mark_finished(features, span)


def find_gpu(device: torch.device) -> str:
    """Return the name of a device on which distances are computed in float64 where need be; else the CPU's."""
    return str(device) if device.type == "cuda" else "cpu"


def read_queries(
    denoiser: FeatureDenoiser,
    latents: Tensor,
    noise: Tensor,
    sigmas: Tensor,
    settings: Settings,
    after_step: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[Tensor, Tensor]:
    """Return aggregated and matching queries ``(T,N,C)``, on the CPU, of clean latents ``(T,4,H/8,W/8)`` and noise.

    Without noise (``sampling.noise`` of ``none``) the UNet is given the clean latents themselves, told the noise level
    of the feature step. ``after_step`` is called with the number of steps done, and of all steps.
    """
    feature, total = settings.feature, settings.steps_to_features + 1
    sigma = float(sigmas[feature.step])
    if settings.sampling.noise == "none":
        x = scale_clean(latents, sigma)
    else:
        x = add_noise(latents, noise, float(sigmas[settings.start_step]))
        levels = sigmas[settings.start_step : feature.step + 1].tolist()
        for done, step in enumerate(sample_euler(denoiser.predict, x, levels), 1):
            x = step.latents
            after_step(done, total)
    queries = denoiser.queries(x, sigma, list_layers(feature))
    after_step(total, total)
    return _join(queries, feature, _grid_of(x))


def list_layers(feature: FeatureConfig) -> tuple[Layer, ...]:
    """Return the layers that are read: those of the features, then those of correspondences."""
    if feature.layers:
        return (*feature.layers, *feature.matching_layers)
    return (*feature.blocks, feature.matching_block)


def _join(queries: Sequence[Tensor], feature: FeatureConfig, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return aggregated and matching queries ``(T,N,C)``, on the CPU, of those of all layers."""
    if not feature.layers:  # the paper's mean of blocks (4.1)
        return torch.stack(list(queries[:-1])).mean(0).cpu(), queries[-1].cpu()
    count = len(feature.layers)
    return join_layers(queries[:count], grid).cpu(), join_layers(queries[count:], grid).cpu()


def _read_pictures(
    model: VisionBackbone, sized: Tensor, settings: Settings, frame_size: tuple[int, int], progress: Progress
) -> Features:
    """Return the features that a model reads off frames as they are, a few at a time."""
    grid, layers = coarse_grid((int(sized.shape[1]), int(sized.shape[2]))), list_layers(settings.feature)
    parts = []
    for frames in torch.split(sized, PICTURES_TOGETHER):
        parts.append(_join(model.read_frames(to_floats(frames), layers), settings.feature, grid))
        progress("features", sum(len(part[0]) for part in parts), len(sized))
    queries, matching = (torch.cat(column) for column in zip(*parts, strict=True))
    nothing = torch.empty(len(sized), 4, 0, 0)
    pictures, device = _as_bytes(sized), find_gpu(model.device)
    return Features(queries, matching, nothing, nothing, grid, frame_size, pictures, device=device)


def _as_bytes(sized: Tensor) -> Tensor:
    """Return frames ``(T,H,W,3)`` as bytes, which resized ones are already."""
    if sized.dtype == torch.uint8:
        return sized
    levels = torch.empty(sized.shape, dtype=torch.uint8)
    for frame, level in zip(sized, levels, strict=True):
        level[:] = (frame.clamp(0, 1) * 255).round()
    return levels


def mark_finished(features: Features, span: Span) -> Features:
    """Return the features of one window with the frames in front that are finished already marked as such."""
    if not features.video:
        return features
    (window,) = features.video
    return features._replace(video=(window._replace(first_kept=span.num_finished),))


class _Draws:
    """All noise of some frames: ``(T,4,H/8,W/8)`` for the inversion, and for the posterior unless its mode is taken.

    Where features are read without noise, that for the inversion serves modulation alone.
    """

    def __init__(self, settings: Settings, first_frame: int, count: int, size: tuple[int, int]) -> None:
        self._sampling, self._first, self._size = settings.sampling, first_frame, size
        shape, seed = (4, size[0] // PIXELS_PER_LATENT, size[1] // PIXELS_PER_LATENT), settings.sampling.seed
        self.posterior: Tensor | None = None
        self._image: Tensor | None = None
        if settings.variant == "published" and settings.video.frames:
            self.posterior, self._image, _ = draw_video_window_noise(seed, (count, *shape))
        elif settings.variant == "published":
            self.posterior, _ = draw_window_noise(seed, (count, *shape))
        if settings.sampling.noise == "window":
            draw = draw_video_window_noise if settings.video.frames else draw_window_noise
            windows = split_noise(count, settings)
            self.noise = torch.cat([draw(seed, (len(window), *shape))[-1] for window in windows])
        elif settings.sampling.noise == "shared":
            self.noise = draw_frame_noise(seed, (0,), shape).expand(count, *shape)
        else:
            self.noise = draw_frame_noise(seed, range(first_frame, first_frame + count), shape)

    def of_image(self, start: int) -> Tensor:
        """Return the noise ``(3,H,W)`` on the frame that conditions the window which begins at ``start``."""
        if self._image is not None:
            return self._image
        return draw_frame_noise(self._sampling.seed + 2, (self._first + start,), (3, *self._size))[0]


def require_same_kind(features: Features, settings: Settings) -> None:
    """Check that ``features`` come from the kind of model, image or video, that is to go on with them."""
    if bool(features.video) != bool(settings.video.frames):
        made, wanted = ("a video", "an image") if features.video else ("an image", "a video")
        raise InputError(
            f"`features` must come from the same model as is used now, {wanted} model, but got those of {made} model. "
            "Extract them with this model."
        )
