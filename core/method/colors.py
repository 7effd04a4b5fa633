"""How well the colors of pixels fit those of a leaf: a normal distribution for each leaf of a frame (ours)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..config.parts import EnlargingConfig
from ..types import MAX_LABEL
from .guided import GuidedFilter, Patch, shift

LEAST_ANSWER = 1 / (MAX_LABEL + 1)
"""Answers below it are left out: those for all leaves add up to 1, so the strongest at a pixel is never so small."""
FARTHEST = 30.0
"""Squared deviation from which on no color fits worse: where none fits, the filter's answers decide."""
KEPT_ROW = 4
"""Colors of a leaf are taken from every so many rows: more do not change its distribution."""
_ONE, _TWO = [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]
_TWICE = np.array([1, 2, 2, 1, 2, 1])


class ColorGuidedFilter(GuidedFilter):
    """A guided filter of leaves whose answers are weighed by the colors of the picture ``(H,W,3)`` uint8.

    A leaf is small, so its colors are those of about one thing. Their mean and covariance are taken where the filter
    answers, weighted by the answers, which are then multiplied by the density: a model of GrabCut (Rother et al. 2004)
    with one component and soft masks. The guided filter alone draws a border near an edge, this one on it.
    """

    def __init__(
        self, picture: Tensor, grid: tuple[int, int], frame_size: tuple[int, int], config: EnlargingConfig
    ) -> None:
        super().__init__(picture, grid, frame_size, config)
        self._terms = torch.ones(len(picture), 10, picture.shape[1])  # filled in place: fresh memory takes longest
        colors = self._terms[:, 1:4]
        torch.sub(self._guide, self._guide.mean((0, 2), keepdim=True), out=colors)  # products lose fewer digits
        for product, one, two in zip(self._terms[:, 4:].unbind(1), _ONE, _TWO, strict=True):
            torch.mul(colors[:, one], colors[:, two], out=product)
        self._least = config.color_spread**2

    def filter_picture(self, mask: Tensor) -> Patch:
        """Return answers for a mask ``(h,w)`` times how well their pixels fit, at most 1; 0 where they are small."""
        patch = super().filter_picture(mask)
        strong = (patch.values > LEAST_ANSWER).numpy()  # whose `any` is several times as fast as torch's
        inner = [np.flatnonzero(strong.any(axis)) for axis in (1, 0)]
        if not len(inner[0]):
            nothing = slice(0, 1)
            return Patch(nothing, nothing, torch.zeros(1, 1))
        rows, columns = (slice(int(places[0]), int(places[-1]) + 1) for places in inner)
        answers = patch.values[rows, columns].clamp(min=0)
        rows, columns = shift(rows, -patch.rows.start), shift(columns, -patch.columns.start)
        terms = self._terms[rows, :, columns]
        sums = (terms[::KEPT_ROW] @ answers[::KEPT_ROW, :, None]).sum(0)[:, 0]
        factors, scale = _fit(sums.double().numpy(), self._least)
        deviations = torch.from_numpy(factors).to(terms) @ terms
        return Patch(rows, columns, deviations.clamp_(max=FARTHEST).mul_(-0.5).exp_().mul_(answers).mul_(scale))


def _fit(sums: np.ndarray, least: float) -> tuple[np.ndarray, float]:
    """Return what squared deviations have of each term ``(10,)``, and the density at the mean, from the terms' sums."""
    means = sums[1:] / max(sums[0], 1e-12)
    mean, covariance = means[:3], np.zeros((3, 3))
    covariance[_ONE, _TWO] = covariance[_TWO, _ONE] = means[3:]
    covariance += least * np.eye(3) - np.outer(mean, mean)
    inverse = np.linalg.inv(covariance)
    slope = inverse @ mean
    factors = np.concatenate([[slope @ mean], -2 * slope, inverse[_ONE, _TWO] * _TWICE])
    return factors, math.sqrt(least**3 / np.linalg.det(covariance))
