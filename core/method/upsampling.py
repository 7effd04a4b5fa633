"""From coarse maps to full resolution: modulate, decode, compare, choose (paper 4.3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..backbones.protocol import KEPT_STEPS, Backbone, Denoiser, FeatureBackbone, VideoBackbone, require_modulation
from ..backbones.schedule import make_edm_sigmas, make_sigmas
from ..config.settings import Settings
from ..types import CoarseMaps, Features, LabelMaps, Progress, VideoWindow, no_progress, require_shape
from .differences import RunningArgmax, make_initial_maps, score_labels
from .enlarging import enlarge_maps, enlarge_nearest
from .features import require_conditioned
from .modulation import ModulatedPairs, ModulatedWindow, list_jobs, mask_regions, modulate, modulate_window
from .sampling import add_noise, list_modulated_levels, sample_plain

Advance = Callable[[str, int], None]
"""Called as ``advance(stage, done)`` with the number of modulation jobs just done."""


def upsample(
    backbone: FeatureBackbone,
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
        settings: modulation and difference settings; with modulation off, those of `enlarge_maps`.
        progress: called with stages ``modulation`` and ``decoding`` in modulation jobs, or ``upsampling`` in frames.
    """
    require_shape("coarse.maps", coarse.maps, "T h w", T=features.num_kept, h=features.grid.h, w=features.grid.w)
    if not settings.modulation.enabled:
        return enlarge_maps(coarse, features.kept(), settings.enlarging, progress)
    backbone = require_modulation(backbone)
    require_conditioned(features, is_video=isinstance(backbone, VideoBackbone))
    if isinstance(backbone, VideoBackbone):
        return upsample_video(backbone, features, coarse, settings, progress)
    batch = backbone.batch_size(tuple(features.latents.shape[1:]))
    sigmas = make_sigmas(backbone.training_sigmas, settings.sampling.num_steps)
    num_kept = len(list_modulated_levels(sigmas, settings))
    length = batch if num_kept <= KEPT_STEPS else max(1, batch * KEPT_STEPS // num_kept)
    total = len(list_jobs(coarse, settings))
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
        best = RunningArgmax(make_initial_maps(self.coarse, size, difference))
        for pairs in self._modulated(advance):
            for index, job in enumerate(pairs.jobs):
                plus, minus = self.backbone.decode(torch.stack([pairs.plus[index], pairs.minus[index]]))
                scores = score_labels(plus[None], minus[None], job.mask[None], size, difference, owners=job.owner[None])
                best.update(job.frame, enlarge_nearest(job.owner, size), scores[0].cpu())
                advance("decoding", 1)
        return best.maps

    def _modulated(self, advance: Advance) -> list[ModulatedPairs]:
        """Run all modulated passes; decoding waits until the UNet is no longer needed."""
        if not list_jobs(self.coarse, self.settings):
            return []
        sampling, latents = self.settings.sampling, self.features.latents
        sigmas = make_sigmas(self.backbone.training_sigmas, sampling.num_steps)
        noised = add_noise(latents, self.features.noise, float(sigmas[self.settings.start_step]))

        def job(denoiser: Denoiser) -> list[ModulatedPairs]:
            plain = sample_plain(denoiser, noised, sigmas, self.settings)
            done = []
            for pairs in modulate(denoiser, plain, self.coarse, self.settings, self.batch):
                done.append(pairs)
                advance("modulation", len(pairs.jobs))
            return done

        return self.backbone.run(job, sampling.guidance_scale, (self.batch, *latents.shape[1:]))


def upsample_video(
    backbone: VideoBackbone, features: Features, coarse: CoarseMaps, settings: Settings, progress: Progress
) -> LabelMaps:
    """Return label maps of the frames that are not finished already, in the size of the input frames.

    In a window that is shifted back, frames that are finished take part as they are: no region is modulated in them.
    With latent blending after all steps a region that a frame lacks changes nothing in it and is not decoded there;
    with less blending it can, through the temporal layers, and is.

    Args:
        backbone: the video model.
        features: with their windows; latents and noise are denoised again.
        coarse: labels on the coarse grid of the frames that are not finished.
        settings: modulation and difference settings.
        progress: called with stages ``modulation`` (steps of regions) and ``decoding`` (regions of frames).
    """
    parts, first = [], 0
    for number, window in enumerate(features.video):
        count = window.stop - window.first_kept
        part = coarse._replace(maps=coarse.maps[first : first + count])
        share = _Share(progress, number, len(features.video))
        parts.append(_Window(backbone, features, window, part, settings).label_maps(share))
        first += count
    return LabelMaps(torch.cat(parts), coarse.regions)


class _Share:
    """Progress of one of several windows as a part of all."""

    def __init__(self, progress: Progress, number: int, count: int) -> None:
        self._progress, self._number, self._count = progress, number, count

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report ``done`` of ``total`` units of this window; windows count the same."""
        self._progress(stage, self._number * total + done, self._count * total)


class _Window:
    """One window of a video model, with coarse maps of the frames that count."""

    def __init__(
        self,
        backbone: VideoBackbone,
        features: Features,
        window: VideoWindow,
        coarse: CoarseMaps,
        settings: Settings,
    ) -> None:
        self.backbone, self.settings, self.coarse = backbone, settings, coarse
        self.window, self.frame_size = window, features.frame_size
        self.num_finished = window.first_kept - window.start
        self.latents = features.latents[window.start : window.stop]
        self.noise = features.noise[window.start : window.stop]

    def label_maps(self, progress: Progress) -> Tensor:
        """Return ``(T,H,W)`` uint8 of the frames that count."""
        difference = self.settings.difference
        best = RunningArgmax(make_initial_maps(self.coarse, self.frame_size, difference))
        pairs = self._pairs()
        done = 0
        total = sum(len(frames) for frames in pairs.values())
        for result in self._modulated(tuple(pairs), progress) if pairs else ():
            for frame in pairs[result.label]:
                index = self.num_finished + frame
                plus, minus = self.backbone.decode(torch.stack([result.plus[index], result.minus[index]]))
                mask = self.coarse.maps[frame] == result.label
                scores = score_labels(plus[None], minus[None], mask[None], self.frame_size, difference)
                best.update(frame, result.label, scores[0].cpu())
                done += 1
                progress("decoding", done, total)
        return best.maps

    def _pairs(self) -> dict[int, list[int]]:
        """Return the frames whose differences are needed, by label, labels in order."""
        keeps_uniform = self.settings.difference.precision == "8bit"
        reaches_others = self.settings.modulation.blending != "all"
        found = [set(torch.unique(cells).tolist()) for cells in self.coarse.maps]
        counted = [frame for frame, labels in enumerate(found) if len(labels) > 1 or keeps_uniform]
        present = sorted({label for frame in counted for label in found[frame]})
        return {label: [f for f in counted if reaches_others or label in found[f]] for label in present}

    def _modulated(self, labels: tuple[int, ...], progress: Progress) -> list[ModulatedWindow]:
        """Run all passes; decoding waits until the UNet is no longer needed."""
        sampling = self.settings.sampling
        sigmas = make_edm_sigmas(sampling.num_steps)
        noised = add_noise(self.latents, self.noise, float(sigmas[self.settings.start_step]))
        masks = mask_regions(self.coarse.maps, labels, self.num_finished)
        total = len(labels) * len(list_modulated_levels(sigmas, self.settings))
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            progress("modulation", done, total)

        def job(denoiser: Denoiser) -> list[ModulatedWindow]:
            return modulate_window(denoiser, noised, sigmas, masks, self.settings, advance)

        backbone = self.backbone.conditioned(self.window.conditioning, self.settings.video)
        return backbone.run(job, sampling.guidance_scale, tuple(self.latents.shape))
