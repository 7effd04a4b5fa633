"""How well the colors of pixels fit those of a leaf: a normal distribution for each leaf of a frame (ours)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..config.parts import EnlargingConfig
from ..types import MAX_LABEL
from .guided import GuidedFilter
from .patches import Patch, cut_patch, find_spans, join_spans

LEAST_ANSWER = 1 / (MAX_LABEL + 1)
"""Answers below it are left out: those for all leaves add up to 1, so the strongest at a pixel is never so small."""
FARTHEST = 30.0
"""Squared deviation from which on no color fits worse: where none fits, the filter's answers decide."""
KEPT_ROW = 4
"""Colors of a leaf are taken from every so many rows of a picture: more do not change its distribution."""
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
        height, width, _ = picture.shape
        self._terms = torch.ones(height, 10, width, device=self.device)  # filled in place: fresh memory takes longest
        colors = self._terms[:, 1:4]
        torch.sub(self._guide, self._guide.mean((0, 2), keepdim=True), out=colors)  # products lose fewer digits
        for product, one, two in zip(self._terms[:, 4:].unbind(1), _ONE, _TWO, strict=True):
            torch.mul(colors[:, one], colors[:, two], out=product)
        self._least = config.color_spread**2

    def _split(self, rows: slice, columns: slice, values: Tensor) -> list[Patch]:
        """Return the answers ``(r,n,c)`` of a group, mask by mask, where they are not small."""
        strong = (values > LEAST_ANSWER).numpy()  # NumPy's `any` is several times as fast as torch's
        spans = find_spans(np.any(strong, 2).T, np.any(strong, 0))
        around = join_spans(spans)
        rows, columns, answers = cut_patch(Patch(rows, columns, values), around)
        patches = (Patch(rows, columns, answer) for answer in self._weigh(rows, columns, answers).unbind(1))
        return [cut_patch(*each) for each in zip(patches, spans - around[:, :1], strict=True)]

    def _weigh(self, rows: slice, columns: slice, answers: Tensor) -> Tensor:
        """Return answers ``(r,n,c)`` times how well their pixels fit, at most 1; 0 where they are small."""
        answers = torch.threshold(answers, LEAST_ANSWER, 0)
        terms = self._terms[rows, :, columns]
        some = slice(-rows.start % KEPT_ROW, None, KEPT_ROW)
        sums = (terms[some] @ answers[some].transpose(1, 2)).sum(0).T
        factors, scale = _fit(sums.cpu().double().numpy(), self._least)
        deviations = torch.from_numpy(factors).to(terms) @ terms
        weighed = deviations.clamp_(max=FARTHEST).mul_(-0.5).exp_().mul_(answers)
        weighed *= torch.from_numpy(scale).to(terms)[:, None]
        return weighed


def _fit(sums: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Return what squared deviations have of each term ``(n,10)``, and densities at the means, from the terms' sums."""
    means = sums[:, 1:] / sums[:, :1].clip(min=1e-12)
    mean, covariance = means[:, :3], np.zeros((len(sums), 3, 3))
    covariance[:, _ONE, _TWO] = covariance[:, _TWO, _ONE] = means[:, 3:]
    covariance += least * np.eye(3) - mean[:, :, None] * mean[:, None]
    inverse = np.linalg.inv(covariance)
    slope = (inverse @ mean[:, :, None])[..., 0]
    factors = np.concatenate([(slope * mean).sum(1, keepdims=True), -2 * slope, inverse[:, _ONE, _TWO] * _TWICE], 1)
    return factors, np.sqrt(least**3 / np.linalg.det(covariance))
