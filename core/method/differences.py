"""Difference maps of modulated frames, their filtering, and the label of each pixel (paper 4.3, Eq. 6).

Differences are those of exact decodes at the model's size, enlarged to the frame's size as scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

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
    squares = plus.float().clamp(0, 1).sub_(minus.float().clamp(0, 1)).square_()
    red, green, blue = squares.unbind(-1)
    return (red + green).add_(blue).sqrt_()


def make_initial_maps(coarse: LabelMaps, frame_size: tuple[int, int]) -> Tensor:
    """Return the labels ``(T,*frame_size)`` uint8, on the CPU, of pixels that answer to no modulation at all.

    The label of the coarse cell they lie in, so that a frame of one label is that label.
    """
    return enlarge_nearest(coarse.maps.cpu(), frame_size).to(torch.uint8)


class RunningArgmax:
    """The label with the highest score so far, for each pixel of each frame; never holds the scores of all labels.

    Ties go to the lowest label, whatever the order of updates; a pixel whose scores are all zero keeps its initial
    label. Frames are held where their scores are.
    """

    def __init__(self, initial: Tensor) -> None:
        """Start from ``initial`` ``(T,H,W)`` uint8 (see `make_initial_maps`)."""
        require_shape("initial", initial, "T H W")
        self._labels = list(initial.clone())
        self._best: dict[int, Tensor] = {}
        self._highest: dict[int, int] = {}

    @property
    def maps(self) -> Tensor:
        """Labels ``(T,H,W)`` uint8, on the CPU."""
        return torch.stack([labels.cpu() for labels in self._labels])

    def update(self, frame: int, label: int | Tensor, scores: Tensor) -> None:
        """Take in the scores ``(H,W)``, 0 or more, of a label in a frame, or of a label for each pixel ``(H,W)``."""
        require_finite("modulated pictures", scores.amax())  # NaN would lose against any label without a word
        if frame not in self._best:
            self._best[frame] = torch.zeros_like(scores)
        best = self._best[frame]
        labels = self._labels[frame] = self._labels[frame].to(scores.device)
        candidates = torch.as_tensor(label).to(labels)
        low, high = (int(end) for end in candidates.aminmax())
        wins = scores > best
        if low < self._highest.get(frame, 0):
            wins |= (scores == best) & (scores > 0) & (candidates < labels)
        self._highest[frame] = max(high, self._highest.get(frame, 0))
        torch.maximum(best, scores, out=best)
        _replace(labels, wins, candidates)


def _replace(labels: Tensor, where: Tensor, others: Tensor) -> None:
    """Put other labels uint8 where a mask is set; by bits, since `torch.where` branches at each pixel on a CPU."""
    labels ^= (labels ^ others).bitwise_and_(where.view(torch.uint8) * 255)


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
    places = torch.arange(size, dtype=maps.dtype) - size // 2
    weights = torch.exp(-places.square() / (2 * config.blur_sigma**2))
    kernel = (weights / weights.sum()).tolist()
    padded = F.pad(maps[:, None], (size // 2,) * 4, mode="reflect")[:, 0]
    return _average(_average(padded, kernel, 2), kernel, 1)


def _average(maps: Tensor, kernel: Sequence[float], dim: int) -> Tensor:
    """Return the weighted means of neighbors along an axis; of one channel, sums are quicker than a convolution."""
    count = maps.shape[dim] - len(kernel) + 1
    blurred = maps.narrow(dim, 0, count) * kernel[0]
    for offset in range(1, len(kernel)):
        blurred.add_(maps.narrow(dim, offset, count), alpha=kernel[offset])
    return blurred


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
    return (strength * maps).mul_(1 - masks).add_(maps * masks)


def enlarge_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Return masks ``(B,h,w)`` enlarged to ``size`` with soft edges, ``(B,*size)`` float32 in [0, 1] (bicubic)."""
    rows, columns = (_enlarge_points(*sides).to(masks.device) for sides in zip(masks.shape[1:], size, strict=True))
    return (rows @ (masks.float() @ columns.T)).clamp_(0, 1)


@cache
def _enlarge_points(size: int, new: int) -> Tensor:
    """Return the matrix ``(new,size)`` of bicubic enlarging along one axis."""
    points = torch.eye(size)[None, None]
    return F.interpolate(points, (new, size), mode="bicubic", align_corners=False)[0, 0]
