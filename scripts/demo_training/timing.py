"""A short timing of both networks, and the plan that follows from it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from .run import RunSettings
from .shapes import build_unet, build_vae, prompt_table
from .trainer import Batch, Trainer
from .unet_stage import UNetBatches, UNetObjective
from .vae_stage import VAEObjective

WARM_UP_STEPS = 3
NUM_TIMED = 10
MAX_SECONDS = 60.0
"""Timing of one size stops after this, once a step is done."""


def time_vae(settings: RunSettings) -> float:
    """Return the autoencoder's steps per second."""
    vae = build_vae(settings.sizes.vae, settings.seed)
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(settings.vae_batch, 3, *settings.crop, generator=generator) * 2 - 1
    noise = torch.randn(settings.vae_batch, 4, settings.crop[0] // 8, settings.crop[1] // 8, generator=generator)
    batch = (frames.to(settings.device, memory_format=torch.channels_last), noise.to(settings.device))
    with tempfile.TemporaryDirectory() as folder:
        return _rate(_trainer(vae, VAEObjective(vae), settings, Path(folder)), batch)


def time_unet(settings: RunSettings) -> dict[str, float]:
    """Return the noise predictor's steps per second at each bucket's size."""
    unet = build_unet(settings.sizes.unet, settings.seed)
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(unet, UNetObjective(unet), settings, Path(folder))
        for bucket in settings.buckets:
            latents = torch.randn(settings.unet_batch, 4, *bucket.cells).half().to(settings.device)
            table = prompt_table(settings.sizes.unet)
            batches = UNetBatches([latents], [bucket], table, settings.unet_batch, settings.seed)
            rates[f"{bucket.height}x{bucket.width}"] = _rate(trainer, batches(0))
    return rates


def _trainer(network: nn.Module, objective: nn.Module, settings: RunSettings, folder: Path) -> Trainer:
    network.to(settings.device, memory_format=torch.channels_last)
    return Trainer(network, objective, settings.unet, folder)


def _rate(trainer: Trainer, batch: Batch) -> float:
    for _ in range(WARM_UP_STEPS):
        float(trainer.train_step(batch))
    start, done = time.monotonic(), 0
    while done < NUM_TIMED and (not done or time.monotonic() - start < MAX_SECONDS):
        loss = trainer.train_step(batch)
        done += 1
        if trainer.device.type == "cpu" or done == NUM_TIMED:
            float(loss)
    return done / (time.monotonic() - start)
