"""Difference maps of modulated frames, their filtering, and the label of each pixel (paper 4.3, Eq. 6).

Two ways to the scores of a label, by `DifferenceConfig.precision`:

- ``float``: differences of exact decodes at the model's size, enlarged to the frame's size as scores;
- ``8bit``: the reference code to the bit (see `eight_bit`), for comparison only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..config.parts import DifferenceConfig
from ..types import LabelMaps, list_labels, require_finite, require_shape
from .enlarging import enlarge_nearest
from .filters import blur_maps, enlarge_masks, filter_maps, normalize_maps
from .published import score_eight_bit


def score_labels(
    plus: Tensor,
    minus: Tensor,
    masks: Tensor,
    frame_size: tuple[int, int],
    config: DifferenceConfig,
    *,
    owners: Tensor | None = None,
) -> Tensor:
    """Score each pixel of each element: how strongly it answered to the modulation (paper 4.3).

    Args:
        plus: ``(B,H,W,3)`` decodes with positive modulation, nominally in [0, 1].
        minus: the same with negative modulation.
        masks: ``(B,h,w)`` boolean, coarse masks that were modulated.
        frame_size: ``(H, W)`` of the result, pixels.
        config: difference settings.
        owners: ``(B,h,w)`` int64, the label that each cell speaks for, where regions share a pass; normalizing is per
            label. None: each element is one region.

    Returns:
        ``(B,*frame_size)`` scores of 0 or more: float32 on the device of ``plus``, or float64 on the CPU with
        ``8bit``.

    Raises:
        InputError: shapes do not fit.
    """
    require_shape("masks", masks, "B h w", B=len(plus))
    if config.precision == "8bit":
        return score_eight_bit(plus, minus, masks, frame_size, config)
    maps = blur_maps(compute_difference_map(plus, minus), config)
    size = (int(maps.shape[1]), int(maps.shape[2]))
    if config.normalize:
        maps = normalize_maps(maps, None if owners is None else enlarge_nearest(owners, size).to(maps.device))
    scores = filter_maps(maps, enlarge_masks(masks, size).to(maps), config.filter_strength)
    return F.interpolate(scores[:, None], frame_size, mode="bilinear", align_corners=False)[:, 0]


def compute_difference_map(plus: Tensor, minus: Tensor) -> Tensor:
    """Return the Euclidean distance in RGB of two pictures, per pixel (paper 3).

    Values are clamped to [0, 1] first: the paper compares pictures, and a decode far out of range in a few pixels
    would, once normalized, scale all others of the map down.

    Args:
        plus: ``(B,H,W,3)``.
        minus: ``(B,H,W,3)``.

    Returns:
        ``(B,H,W)`` float32 in [0, sqrt(3)].

    Raises:
        InputError: shapes differ or are not pictures.
    """
    sizes = require_shape("plus", plus, "B H W 3")
    require_shape("minus", minus, "B H W 3", **{axis: sizes[axis] for axis in "BHW"})
    difference = plus.float().clamp(0, 1) - minus.float().clamp(0, 1)
    return difference.square().sum(-1).sqrt()


def make_initial_maps(coarse: LabelMaps, frame_size: tuple[int, int], config: DifferenceConfig) -> Tensor:
    """Return the labels ``(T,*frame_size)`` uint8, on the CPU, of pixels that answer to no modulation at all.

    The label of the coarse cell they lie in, so that a frame of one label is that label. Reference code (``8bit``): the
    lowest label of all, whether it occurs in the frame or not.
    """
    if config.precision == "8bit":
        return torch.full((len(coarse.maps), *frame_size), min(list_labels(coarse.regions)), dtype=torch.uint8)
    return enlarge_nearest(coarse.maps.cpu(), frame_size).to(torch.uint8)


class RunningArgmax:
    """The label with the highest score so far, for each pixel of each frame; never holds the scores of all labels.

    Ties go to the lowest label, whatever the order of updates; a pixel whose scores are all zero keeps its initial
    label.

    Attributes:
        maps: ``(T,H,W)`` uint8 labels, on the CPU.
    """

    def __init__(self, initial: Tensor) -> None:
        """Start from ``initial`` ``(T,H,W)`` uint8 (see `make_initial_maps`)."""
        require_shape("initial", initial, "T H W")
        self.maps = initial.clone()
        self._best = torch.zeros(initial.shape, dtype=torch.float64)

    def update(self, frame: int, label: int | Tensor, scores: Tensor) -> None:
        """Take in the scores ``(H,W)``, 0 or more, of a label in a frame, or of a label for each pixel ``(H,W)``.

        Raises:
            InputError: a score is NaN, since the decode was: it would lose against any label without a word.
        """
        require_finite("modulated pictures", scores.amax())
        best, labels = self._best[frame], self.maps[frame]
        scores = scores.to(best)
        candidates = torch.as_tensor(label).to(labels).expand(labels.shape)
        wins = (scores > best) | ((scores == best) & (scores > 0) & (candidates < labels))
        best[wins], labels[wins] = scores[wins], candidates[wins]
