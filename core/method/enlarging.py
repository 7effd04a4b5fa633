"""Coarse maps enlarged without the model: nearest, bilinear, or along the edges of the picture (ours)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..config.parts import EnlargingConfig
from ..types import Features, InputError, LabelMaps, Progress, list_labels, no_progress, require_shape

LABELS_AT_A_TIME = 4
"""Labels filtered in one call: bounds the memory."""


def enlarge_guided(cells: Tensor, picture: Tensor, frame_size: tuple[int, int], config: EnlargingConfig) -> Tensor:
    """Return the label of each pixel: that whose coarse mask, filtered along the picture's edges, is largest.

    Of cells ``(h,w)`` int64 and the picture ``(H,W,3)`` uint8 as the model saw it, ``(*frame_size)`` uint8 on the CPU;
    ties go to the smallest label.

    Guided filter (He, Sun & Tang, TPAMI 2013) with the colors of the picture as guide; kornia's implementation.
    """
    require_shape("picture", picture, "H W 3")
    labels = torch.unique(cells).to(picture.device)
    if len(labels) == 1:
        return torch.full(frame_size, int(labels[0]), dtype=torch.uint8)
    guide = picture.movedim(-1, 0)[None].float() / 255
    best = torch.full(frame_size, -torch.inf, device=picture.device)
    chosen = torch.zeros(frame_size, dtype=torch.uint8, device=picture.device)
    for group in torch.split(labels, LABELS_AT_A_TIME):
        masks = (cells.to(picture.device) == group[:, None, None]).float()[None]
        scores, indices = _filter_masks(masks, guide, frame_size, config).max(0)
        wins = scores > best
        best[wins], chosen[wins] = scores[wins], group.to(torch.uint8)[indices[wins]]
    return chosen.cpu()


def _filter_masks(masks: Tensor, guide: Tensor, frame_size: tuple[int, int], config: EnlargingConfig) -> Tensor:
    """Return masks ``(1,L,h,w)`` at ``frame_size``, filtered along the edges of ``guide`` ``(1,3,H,W)``."""
    from kornia.filters import guided_blur  # noqa: PLC0415, takes a second to import

    enlarged = F.interpolate(masks, guide.shape[2:], mode="bilinear", align_corners=False)
    smooth = guided_blur(
        guide, enlarged, 2 * config.guided_radius + 1, config.guided_epsilon, subsample=config.guided_subsample
    )
    return F.interpolate(smooth, frame_size, mode="bilinear", align_corners=False)[0]


def enlarge_maps(
    coarse: LabelMaps, features: Features, config: EnlargingConfig, progress: Progress = no_progress
) -> LabelMaps:
    """Return coarse maps enlarged without the model; ``features`` are of the same frames."""
    if config.method == "bilinear":
        return enlarge_bilinear(coarse, progress)
    if features.pictures is None:
        raise InputError("`features` must hold the pictures for guided upsampling. Extract the features again.")
    maps = []
    for index, (cells, picture) in enumerate(zip(coarse.maps, features.pictures, strict=True)):
        maps.append(enlarge_guided(cells, picture, features.frame_size, config))
        progress("upsampling", index + 1, len(coarse.maps))
    return LabelMaps(torch.stack(maps), coarse.regions)


def enlarge_bilinear(coarse: LabelMaps, progress: Progress = no_progress) -> LabelMaps:
    """Enlarge coarse maps: bilinear per label, the largest wins, ties to the smallest label.

    ``progress`` is called with stage ``upsampling`` in frames.
    """
    maps = []
    for frame in coarse.maps.cpu():
        best = torch.zeros(coarse.frame_size)
        chosen = torch.zeros(coarse.frame_size, dtype=torch.uint8)
        for label in list_labels(coarse.regions):
            mask = (frame == label).float()[None, None]
            score = F.interpolate(mask, coarse.frame_size, mode="bilinear", align_corners=False)[0, 0]
            chosen[score > best] = label
            best = torch.maximum(best, score)
        maps.append(chosen)
        progress("upsampling", len(maps), len(coarse.maps))
    return LabelMaps(torch.stack(maps), coarse.regions)


def enlarge_nearest(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Return labels ``(...,h,w)`` enlarged to ``size`` without interpolation: each pixel has that of its cell."""
    flat = cells.reshape(-1, 1, *cells.shape[-2:]).double()
    return F.interpolate(flat, size, mode="nearest-exact").reshape(*cells.shape[:-2], *size).to(cells.dtype)
