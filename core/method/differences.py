"""Difference maps of modulated frames, their filtering, and the label of each pixel (paper 4.3, Eq. 6).

Differences are those of exact decodes at the model's size, enlarged to the frame's size as scores.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..config.parts import DifferenceConfig
from ..types import MAX_LABEL, LabelMaps, SettingError, require_finite, require_shape
from .enlarging import enlarge_nearest

GRAY_LEVEL = 1 / 255
"""One level of an 8-bit picture: smaller maxima are noise, which normalizing must not blow up."""


def score_labels(
    plus: Tensor,
    minus: Tensor,
    masks: Tensor,
    frame_size: tuple[int, int],
    config: DifferenceConfig,
    *,
    owners: Tensor | None = None,
) -> Tensor:
    """Score how strongly each pixel answered to the modulation (paper 4.3), ``(B,*frame_size)`` float32, 0 or more.

    Of decodes ``(B,H,W,3)``, nominally in [0, 1], with positive and negative modulation, and the coarse masks
    ``(B,h,w)`` that were modulated. ``owners`` ``(B,h,w)`` int64 tells the label that each cell speaks for where
    regions share a pass, and normalizing is per label; without, each element is one region.
    """
    require_shape("masks", masks, "B h w", B=len(plus))
    maps = blur_maps(compute_difference_map(plus, minus), config)
    size = (int(maps.shape[1]), int(maps.shape[2]))
    if config.normalize:
        maps = normalize_maps(maps, None if owners is None else enlarge_nearest(owners, size).to(maps.device))
    scores = filter_maps(maps, enlarge_masks(masks, size).to(maps), config.filter_strength)
    return F.interpolate(scores[:, None], frame_size, mode="bilinear", align_corners=False)[:, 0]


def compute_difference_map(plus: Tensor, minus: Tensor) -> Tensor:
    """Return the distance in RGB of pictures ``(B,H,W,3)`` per pixel, ``(B,H,W)`` float32 in [0, sqrt(3)] (paper 3).

    Values are clamped to [0, 1] first: the paper compares pictures, and a decode far out of range in a few pixels
    would, once normalized, scale all others of the map down.
    """
    sizes = require_shape("plus", plus, "B H W 3")
    require_shape("minus", minus, "B H W 3", **{axis: sizes[axis] for axis in "BHW"})
    difference = plus.float().clamp(0, 1) - minus.float().clamp(0, 1)
    return difference.square().sum(-1).sqrt()


def make_initial_maps(coarse: LabelMaps, frame_size: tuple[int, int]) -> Tensor:
    """Return the labels ``(T,*frame_size)`` uint8, on the CPU, of pixels that answer to no modulation at all.

    The label of the coarse cell they lie in, so that a frame of one label is that label.
    """
    return enlarge_nearest(coarse.maps.cpu(), frame_size).to(torch.uint8)


class RunningArgmax:
    """The label with the highest score so far, for each pixel of each frame; never holds the scores of all labels.

    Ties go to the lowest label, whatever the order of updates; a pixel whose scores are all zero keeps its initial
    label. ``maps`` ``(T,H,W)`` uint8 are on the CPU.
    """

    def __init__(self, initial: Tensor) -> None:
        """Start from ``initial`` ``(T,H,W)`` uint8 (see `make_initial_maps`)."""
        require_shape("initial", initial, "T H W")
        self.maps = initial.clone()
        self._best = torch.zeros(initial.shape, dtype=torch.float64)

    def update(self, frame: int, label: int | Tensor, scores: Tensor) -> None:
        """Take in the scores ``(H,W)``, 0 or more, of a label in a frame, or of a label for each pixel ``(H,W)``."""
        require_finite("modulated pictures", scores.amax())  # NaN would lose against any label without a word
        best, labels = self._best[frame], self.maps[frame]
        scores = scores.to(best)
        candidates = torch.as_tensor(label).to(labels).expand(labels.shape)
        wins = (scores > best) | ((scores == best) & (scores > 0) & (candidates < labels))
        best[wins], labels[wins] = scores[wins], candidates[wins]


def blur_maps(maps: Tensor, config: DifferenceConfig) -> Tensor:
    """Blur maps ``(B,H,W)`` with a Gaussian window; beyond the border they are mirrored without repeating the edge.

    Equal to OpenCV's ``GaussianBlur`` with ``BORDER_REFLECT_101``.
    """
    size = config.blur_size
    if size % 2 == 0 or size // 2 >= min(maps.shape[1:]):
        limit = 2 * min(maps.shape[1:]) - 1
        wanted = f"be odd and at most {limit} for these frames"
        raise SettingError("difference.blur_size", wanted, size, "Lower it")
    if size == 1:
        return maps
    places = torch.arange(size, dtype=maps.dtype, device=maps.device) - size // 2
    kernel = torch.exp(-places.square() / (2 * config.blur_sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(maps[:, None], (size // 2,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, size))
    return F.conv2d(rows, kernel.view(1, 1, size, 1))[:, 0]


def normalize_maps(maps: Tensor, owners: Tensor | None = None) -> Tensor:
    """Divide each of the maps ``(B,H,W)`` by its maximum, or by one gray level if that is larger.

    With ``owners`` ``(B,H,W)`` int64 in [0, 255], each pixel by the maximum of the pixels with its owner.

    >>> normalize_maps(torch.tensor([[[0.0, 0.5]]])).tolist()
    [[[0.0, 1.0]]]
    """
    if owners is None:
        return maps / maps.amax((1, 2), keepdim=True).clamp(min=GRAY_LEVEL)
    flat = owners.flatten(1)
    largest = maps.new_zeros(len(maps), MAX_LABEL + 1).scatter_reduce_(1, flat, maps.flatten(1), "amax")
    return maps / largest.gather(1, flat).reshape(maps.shape).clamp(min=GRAY_LEVEL)


def filter_maps(maps: Tensor, masks: Tensor, strength: float) -> Tensor:
    """Weigh difference maps ``(B,H,W)`` by ``strength`` outside the masks, soft ones of [0, 1] (paper Eq. 6)."""
    return maps * masks + strength * maps * (1 - masks)


def enlarge_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Return masks ``(B,h,w)`` enlarged to ``size`` with soft edges, ``(B,*size)`` float32 in [0, 1] (bicubic)."""
    soft = F.interpolate(masks[:, None].float(), size, mode="bicubic", align_corners=False)
    return soft[:, 0].clamp(0, 1)
