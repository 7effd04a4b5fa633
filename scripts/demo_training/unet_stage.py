"""Training of the noise predictor on latents that were encoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from vidseg.core.checkpoints.sizes import SCALE_FACTOR

from .noise import NUM_TIMESTEPS, add_noise, signal_levels
from .photos import PhotoBank
from .trainer import Batch, step_generator
from .vae_stage import ENCODE_BATCH, encode_moments

EMPHASISED_TIMESTEPS = 400
"""Half of the samples have less noise than this: features are read at timesteps 39 to about 300."""
DROPPED_CONTEXT = 0.12
"""Share of samples whose context is zeros, the negative prompt."""
VALIDATION_TIMESTEPS = (39, 119, 300, 500, 700, 900)
CELLS_PER_SAMPLE = 32 * 32
"""Latent cells that count as one sample of a batch; larger latents make smaller batches."""


@dataclass(frozen=True)
class Bucket:
    """One size of latents, how many are encoded, how often it is drawn and how far photos are enlarged for it."""

    height: int
    width: int
    count: int
    share: float
    scales: tuple[float, float] = (1.0, 1.4)

    @property
    def cells(self) -> tuple[int, int]:
        """Size of the latents."""
        return self.height, self.width

    @property
    def pixels(self) -> tuple[int, int]:
        """Size of the crops."""
        return self.height * 8, self.width * 8


BUCKETS = (
    Bucket(32, 32, 32768, 0.4),
    Bucket(32, 48, 24576, 0.6, (1.0, 1.5)),
)


@torch.no_grad()
def encode_bucket(vae: AutoencoderKL, bank: PhotoBank, bucket: Bucket, seed: int, precision: torch.dtype) -> Tensor:
    """Return (count,4,h,w) fp16 latents, posterior samples times `SCALE_FACTOR`, of random crops."""
    parts = []
    for position in range(0, bucket.count, ENCODE_BATCH):
        generator = step_generator(seed, f"encode{bucket.width}", position)
        low, high = bucket.scales
        scale = low + float(torch.rand((), generator=generator)) * (high - low)
        number = min(ENCODE_BATCH, bucket.count - position)
        crops = bank.crops(number, bucket.pixels, scale, generator)
        noise = torch.randn(number, 4, bucket.height, bucket.width, generator=generator).to(crops.device)
        parts.append(encode(vae, crops, noise, precision))
    return torch.cat(parts)


@torch.no_grad()
def encode(vae: AutoencoderKL, frames: Tensor, noise: Tensor, precision: torch.dtype) -> Tensor:
    """Return fp16 latents of frames in [-1,1], sampled from the posterior with the given noise."""
    with torch.autocast(frames.device.type, precision, enabled=precision != torch.float32):
        mean, log_variance = encode_moments(vae, frames.contiguous(memory_format=torch.channels_last))
    return ((mean.float() + (0.5 * log_variance.float()).exp() * noise) * SCALE_FACTOR).half()


def latents_of(
    path: Path, buckets: Sequence[Bucket], encoded: Callable[[Bucket], Tensor], device: torch.device
) -> list[Tensor]:
    """Return each bucket's latents, from the file of an earlier run where there is one."""
    if path.exists():
        return list(torch.load(path, map_location=device, weights_only=True))
    latents = [encoded(bucket) for bucket in buckets]
    unfinished = path.with_suffix(".unfinished")
    torch.save(latents, unfinished)
    unfinished.replace(path)
    return latents


class UNetBatches:
    """Noisy latents, timesteps, contexts and the noise to predict."""

    def __init__(
        self, latents: Sequence[Tensor], buckets: Sequence[Bucket], table: Tensor, batch: int, seed: int
    ) -> None:
        """Take one tensor of latents for each bucket, all on the training device."""
        self._latents, self._buckets = latents, buckets
        self._device = latents[0].device
        self._table, self._levels = table.to(self._device), signal_levels(self._device)
        self._batch, self._seed = batch, seed
        self._shares = torch.tensor([bucket.share for bucket in buckets])

    def __call__(self, step: int) -> Batch:
        """Return the batch of one step; all of it has one size of latents."""
        choice = int(torch.multinomial(self._shares, 1, generator=step_generator(self._seed, "bucket", step)))
        latents, bucket = self._latents[choice], self._buckets[choice]
        number = max(1, self._batch * CELLS_PER_SAMPLE // (bucket.height * bucket.width))
        device, generator = self._device, step_generator(self._seed, "unet", step, self._device)
        clean = latents[torch.randint(len(latents), (number,), generator=generator, device=device)].float()
        noise = torch.randn(clean.shape, generator=generator, device=device)
        timesteps = torch.randint(NUM_TIMESTEPS, (number,), generator=generator, device=device)
        timesteps[: number // 2] = timesteps[: number // 2] * EMPHASISED_TIMESTEPS // NUM_TIMESTEPS
        kept = torch.rand(number, generator=generator, device=device) >= DROPPED_CONTEXT
        noisy = add_noise(clean, noise, self._levels[timesteps])
        return noisy, timesteps, self._table * kept[:, None, None], noise


class UNetObjective(nn.Module):
    """Mean squared error of the predicted noise."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, noisy: Tensor, timesteps: Tensor, context: Tensor, noise: Tensor) -> Tensor:
        """Return the loss of a batch."""
        predicted = self.unet(noisy, timesteps, context, return_dict=False)[0]
        return (predicted.float() - noise).square().mean()


@torch.no_grad()
def validation_losses(unet: UNet2DConditionModel, latents: Tensor, table: Tensor, seed: int) -> dict[str, float]:
    """Return the loss at each of `VALIDATION_TIMESTEPS` on held-out latents with fixed noise, and their mean."""
    clean, levels = latents.float(), signal_levels(latents.device)
    context = table.to(latents.device).expand(len(clean), -1, -1)
    objective, losses = UNetObjective(unet), {}
    for timestep in VALIDATION_TIMESTEPS:
        generator = step_generator(seed, "validation", timestep)
        noise = torch.randn(clean.shape, generator=generator).to(latents.device)
        timesteps = torch.full((len(clean),), timestep, device=latents.device)
        losses[f"validation_t{timestep}"] = float(
            objective(add_noise(clean, noise, levels[timesteps]), timesteps, context, noise)
        )
    return {"validation": sum(losses.values()) / len(losses), **losses}


def guided(unet: UNet2DConditionModel, table: Tensor, guidance: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a noise predictor with classifier-free guidance between the table and zeros."""

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        positive = table.to(noisy.device).expand(len(noisy), -1, -1)
        context = torch.cat([torch.zeros_like(positive), positive])
        both = unet(torch.cat([noisy, noisy]), torch.cat([timesteps, timesteps]), context, return_dict=False)[0].float()
        without, given = both.chunk(2)
        return without + guidance * (given - without)

    return predict
