"""How long a run will take, before it starts: a few timed calls, times how often each will be needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from .backbones import Backbone, Denoiser, VideoBackbone
from .config import Settings
from .frames import model_size
from .progress import GUIDED_SHARES, STAGE_SHARES, RunProgress

TAIL_SHARE = 0.4
"""Cost of a modulated step, which starts behind the modulated block, in UNet calls (measured)."""
QUERY_SHARE = 0.4
"""Cost of reading the queries: one half of guidance, up to the last block read (measured)."""
SHARED_PASSES = 6
"""Passes of a frame whose regions share them, for many regions (measured on the clips of the benchmark)."""


class UnitCosts(NamedTuple):
    """Seconds for one frame of one call of each part of the model."""

    encode: float
    predict: float
    decode: float


def measure_costs(backbone: Backbone, frame_size: tuple[int, int], settings: Settings) -> UnitCosts:
    """Time one call of each part that ``settings`` need, after a first call that warms up.

    Args:
        backbone: the model.
        frame_size: ``(H,W)`` of the frames as they come in.
        settings: frame size, guidance, and whether modulation is on.
    """
    height, width = model_size(frame_size, settings.frame)
    picture = torch.full((1, height, width, 3), 0.5)
    sigma = float(backbone.training_sigmas[100])
    latents = backbone.encode(picture)

    def job(denoiser: Denoiser) -> float:
        return _seconds(lambda: float(denoiser.predict(latents, sigma).denoised.sum()))

    predict = backbone.run(job, settings.sampling.guidance_scale, latents.shape)
    encode = _seconds(lambda: float(backbone.encode(picture).sum()))
    modulated = settings.modulation.enabled
    decode = _seconds(lambda: float(backbone.decode(latents).sum())) if modulated else 0.0
    return UnitCosts(encode, predict, decode)


def frame_seconds(costs: UnitCosts, settings: Settings, num_labels: int) -> float:
    """Return the seconds that a frame takes if it holds ``num_labels`` regions.

    Scene context, refinement and the writing of files are left out: they are small beside a UNet call.

    >>> settings = Settings()  # 2 steps before the features, 3 plain steps, and for each of two signs 2.4 and a decode
    >>> round(frame_seconds(UnitCosts(0.0, 1.0, 0.0), settings, 10), 3)
    53.4
    """
    config, last = settings.modulation, settings.sampling.num_steps
    seconds = costs.encode + (settings.feature.step - settings.start_step + QUERY_SHARE) * costs.predict
    if not config.enabled or num_labels < 2:
        return seconds
    steps = last - config.step if config.steps == "all" else 1
    passes = min(num_labels, SHARED_PASSES) if config.shared else num_labels
    plain = config.step - settings.start_step + steps
    replay = TAIL_SHARE + steps - 1
    return seconds + plain * costs.predict + 2 * passes * (replay * costs.predict + costs.decode)


def stage_shares(settings: Settings) -> Mapping[str, float]:
    """Return the stages of a window and their expected shares of its time."""
    if settings.modulation.enabled:
        return STAGE_SHARES
    return GUIDED_SHARES if settings.enlarging.method == "guided" else {"features": 1.0}


def announce(
    progress: RunProgress, backbone: Backbone, settings: Settings, frame_size: tuple[int, int], num_frames: int
) -> None:
    """Say before a run how long it will take at most: as if every region occurred in every frame.

    Nothing is said for a video model, whose calls take whole windows: a timed one would cost as much as a window.

    Args:
        progress: where to say it.
        backbone: the model, which is timed.
        settings: all settings.
        frame_size: ``(H,W)`` of the frames, pixels.
        num_frames: frames that are left.
    """
    if isinstance(backbone, VideoBackbone):
        return
    regions = settings.cluster.num_clusters
    seconds = num_frames * frame_seconds(measure_costs(backbone, frame_size, settings), settings, regions)
    progress.announce(seconds, f"{num_frames} frames at most, with {regions} regions in each ({settings.quality})")


def _seconds(call: Callable[[], float]) -> float:
    """Return the time of a second call, whose result must have arrived on the host."""
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
