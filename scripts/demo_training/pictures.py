"""Pictures of a training run: curves, reconstructions, samples, one-step denoisings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from vidseg.core.checkpoints.sizes import SCALE_FACTOR

from .noise import add_noise, remove_noise, sample, signal_levels
from .unet_stage import encode, guided
from .vae_stage import reconstruct

SHOWN_TIMESTEPS = (39, 119, 300)
GUIDANCE = 5.0
"""Guidance scale of the segmentation pipeline."""
NUM_SAMPLE_STEPS = 25
NUM_SAMPLES = 6


def grid(path: Path, rows: Sequence[Tensor]) -> None:
    """Write pictures (B,3,H,W) in [-1,1] as one picture, a row for each tensor."""
    canvas = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)  # (3, rows*H, columns*W)
    pixels = ((canvas.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, optimize=True, quality=90)


def curves(path: Path, history: Sequence[dict[str, Any]], title: str) -> None:
    """Draw the training loss and every validation figure against steps; decibels have the right axis."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    losses = figure.subplots()
    steps = [row["step"] for row in history]
    for name in [name for name in history[0] if name != "step"]:
        in_decibels = name.endswith("psnr")
        axes = losses.twinx() if in_decibels else losses
        label = f"{name.replace('_', ' ')}, dB" if in_decibels else name.replace("_", " ")
        style = "C1--" if in_decibels else "-"
        axes.plot(steps, [row[name] for row in history], style, label=label)
        if in_decibels:
            axes.set_ylabel(label)
    losses.set(xlabel="step", ylabel="loss", title=title, yscale="log")
    losses.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside right upper")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Return frames in [-1,1] of latents as the UNet sees them."""
    return vae.decoder(vae.post_quant_conv(latents.float() / SCALE_FACTOR)).float().clamp(-1, 1)


def reconstructions(path: Path, vae: AutoencoderKL, frames: Tensor) -> None:
    """Write frames above their reconstructions."""
    grid(path, (frames, reconstruct(vae, frames)))


@torch.no_grad()
def samples(path: Path, unet: UNet2DConditionModel, vae: AutoencoderKL, table: Tensor, size: tuple[int, int]) -> None:
    """Write samples: a row without guidance, a row from the same noise with the pipeline's."""
    device = next(unet.parameters()).device
    noise = torch.randn(NUM_SAMPLES, 4, *size, generator=torch.Generator().manual_seed(0)).to(device)
    rows = [decode(vae, sample(guided(unet, table, scale), noise, NUM_SAMPLE_STEPS)) for scale in (1.0, GUIDANCE)]
    grid(path, rows)


@torch.no_grad()
def denoisings(path: Path, unet: UNet2DConditionModel, vae: AutoencoderKL, table: Tensor, frames: Tensor) -> None:
    """Write frames, and for each of `SHOWN_TIMESTEPS` the noisy latents decoded and their one-step denoising."""
    device = next(unet.parameters()).device
    generator = torch.Generator().manual_seed(0)
    shape = (len(frames), 4, frames.shape[2] // 8, frames.shape[3] // 8)
    clean = encode(vae, frames, torch.zeros(shape, device=device), torch.float32).float()
    noise = torch.randn(shape, generator=generator).to(device)
    rows = [frames]
    for timestep in SHOWN_TIMESTEPS:
        level = signal_levels(device)[timestep].expand(len(frames))
        noisy = add_noise(clean, noise, level)
        predicted = guided(unet, table, GUIDANCE)(noisy, torch.full((len(frames),), timestep, device=device))
        rows += [decode(vae, noisy / level[0].sqrt()), decode(vae, remove_noise(noisy, predicted, level))]
    grid(path, rows)
