"""Tokens in few dimensions, where no two are farther apart than they are: they say cheaply which are not near."""

from __future__ import annotations

import torch
from torch import Tensor

_SHARE = 6
"""Components to a dimension of a sketch, about: of twenty thousand tokens of real frames some tens then stay near."""
_STEP = 16
"""Dimensions are a multiple of it."""
_LEAST_TOKENS, _LEAST_COMPONENTS = 4096, 256
"""From which on a sketch pays."""
_SAMPLED = 2048
"""Tokens, evenly spread, of which the directions are found, and rows that are sketched at once."""
_ROUNDS = 3
"""Of subspace iteration: directions need only be good, not exact."""


class Sketch:
    """A projection of ``(M,C)`` float32 tokens on their main directions, with what is left of each as one more number.

    For tokens ``x`` and ``y`` with projections ``p``, ``q`` and lengths of the rest ``r``, ``s``, Pythagoras and the
    triangle inequality give ``|x - y|^2 >= |p - q|^2 + (r - s)^2``: squared distances of ``(p, r)`` and ``(q, s)``. The
    length of a token stays as it is. Directions and lengths are computed in float64.
    """

    def __init__(self, basis: Tensor) -> None:
        self._basis = basis  # (C,D) float64

    @classmethod
    def of(cls, tokens: Tensor) -> Sketch | None:
        """Return the sketch for centered tokens, or None where it would not pay."""
        count, components = tokens.shape
        size = -(-components // _SHARE // _STEP) * _STEP
        if tokens.device.type != "cpu" or count < _LEAST_TOKENS or components < _LEAST_COMPONENTS:
            return None
        sample = tokens[:: -(-count // _SAMPLED)]
        basis = torch.randn(components, size, generator=torch.Generator().manual_seed(0))
        for _ in range(_ROUNDS):
            basis = torch.linalg.qr((sample.T @ (sample @ basis)).double()).Q.float()
        exact = torch.linalg.qr(basis.double()).Q
        return cls(exact) if bool(torch.isfinite(exact).all()) else None

    def draw(self, tokens: Tensor) -> Tensor:
        """Return ``(M,C)`` tokens sketched, ``(M,D+1)`` float32."""
        return torch.cat([self._draw(part.double()) for part in torch.split(tokens, _SAMPLED)])

    def _draw(self, tokens: Tensor) -> Tensor:
        shown = tokens @ self._basis
        rest = tokens.square().sum(1) - shown.square().sum(1)
        return torch.cat([shown, rest.clamp(min=0).sqrt()[:, None]], 1).float()
