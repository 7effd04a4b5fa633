"""Scores from differences of 8-bit pictures: the reference code to the bit, faults included, for comparison only.

Decodes are truncated to 8 bit and enlarged before they are compared, squared differences wrap at 256, maps are
truncated to integers and pass through JPEG. Needs Pillow.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..config.parts import DifferenceConfig
from ..types import require_finite
from .filters import blur_maps, filter_maps

_TINY = 1e-5
"""Added to each maximum before dividing by it."""
_JPEG_QUALITY = 75
"""Pillow's default."""
_WEIGHT_ONE = 2048
"""OpenCV resizes with weights in units of 1/2048."""


def score_eight_bit(
    plus: Tensor, minus: Tensor, masks: Tensor, frame_size: tuple[int, int], config: DifferenceConfig
) -> Tensor:
    """Score each pixel of each element as the reference code does (paper 4.3).

    Args:
        plus: ``(B,H,W,3)`` decodes with positive modulation, nominally in [0, 1].
        minus: the same with negative modulation.
        masks: ``(B,h,w)`` boolean, coarse masks that were modulated.
        frame_size: ``(H, W)`` of the result, pixels.
        config: difference settings.

    Returns:
        ``(B,*frame_size)`` float64 on the CPU, 0 or more.
    """
    return score_jpeg_maps(compute_jpeg_maps(plus, minus, frame_size, config), masks, config)


def compute_jpeg_maps(plus: Tensor, minus: Tensor, frame_size: tuple[int, int], config: DifferenceConfig) -> Tensor:
    """Return difference maps as the reference code stores them, ``(B,*frame_size)`` uint8 on the CPU.

    Args:
        plus: ``(B,H,W,3)`` decodes, nominally in [0, 1].
        minus: ``(B,H,W,3)`` decodes.
        frame_size: ``(H, W)`` of the result, pixels.
        config: difference settings.
    """
    difference = resize(quantize(plus), frame_size) - resize(quantize(minus), frame_size)  # wraps at 256
    squares = difference * difference  # wraps as well
    maps = blur_maps(squares.sum(-1, dtype=torch.int64).double().sqrt(), config)  # at most sqrt(3 * 255)
    return torch.stack([_through_jpeg(levels) for levels in maps.to(torch.uint8)])


def score_jpeg_maps(maps: Tensor, masks: Tensor, config: DifferenceConfig) -> Tensor:
    """Return scores ``(B,H,W)`` float64 of stored maps ``(B,H,W)`` uint8 and coarse masks ``(B,h,w)`` (Eq. 6)."""
    size = (int(maps.shape[1]), int(maps.shape[2]))
    scores = maps.double()
    if config.normalize:
        scores = scores / (scores.amax((1, 2), keepdim=True) + _TINY)
    if config.filter_strength == 1:
        return scores
    return filter_maps(
        scores, torch.stack([_enlarge_lanczos(mask, size) for mask in masks.cpu()]), config.filter_strength
    )


def quantize(frames: Tensor) -> Tensor:
    """Return frames, nominally in [0, 1], clamped and truncated to uint8, on the CPU.

    Raises:
        InputError: a value is NaN or infinite.
    """
    values = frames.detach().cpu().float()
    require_finite("modulated pictures", values)
    return (values.clamp(0, 1) * 255).to(torch.uint8)


def resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Return 8-bit frames ``(B,H,W,3)`` as ``(B,*size,3)``, bilinearly in the fixed-point arithmetic of OpenCV.

    Sixteen bits are dropped from the product of each row before the rows are added, as `cv2.resize` does.
    """
    height, width = size
    if tuple(frames.shape[1:3]) == (height, width):
        return frames
    upper, lower, upper_weight, lower_weight = _weights(int(frames.shape[1]), height, clip_weights=False)
    left, right, left_weight, right_weight = _weights(int(frames.shape[2]), width, clip_weights=True)
    values = frames.long()
    rows = (values[:, :, left] * left_weight[:, None] + values[:, :, right] * right_weight[:, None]) >> 4
    top = rows[:, upper] * upper_weight[:, None, None] >> 16
    bottom = rows[:, lower] * lower_weight[:, None, None] >> 16
    return (top + bottom + 2 >> 2).to(torch.uint8)


def _weights(old: int, new: int, *, clip_weights: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return for each of ``new`` places two indices into ``old`` ones and their weights, ``(new,)`` int64.

    Beyond the outermost pixels both indices are the same; OpenCV then gives all weight to one (``clip_weights``) along
    a row but not down a column.
    """
    centers = ((torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5).float()
    first = centers.floor()
    fraction = centers - first
    if clip_weights:
        fraction[(first < 0) | (first >= old - 1)] = 0
    first = first.long()
    before, after = (torch.round(part * _WEIGHT_ONE).long() for part in (1 - fraction, fraction))
    return first.clamp(0, old - 1), (first + 1).clamp(0, old - 1), before, after


def _through_jpeg(levels: Tensor) -> Tensor:
    """Return ``(H,W)`` uint8 after writing and reading it as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(levels.numpy()).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return torch.from_numpy(np.array(Image.open(buffer)))


def _enlarge_lanczos(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a mask ``(h,w)`` enlarged to ``size`` with 8-bit precision, float64 in [0, 1]."""
    picture = Image.fromarray(mask.to(torch.uint8).mul(255).numpy())
    enlarged = picture.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(enlarged, dtype=np.float64)) / 255
