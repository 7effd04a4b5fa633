"""The adapters that the contract suite runs over. To add one: a function from a model file to a backbone.

One that only gives features goes to `FEATURE_ADAPTERS`; the first part of the suite runs over it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.backbones.protocol import (
    Backbone,
    BackboneInfo,
    FeatureBackbone,
    FeatureDenoiser,
    Prediction,
)
from vidseg.core.config.parts import Variant, VideoConfig
from vidseg.core.types import Conditioning


class FeaturesOnly:
    """Shows the first step of the protocol of another backbone, and nothing else."""

    def __init__(self, inner: Backbone) -> None:
        self._inner = inner

    @property
    def info(self) -> BackboneInfo:
        return self._inner.info

    @property
    def device(self) -> torch.device:
        return self._inner.device

    @property
    def training_sigmas(self) -> Tensor:
        return self._inner.training_sigmas

    def encode(self, frames: Tensor, posterior_noise: Tensor | None = None) -> Tensor:
        return self._inner.encode(frames, posterior_noise)

    def run(self, job: Callable[[FeatureDenoiser], Any], guidance_scale: float, latent_shape: Sequence[int]) -> Any:
        return self._inner.run(lambda denoiser: job(_Reader(denoiser)), guidance_scale, latent_shape)

    def batch_size(self, latent_shape: Sequence[int]) -> int:
        return self._inner.batch_size(latent_shape)

    def condition(self, frame: Tensor, noise: Tensor, config: VideoConfig) -> Conditioning | None:
        return self._inner.condition(frame, noise, config)

    def conditioned(
        self, conditioning: Conditioning | None, config: VideoConfig, variant: Variant = "paper"
    ) -> FeaturesOnly:
        return FeaturesOnly(self._inner.conditioned(conditioning, config, variant))


class _Reader:
    """Shows the first step of the protocol of another denoiser, and nothing else."""

    def __init__(self, inner: FeatureDenoiser) -> None:
        self._inner = inner

    def predict(self, latents: Tensor, sigma: float) -> Prediction:
        return self._inner.predict(latents, sigma)

    def queries(self, latents: Tensor, sigma: float, blocks: Sequence[int]) -> tuple[Tensor, ...]:
        return self._inner.queries(latents, sigma, blocks)


def diffusers(path: Path) -> Backbone:
    """Load a single-file model with its own sizes and empty prompt."""
    return load_diffusers(path, device="cpu")


ADAPTERS: dict[str, Callable[[Path], Backbone]] = {"diffusers": diffusers}
FEATURE_ADAPTERS: dict[str, Callable[[Path], FeatureBackbone]] = {
    "features": lambda path: FeaturesOnly(diffusers(path))
}
