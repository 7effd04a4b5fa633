"""Training of the autoencoder: crops in, reconstruction judged by squared error first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from vidseg.core.checkpoints.sizes import SCALE_FACTOR

from .photos import PhotoBank
from .trainer import Batch, step_generator

L1_WEIGHT = 0.05
GRADIENT_WEIGHT = 0.1
KL_WEIGHT = 1e-4
"""Per latent value; costs about half of itself in squared error and keeps the posterior's noise near 3 %."""
CROP_SCALES = (0.76, 1.25)
ENCODE_BATCH = 64


@dataclass(frozen=True)
class VAEBatches:
    """Batches of random crops; half of the steps at the photos' own scale."""

    bank: PhotoBank
    size: tuple[int, int]
    batch: int
    seed: int

    def __call__(self, step: int) -> Batch:
        """Return crops (B,3,H,W) in [-1,1] and the posterior's noise."""
        generator = step_generator(self.seed, "vae", step)
        choice, position = torch.rand(2, generator=generator).tolist()
        scale = 1.0 if choice < 0.5 else CROP_SCALES[0] + position * (CROP_SCALES[1] - CROP_SCALES[0])
        crops = self.bank.crops(self.batch, self.size, scale, generator)
        shape = (self.batch, 4, self.size[0] // 8, self.size[1] // 8)
        noise_generator = step_generator(self.seed, "vae", step, crops.device)
        noise = torch.randn(shape, generator=noise_generator, device=crops.device)
        return crops.contiguous(memory_format=torch.channels_last), noise


class VAEObjective(nn.Module):
    """Squared error, a little absolute and gradient error, and the divergence from the normal distribution."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, frames: Tensor, noise: Tensor) -> Tensor:
        """Return the loss of a batch."""
        mean, log_variance = encode_moments(self.vae, frames)
        decoded = self.vae.decoder(self.vae.post_quant_conv(mean + (0.5 * log_variance).exp() * noise)).float()
        difference = decoded - frames
        gradients = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
        mean, log_variance = mean.float(), log_variance.float()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        reconstruction = difference.square().mean() + L1_WEIGHT * difference.abs().mean()
        return reconstruction + GRADIENT_WEIGHT * gradients + KL_WEIGHT * divergence


def encode_moments(vae: AutoencoderKL, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log variance of the posterior, (B,4,H/8,W/8) each."""
    mean, log_variance = vae.quant_conv(vae.encoder(frames)).chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, frames: Tensor) -> Tensor:
    """Return frames in [-1,1] after encoding to the posterior's mean and decoding."""
    return vae.decoder(vae.post_quant_conv(encode_moments(vae, frames)[0])).float().clamp(-1, 1)


def psnr(reconstruction: Tensor, frames: Tensor) -> Tensor:
    """Return the (B,) peak signal-to-noise ratio in dB of frames in [-1,1] (peak to peak 2)."""
    error = (reconstruction - frames).square().mean(dim=(1, 2, 3)).clamp_min(1e-12)
    return 10 * torch.log10(4 / error)


@torch.no_grad()
def normalize_latents(vae: AutoencoderKL, bank: PhotoBank, size: tuple[int, int], count: int, seed: int) -> None:
    """Fold into both 1x1 convolutions what gives each latent channel mean 0 and deviation 1/`SCALE_FACTOR`.

    The reconstruction does not change; the posterior's variance scales along.
    """
    sums, squares, number = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64), 0
    batch = min(ENCODE_BATCH, count)
    for position in range(0, count, batch):
        generator = step_generator(seed, "normalize", position)
        mean = encode_moments(vae, bank.crops(batch, size, 1.0, generator))[0].double().cpu()
        sums += mean.sum(dim=(0, 2, 3))
        squares += mean.square().sum(dim=(0, 2, 3))
        number += mean.numel() // 4
    average = sums / number
    deviation = (squares / number - average.square()).sqrt()
    rescale_latents(vae, average.float(), (deviation * SCALE_FACTOR).float())


@torch.no_grad()
def rescale_latents(vae: AutoencoderKL, shift: Tensor, scale: Tensor) -> None:
    """Change the latents z to (z - shift) / scale, channel by channel, without changing reconstructions."""
    quant, post = vae.quant_conv, vae.post_quant_conv
    shift, scale = shift.to(quant.bias), scale.to(quant.bias)
    post.bias += (post.weight[:, :, 0, 0] * shift).sum(dim=1)
    post.weight *= scale[None, :, None, None]
    channels = len(shift)
    quant.weight[:channels] /= scale[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - shift) / scale
    quant.bias[channels:] -= 2 * scale.log()


@torch.no_grad()
def validation_psnr(vae: AutoencoderKL, frames: Tensor) -> float:
    """Return the mean PSNR of held-out frames (B,3,H,W)."""
    parts = [psnr(reconstruct(vae, part), part) for part in frames.split(ENCODE_BATCH)]
    return float(torch.cat(parts).mean())
