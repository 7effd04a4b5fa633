"""A backbone that counts and times the calls of another."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from vidseg.core.backbones.protocol import Backbone, BackboneInfo, Denoiser, Prediction, StepCache
from vidseg.core.config.parts import ModulationConfig, Variant, VideoConfig
from vidseg.core.method.estimate import QUERY_SHARE, REPLAY_SHARE, TAIL_SHARE
from vidseg.core.types import Conditioning


def clock() -> float:
    """Return seconds from some start: the processor's where torch computes on one thread of it, else the wall's.

    Other work on the machine delays a process, which its processor time leaves out.
    """
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return time.process_time() if alone else time.perf_counter()


class CountingBackbone:
    """Passes every call on; ``calls`` and ``seconds`` gather by part: encode, UNet, decode."""

    def __init__(self, inner: Backbone) -> None:
        self._inner = inner
        self.calls: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()

    def reset(self) -> None:
        """Forget all calls so far."""
        self.calls.clear()
        self.seconds.clear()

    def figures(self, total: float) -> dict[str, float]:
        """Return counts of calls and seconds of the parts; ``other`` is what is left of ``total``."""
        parts = {f"{part} s": self.seconds[part] for part in ("encode", "UNet", "decode")}
        return {
            "UNet": self.calls["UNet"],
            "decodes": self.calls["decode"],
            **parts,
            "other s": total - sum(parts.values()),
        }

    def timed(self, part: str, count: float, call: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Call, and count it as ``count`` calls of ``part``."""
        start = clock()
        result = call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[part] += clock() - start  # type: ignore[assignment]
        self.calls[part] += count  # type: ignore[assignment]
        return result

    @property
    def info(self) -> BackboneInfo:
        """Of the inner one."""
        return self._inner.info

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self._inner.device

    @property
    def training_sigmas(self) -> Tensor:
        """Of the inner one."""
        return self._inner.training_sigmas

    def encode(self, frames: Tensor, posterior_noise: Tensor | None = None) -> Tensor:
        """Encode."""
        return self.timed("encode", len(frames), lambda: self._inner.encode(frames, posterior_noise))

    def decode(self, latents: Tensor) -> Tensor:
        """Decode."""
        return self.timed("decode", len(latents), lambda: self._inner.decode(latents))

    def run(self, job: Callable[[Denoiser], Any], guidance_scale: float, latent_shape: Sequence[int]) -> Any:  # noqa: ANN401
        """Run the job with a denoiser that counts."""
        share = 0.5 if guidance_scale == 1 else 1.0  # one half of guidance, or both
        return self._inner.run(lambda inner: job(CountingDenoiser(inner, self, share)), guidance_scale, latent_shape)

    def batch_size(self, latent_shape: Sequence[int]) -> int:
        """Of the inner one."""
        return self._inner.batch_size(latent_shape)

    def condition(self, frame: Tensor, noise: Tensor, config: VideoConfig) -> Conditioning | None:
        """Of the inner one."""
        return self._inner.condition(frame, noise, config)

    def conditioned(
        self, conditioning: Conditioning | None, config: VideoConfig, variant: Variant = "paper"
    ) -> CountingBackbone:
        """Return the backbone of a window; its calls count here."""
        other = copy.copy(self)
        other._inner = self._inner.conditioned(conditioning, config, variant)
        return other


class CountingDenoiser:
    """Passes every call on."""

    def __init__(self, inner: Denoiser, owner: CountingBackbone, share: float) -> None:
        self._inner, self._owner, self._share = inner, owner, share

    def predict(self, latents: Tensor, sigma: float, *, keep: ModulationConfig | None = None) -> Prediction:
        """Predict."""
        count = self._share * len(latents)
        return self._owner.timed("UNet", count, lambda: self._inner.predict(latents, sigma, keep=keep))

    def queries(self, latents: Tensor, sigma: float, blocks: Sequence[int]) -> tuple[Tensor, ...]:
        """Read queries."""
        count = QUERY_SHARE * len(latents)
        return self._owner.timed("UNet", count, lambda: self._inner.queries(latents, sigma, blocks))

    def replay(self, latents: Tensor, sigma: float, cache: StepCache, frames: Tensor, offset: Tensor | None) -> Tensor:
        """Replay."""
        count = self._share * len(latents) * (REPLAY_SHARE if offset is None else TAIL_SHARE)
        return self._owner.timed("UNet", count, lambda: self._inner.replay(latents, sigma, cache, frames, offset))
