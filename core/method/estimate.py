"""How long a run will take, before it starts: a few timed calls, times how often each will be needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..backbones.protocol import (
    FeatureBackbone,
    FeatureDenoiser,
    FeatureSource,
    find_vision,
    require_diffusion,
    require_modulation,
)
from ..config.parts import MAX_AUTOMATIC_CLUSTERS
from ..config.settings import Settings
from ..progress import GUIDED_SHARES, STAGE_SHARES, RunProgress, format_count
from .features import list_layers
from .frames import coarse_grid, fit_size
from .tiles import split_tiles
from .windows import split_spans, spread_frames

TAIL_SHARE = 0.35
"""Cost of a modulated step, which starts behind the modulated block, in UNet calls (measured on a CPU with the demo
model at 128x192, 256x448 and 448x448 pixels: 0.24, 0.30, 0.44)."""
REPLAY_SHARE = 0.85
"""Cost of a later step of a modulated pass, which reuses attention of the unmodulated one (0.65, 0.75, 0.92)."""
QUERY_SHARE = 0.35
"""Cost of reading the queries: one half of guidance, up to the last block read (0.47, 0.30, 0.27)."""
VIDEO_TAIL_SHARE, VIDEO_REPLAY_SHARE, VIDEO_QUERY_SHARE = 0.25, 1.0, 0.38
"""The same for SVD, behind block 8 and up to it (counted operations of its true size, 256x448 to 576x1024 pixels)."""
SLOW_CALL = 0.5
"""Seconds of a UNet call on one frame from which on whole windows are not timed: they take as long per frame."""
SHARED_PASSES = 6
"""Passes of a frame whose regions share them, for many regions (measured on the clips of the benchmark)."""
UNetCall = Callable[[FeatureDenoiser, Tensor, float], float]
"""Called with latents ``(T,4,H/8,W/8)`` and their noise level; returns when its result has arrived on the host."""


class UnitCosts(NamedTuple):
    """Seconds for one frame of one call of each part of the model, and for the conditioning of a window (SVD).

    Reading the features is measured by itself where layers have names, and where no step leads to them; else it is a
    share of a prediction. Where frames are seen in ``tiles``, so many of each, a step before the features is ``tiled``.
    """

    encode: float
    predict: float
    decode: float
    condition: float = 0.0
    read: float = 0.0
    tiled: float = 0.0
    tiles: int = 0


def measure_costs(
    source: FeatureSource, frame_size: tuple[int, int], settings: Settings, num_frames: int | None = None
) -> UnitCosts:
    """Time one call of each part that ``settings`` need for frames of ``(H,W)``, after a first call that warms up."""
    height, width = fit_size(frame_size, settings)
    picture = torch.full((1, height, width, 3), 0.5)
    if vision := find_vision(source):
        read = _second(lambda: float(vision.read_frames(picture, list_layers(settings.feature))[-1].sum()))
        return UnitCosts(0.0, 0.0, 0.0, read=read)
    backbone = require_diffusion(source)
    latents = backbone.encode(picture)
    blank = torch.zeros(3, height, width)
    conditioning = backbone.condition(picture[0], blank, settings.video)
    unit = backbone.conditioned(conditioning, settings.video)
    condition, length = 0.0, 1
    if conditioning is not None:
        length = min(settings.video.frames, num_frames or settings.video.frames)
        condition = _once(lambda: backbone.condition(picture[0], blank, settings.video))
    window = latents.expand(length, -1, -1, -1)
    tiling = split_tiles(coarse_grid((height, width)), settings.frame.tiles)
    tiles, steps = len(tiling.corners), settings.steps_to_features > 0
    seen = window if tiles == 1 else tiling.cut(latents, (0,))
    read = tiled = predict = 0.0
    if settings.feature.layers or not steps:
        read = tiles * _window_call(unit, seen, settings, _reading(settings))
    if tiles > 1 and steps:
        tiled = tiles * _window_call(unit, seen, settings, _predict)
    if settings.modulation.enabled or (tiles == 1 and steps):
        predict = _window_call(unit, window, settings, _predict)
    encode = _once(lambda: float(backbone.encode(picture).sum()))
    decode = 0.0
    if settings.modulation.enabled:
        decoder = require_modulation(backbone)
        decode = _second(lambda: float(decoder.decode(latents).sum()))
    return UnitCosts(encode, predict, decode, condition, read, tiled, tiles if tiles > 1 else 0)


def _predict(denoiser: FeatureDenoiser, latents: Tensor, sigma: float) -> float:
    """Predict the clean latents; the number returned is there only when they are."""
    return float(denoiser.predict(latents, sigma).denoised.sum())


def _reading(settings: Settings) -> UNetCall:
    """Return a call that reads the features of ``settings``."""
    layers = list_layers(settings.feature)
    return lambda denoiser, latents, sigma: float(denoiser.queries(latents, sigma, layers)[-1].sum())


def _call(backbone: FeatureBackbone, latents: Tensor, settings: Settings, call: UNetCall) -> float:
    """Return the seconds of a UNet call with guidance on ``latents`` ``(T,4,H/8,W/8)``."""
    sigma = float(backbone.training_sigmas[100])

    def job(denoiser: FeatureDenoiser) -> float:
        return _second(lambda: call(denoiser, latents, sigma))

    return backbone.run(job, settings.sampling.guidance_scale, tuple(latents.shape))


def _window_call(window: FeatureBackbone, latents: Tensor, settings: Settings, call: UNetCall) -> float:
    """Return the seconds per frame of a UNet call on a window ``(T,4,H/8,W/8)``.

    Where a call on one frame is slow, as on a CPU, it tells them; a fast device does several frames in less.
    """
    alone = _call(window, latents[:1], settings, call)
    if alone >= SLOW_CALL or len(latents) == 1:
        return alone
    return min(alone, _call(window, latents.contiguous(), settings, call) / len(latents))


def estimate_frame_seconds(costs: UnitCosts, settings: Settings, num_labels: int) -> float:
    """Return the seconds that a frame takes if it holds ``num_labels`` regions, without the decoding of others.

    Scene context, refinement and the writing of files are left out: they are small beside a UNet call. A frame that a
    video model sees again, in a window that is shifted back, takes as long but for `estimate_decode_seconds`.

    >>> settings = Settings()  # the features, 3 plain steps, and for each of two signs 2.05 and a decode
    >>> round(estimate_frame_seconds(UnitCosts(0.0, 1.0, 0.0), settings, 10), 3)
    44.35
    """
    config, last = settings.modulation, settings.sampling.num_steps
    tail, replay, query = TAIL_SHARE, REPLAY_SHARE, QUERY_SHARE
    if settings.video.frames:
        tail, replay, query = VIDEO_TAIL_SHARE, VIDEO_REPLAY_SHARE, VIDEO_QUERY_SHARE
    before, step = settings.steps_to_features, costs.tiled or costs.predict
    seconds = costs.encode + before * step + (costs.read or query * step)
    passes = _num_passes(settings, num_labels)
    if not passes:
        return seconds
    steps = last - config.step if config.steps == "all" else 1
    plain = config.step - settings.start_step + steps
    modulated = tail + (steps - 1) * replay
    return (
        seconds
        + (plain + 2 * passes * modulated) * costs.predict
        + estimate_decode_seconds(costs, settings, num_labels)
    )


def estimate_decode_seconds(costs: UnitCosts, settings: Settings, num_labels: int) -> float:
    """Return the seconds that a frame takes for decoding if it holds ``num_labels`` regions."""
    return 2 * _num_passes(settings, num_labels) * costs.decode


def estimate_run_seconds(
    costs: UnitCosts, settings: Settings, num_labels: int, num_frames: int, first: int = 0
) -> float:
    """Return the seconds for a clip of ``num_frames`` whose frames before ``first`` are finished.

    A video model sees whole windows, so that frames of the last ones may count twice (`windows.split_spans`). Frames
    that leaves are fitted on are read by themselves before the first window, where they are spread over the clip.
    """
    seconds = estimate_frame_seconds(costs, settings, num_labels)
    if not settings.video.frames:
        spread = settings.cluster.fit_frames == "clip" and not first
        fitted = len(spread_frames(num_frames, settings.window)) if spread else 0
        return (num_frames - first) * seconds + fitted * estimate_frame_seconds(costs, settings, 0)
    again = seconds - estimate_decode_seconds(costs, settings, num_labels)
    left = [span for span in split_spans(num_frames, settings) if span.kept.start >= first]
    return sum(len(span.kept) * seconds + span.num_finished * again + costs.condition for span in left)


def _num_passes(settings: Settings, num_labels: int) -> int:
    """Return the modulated passes of a frame that holds ``num_labels`` regions, each with two signs."""
    if not settings.modulation.enabled or num_labels < 2:
        return 0
    return min(num_labels, SHARED_PASSES) if settings.modulation.shared else num_labels


def expect_stage_shares(settings: Settings) -> Mapping[str, float]:
    """Return the stages of a window and their expected shares of its time."""
    if settings.modulation.enabled:
        return STAGE_SHARES
    return GUIDED_SHARES if settings.enlarging.method == "guided" else {"features": 1.0}


def announce(
    progress: RunProgress,
    backbone: FeatureSource,
    settings: Settings,
    frame_size: tuple[int, int],
    num_frames: int,
    first: int = 0,
) -> None:
    """Say before a run how long it will take at most, after a look at what the parts of the model cost."""
    announce_costs(progress, measure_costs(backbone, frame_size, settings, num_frames), settings, num_frames, first)


def announce_costs(
    progress: RunProgress, costs: UnitCosts, settings: Settings, num_frames: int, first: int = 0, workers: int = 1
) -> None:
    """Say before a run how long it will take at most: as if every region occurred in every frame."""
    regions = settings.cluster.num_clusters or MAX_AUTOMATIC_CLUSTERS
    seconds = estimate_run_seconds(costs, settings, regions, num_frames, first) / workers
    frames, parts = format_count(num_frames - first, "frame"), format_count(regions, "region")
    if costs.tiles:
        frames += f" of {costs.tiles} tiles"
    work = f"{frames} at most, with {parts} in each ({settings.quality})"
    progress.announce(seconds, work if workers == 1 else f"{work} on {workers} workers")


def _second(call: Callable[[], object]) -> float:
    """Return the seconds of a second call, whose result must have arrived on the host."""
    call()
    return _once(call)


def _once(call: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
