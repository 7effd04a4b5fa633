"""From coarse maps to full resolution with a video model, window by window (paper 4.3, SVD)."""

from __future__ import annotations

import torch
from torch import Tensor

from .backbones.protocol import Denoiser, VideoBackbone
from .backbones.schedule import edm_sigmas
from .config.settings import Settings
from .differences import RunningArgmax, initial_maps, label_scores
from .method.sampling import add_noise, modulated_levels
from .types import CoarseMaps, Features, LabelMaps, Progress, VideoWindow
from .video_modulation import ModulatedWindow, modulate_window, region_masks


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
        best = RunningArgmax(initial_maps(self.coarse, self.frame_size, difference))
        pairs = self._pairs()
        done = 0
        total = sum(len(frames) for frames in pairs.values())
        for result in self._modulated(tuple(pairs), progress) if pairs else ():
            for frame in pairs[result.label]:
                index = self.num_finished + frame
                plus, minus = self.backbone.decode(torch.stack([result.plus[index], result.minus[index]]))
                mask = self.coarse.maps[frame] == result.label
                scores = label_scores(plus[None], minus[None], mask[None], self.frame_size, difference)
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
        sigmas = edm_sigmas(sampling.num_steps)
        noised = add_noise(self.latents, self.noise, float(sigmas[self.settings.start_step]))
        masks = region_masks(self.coarse.maps, labels, self.num_finished)
        total = len(labels) * len(modulated_levels(sigmas, self.settings))
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            progress("modulation", done, total)

        def job(denoiser: Denoiser) -> list[ModulatedWindow]:
            return modulate_window(denoiser, noised, sigmas, masks, self.settings, advance)

        backbone = self.backbone.conditioned(self.window.conditioning, self.settings.video)
        return backbone.run(job, sampling.guidance_scale, tuple(self.latents.shape))
