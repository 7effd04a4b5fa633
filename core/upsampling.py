"""From coarse maps to full resolution: modulate, decode, compare, choose (paper 4.3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .backbones.protocol import KEPT_STEPS, Backbone, Denoiser, VideoBackbone
from .backbones.schedule import sampling_sigmas
from .config.parts import EnlargingConfig
from .config.settings import Settings
from .differences import RunningArgmax, enlarged_labels, initial_maps, label_scores
from .guided import guided_map
from .method.sampling import add_noise, modulated_levels, plain_pass
from .modulation import ModulatedPairs, jobs_of, modulate
from .types import CoarseMaps, Features, InputError, LabelMaps, Progress, no_progress, region_labels, require_shape
from .video_features import require_conditioned
from .video_upsampling import upsample_video

Advance = Callable[[str, int], None]
"""Called as ``advance(stage, done)`` with the number of modulation jobs just done."""


def upsample(
    backbone: Backbone,
    features: Features,
    coarse: CoarseMaps,
    settings: Settings,
    *,
    progress: Progress = no_progress,
) -> LabelMaps:
    """Return label maps in the size of the input frames (paper 4.3, Eq. 2, 5, 6).

    Frames are processed in chunks; the result does not depend on them. A label absent from a frame's coarse map has
    an empty difference map there and is skipped, which changes nothing.

    Args:
        backbone: the diffusion model.
        features: of the same frames as ``coarse``; their latents and noise are denoised again.
        coarse: labels on the coarse grid.
        settings: modulation and difference settings; with modulation off, those of `enlarge`.
        progress: called with stages ``modulation`` and ``decoding`` in modulation jobs, or ``upsampling`` in frames.
    """
    require_shape("coarse.maps", coarse.maps, "T h w", T=features.num_kept, h=features.grid.h, w=features.grid.w)
    if not settings.modulation.enabled:
        return enlarge(coarse, features.kept(), settings.enlarging, progress)
    require_conditioned(features, is_video=isinstance(backbone, VideoBackbone))
    if isinstance(backbone, VideoBackbone):
        return upsample_video(backbone, features, coarse, settings, progress)
    batch = backbone.batch_size(tuple(features.latents.shape[1:]))
    sigmas = sampling_sigmas(backbone.training_sigmas, settings.sampling.num_steps)
    num_kept = len(modulated_levels(sigmas, settings))
    length = batch if num_kept <= KEPT_STEPS else max(1, batch * KEPT_STEPS // num_kept)
    total = len(jobs_of(coarse, settings))
    counts = {"modulation": 0, "decoding": 0}

    def advance(stage: str, done: int) -> None:
        counts[stage] += done
        progress(stage, counts[stage], total)

    parts = []
    for start in range(0, features.num_frames, length):
        part = coarse._replace(maps=coarse.maps[start : start + length])
        chunk = _Chunk(backbone, features.window(start, start + length), part, settings, batch)
        parts.append(chunk.label_maps(advance))
    return LabelMaps(torch.cat(parts), coarse.regions)


class _Chunk:
    """Some frames that are modulated together."""

    def __init__(
        self, backbone: Backbone, features: Features, coarse: CoarseMaps, settings: Settings, batch: int
    ) -> None:
        self.backbone, self.features, self.coarse = backbone, features, coarse
        self.settings, self.batch = settings, batch

    def label_maps(self, advance: Advance) -> Tensor:
        """Return ``(T,H,W)`` uint8."""
        difference, size = self.settings.difference, self.features.frame_size
        best = RunningArgmax(initial_maps(self.coarse, size, difference))
        for pairs in self._modulated(advance):
            for index, job in enumerate(pairs.jobs):
                plus, minus = self.backbone.decode(torch.stack([pairs.plus[index], pairs.minus[index]]))
                scores = label_scores(plus[None], minus[None], job.mask[None], size, difference, owners=job.owner[None])
                best.update(job.frame, enlarged_labels(job.owner, size), scores[0].cpu())
                advance("decoding", 1)
        return best.maps

    def _modulated(self, advance: Advance) -> list[ModulatedPairs]:
        """Run all modulated passes; decoding waits until the UNet is no longer needed."""
        if not jobs_of(self.coarse, self.settings):
            return []
        sampling, latents = self.settings.sampling, self.features.latents
        sigmas = sampling_sigmas(self.backbone.training_sigmas, sampling.num_steps)
        noised = add_noise(latents, self.features.noise, float(sigmas[self.settings.start_step]))

        def job(denoiser: Denoiser) -> list[ModulatedPairs]:
            plain = plain_pass(denoiser, noised, sigmas, self.settings)
            done = []
            for pairs in modulate(denoiser, plain, self.coarse, self.settings, self.batch):
                done.append(pairs)
                advance("modulation", len(pairs.jobs))
            return done

        return self.backbone.run(job, sampling.guidance_scale, (self.batch, *latents.shape[1:]))


def enlarge(
    coarse: CoarseMaps, features: Features, config: EnlargingConfig, progress: Progress = no_progress
) -> LabelMaps:
    """Return coarse maps enlarged without the model.

    Args:
        coarse: labels on the coarse grid.
        features: of the same frames.
        config: how.
        progress: called with stage ``upsampling`` in frames.

    Raises:
        InputError: the guided filter is asked for and the features came without pictures.
    """
    if config.method == "bilinear":
        return bilinear(coarse, features.frame_size, progress)
    if features.pictures is None:
        raise InputError("`features` must hold the pictures for guided upsampling. Extract the features again.")
    maps = []
    for index, (cells, picture) in enumerate(zip(coarse.maps, features.pictures, strict=True)):
        maps.append(guided_map(cells, picture, features.frame_size, config))
        progress("upsampling", index + 1, len(coarse.maps))
    return LabelMaps(torch.stack(maps), coarse.regions)


def bilinear(coarse: CoarseMaps, frame_size: tuple[int, int], progress: Progress = no_progress) -> LabelMaps:
    """Enlarge coarse maps: bilinear per label, the largest wins, ties to the smallest label.

    ``progress`` is called with stage ``upsampling`` in frames.
    """
    maps = []
    for frame in coarse.maps.cpu():
        best = torch.zeros(frame_size)
        chosen = torch.zeros(frame_size, dtype=torch.uint8)
        for label in region_labels(coarse.regions):
            mask = (frame == label).float()[None, None]
            score = F.interpolate(mask, frame_size, mode="bilinear", align_corners=False)[0, 0]
            chosen[score > best] = label
            best = torch.maximum(best, score)
        maps.append(chosen)
        progress("upsampling", len(maps), len(coarse.maps))
    return LabelMaps(torch.stack(maps), coarse.regions)
