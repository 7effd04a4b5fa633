"""Denoise to the feature step and read the self-attention queries there (paper 4.1, 4.4)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..backbones.protocol import FeatureBackbone, FeatureDenoiser, VideoBackbone
from ..backbones.schedule import make_edm_sigmas, make_sigmas
from ..config.parts import SamplingConfig
from ..config.settings import Settings, replace_parts
from ..types import PIXELS_PER_LATENT, Features, InputError, Progress, VideoWindow, no_progress
from .frames import FrameSource, check_frames, coarse_grid, fit_frames
from .sampling import add_noise, draw_frame_noise, draw_video_window_noise, draw_window_noise, euler_step
from .windows import Span, require_kind, split_spans


def extract_features(
    backbone: FeatureBackbone,
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
    sigmas = make_sigmas(backbone.training_sigmas, settings.sampling.num_steps)

    def job(denoiser: FeatureDenoiser) -> list[tuple[Tensor, Tensor]]:
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
    backbone: FeatureBackbone, frames: Tensor, config: SamplingConfig, first_frame: int
) -> tuple[Tensor, Tensor]:
    """Return clean latents and the noise to add, both ``(T,4,H/8,W/8)``."""
    shape = (4, frames.shape[1] // PIXELS_PER_LATENT, frames.shape[2] // PIXELS_PER_LATENT)
    if config.noise == "window":
        posterior_noise, noise = draw_window_noise(config.seed, (len(frames), *shape))
    else:
        numbers = range(first_frame, first_frame + len(frames))
        noise = draw_frame_noise(config.seed, numbers, shape)
        posterior_noise = draw_frame_noise(config.seed + 1, numbers, shape) if config.posterior == "sample" else noise
    return backbone.encode(frames, posterior_noise if config.posterior == "sample" else None), noise


def extract_window_features(
    backbone: FeatureBackbone, source: FrameSource, span: Span, settings: Settings, progress: Progress = no_progress
) -> Features:
    """Return the features of the frames of ``span``; `Features.kept` are those whose results count.

    Args:
        backbone: the diffusion model.
        source: the frames.
        span: of `windows.split_spans`.
        settings: frame size, sampling and feature settings.
        progress: called as ``("features", done, total)`` in frames.
    """
    frames = source.read(span.frames.start, span.frames.stop)
    features = extract_features(backbone, frames, settings, first_frame=span.frames.start, progress=progress)
    return mark_finished(features, span)


def read_queries(
    denoiser: FeatureDenoiser,
    latents: Tensor,
    noise: Tensor,
    sigmas: Tensor,
    settings: Settings,
    after_step: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[Tensor, Tensor]:
    """Return aggregated and matching queries ``(T,N,C)`` of one compute batch, on the CPU.

    Args:
        denoiser: the model.
        latents: ``(T,4,H/8,W/8)``, clean.
        noise: same shape.
        sigmas: ``(S+1,)`` noise levels, falling to zero.
        settings: start step, and where features are read.
        after_step: called with the number of steps done, and of all steps.
    """
    feature = settings.feature
    total = feature.step - settings.start_step + 1
    x = add_noise(latents, noise, float(sigmas[settings.start_step]))
    for step in range(settings.start_step, feature.step):
        denoised = denoiser.predict(x, float(sigmas[step])).denoised
        x = euler_step(x, denoised, float(sigmas[step]), float(sigmas[step + 1]))
        after_step(step - settings.start_step + 1, total)
    blocks = (*feature.blocks, feature.matching_block)
    queries = denoiser.queries(x, float(sigmas[feature.step]), blocks)
    after_step(total, total)
    return torch.stack(queries[:-1]).mean(0).cpu(), queries[-1].cpu()


def extract_video_features(
    backbone: VideoBackbone,
    frames: Tensor,
    frame_size: tuple[int, int],
    settings: Settings,
    *,
    first_frame: int = 0,
    progress: Progress = no_progress,
) -> Features:
    """Encode frames, add noise and read the self-attention queries while denoising whole windows.

    Windows that overlap share latents and noise; frames that an earlier window has finished keep its queries.

    Args:
        backbone: the video model.
        frames: ``(T,H,W,3)`` float32 in [0, 1], sides multiples of 64.
        frame_size: ``(H, W)`` of the frames as they came in.
        settings: sampling, feature and video settings.
        first_frame: number of the first of these frames in the clip; its noise depends on it.
        progress: called as ``("features", done, total)`` in frames.

    Returns:
        Queries of all frames on the CPU, latents, noise, and the windows with their conditioning.
    """
    size = (int(frames.shape[1]), int(frames.shape[2]))
    draws = _Draws(settings, first_frame, len(frames), size)
    latents = backbone.encode(frames, draws.posterior)
    queries, matching, seen = [], [], []
    short = replace_parts(settings, window={"tail": "short"})
    for span in split_spans(len(frames), short):
        start, stop = span.frames.start, span.frames.stop
        conditioning = backbone.condition(frames[start], draws.of_image(start), settings.video)
        window = backbone.conditioned(conditioning, settings.video)

        def after_step(done: int, steps: int, kept: range = span.kept) -> None:
            progress("features", kept.start + len(kept) * done // steps, len(frames))

        read, matched = _queries(window, latents[start:stop], draws.noise[start:stop], settings, after_step)
        queries.append(read[span.num_finished :])
        matching.append(matched[span.num_finished :])
        seen.append(VideoWindow(start, stop, span.kept.start, conditioning))
    queries_of_all, matching_of_all = torch.cat(queries), torch.cat(matching)
    grid = coarse_grid(size)
    return Features(queries_of_all, matching_of_all, latents, draws.noise, grid, frame_size, video=tuple(seen))


def mark_finished(features: Features, span: Span) -> Features:
    """Return the features of one window with the frames in front that are finished already marked as such."""
    if not features.video:
        return features
    (window,) = features.video
    return features._replace(video=(window._replace(first_kept=span.num_finished),))


def _queries(
    backbone: FeatureBackbone,
    latents: Tensor,
    noise: Tensor,
    settings: Settings,
    after_step: Callable[[int, int], None],
) -> tuple[Tensor, Tensor]:
    """Return aggregated and matching queries ``(T,N,C)`` of a window."""
    sigmas = make_edm_sigmas(settings.sampling.num_steps)

    def job(denoiser: FeatureDenoiser) -> tuple[Tensor, Tensor]:
        return read_queries(denoiser, latents, noise, sigmas, settings, after_step)

    return backbone.run(job, settings.sampling.guidance_scale, tuple(latents.shape))


class _Draws:
    """All noise of some frames.

    Attributes:
        noise: ``(T,4,H/8,W/8)`` for the inversion.
        posterior: the same shape, or None where the mode is taken.
    """

    def __init__(self, settings: Settings, first_frame: int, count: int, size: tuple[int, int]) -> None:
        self._sampling, self._first, self._size = settings.sampling, first_frame, size
        shape, seed = (4, size[0] // PIXELS_PER_LATENT, size[1] // PIXELS_PER_LATENT), settings.sampling.seed
        self._image: Tensor | None = None
        if settings.sampling.noise == "window":
            posterior, self._image, self.noise = draw_video_window_noise(seed, (count, *shape))
        else:
            numbers = range(first_frame, first_frame + count)
            self.noise = draw_frame_noise(seed, numbers, shape)
            posterior = draw_frame_noise(seed + 1, numbers, shape)
        self.posterior = posterior if settings.sampling.posterior == "sample" else None

    def of_image(self, start: int) -> Tensor:
        """Return the noise ``(3,H,W)`` on the frame that conditions the window which begins at ``start``."""
        if self._image is not None:
            return self._image
        return draw_frame_noise(self._sampling.seed + 2, (self._first + start,), (3, *self._size))[0]


def require_conditioned(features: Features, *, is_video: bool) -> None:
    """Check that ``features`` come from the kind of model that is to go on with them.

    Raises:
        InputError: they come from the other kind.
    """
    if bool(features.video) != is_video:
        made, wanted = ("a video", "an image") if features.video else ("an image", "a video")
        raise InputError(
            f"`features` must come from the same model as is used now, {wanted} model, but got those of {made} model. "
            "Extract them with this model."
        )
