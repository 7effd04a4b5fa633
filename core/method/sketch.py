"""Tokens in few dimensions, where no two are farther apart than they are: they say cheaply which are not near."""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor

_SHARE = 6
"""Components to a dimension of a sketch, about: of twenty thousand tokens of real frames some tens then stay near."""
_FIRST = 32
"""Dimensions of a short sketch: it leaves twice as many tokens near, for a third of the work."""
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
    length of a token stays as it is. Directions and lengths are computed in float64. A sketch of a sketch is one too.
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
        if not bool(torch.isfinite(exact).all()):
            return None
        shown = (sample @ exact.float()).double()
        return cls(exact @ torch.linalg.eigh(shown.T @ shown).eigenvectors.flip(1))  # the main ones first

    def draw(self, tokens: Tensor) -> Tensor:
        """Return ``(M,C)`` tokens sketched, ``(M,D+1)`` float32."""
        return torch.cat([self._draw(part.double()) for part in torch.split(tokens, _SAMPLED)])

    def _draw(self, tokens: Tensor) -> Tensor:
        shown = tokens @ self._basis
        rest = tokens.square().sum(1) - shown.square().sum(1)
        return torch.cat([shown, rest.clamp(min=0).sqrt()[:, None]], 1).float()


def shorten(drawn: Tensor) -> Tensor:
    """Return the sketch ``(M,D)`` of sketched tokens in fewer dimensions, the length of what is left out the last."""
    rest = drawn[:, _FIRST:].double().square().sum(1).sqrt()
    return torch.cat([drawn[:, :_FIRST], rest[:, None].float()], 1)


def measure_pairs(rows: Tensor, points: Tensor, ends: Tensor, columns: Tensor) -> Tensor:
    """Return products of some of ``(B,C)`` rows with some of ``(M,C)`` points, ``(P,)``, on the CPU.

    The pairs of row ``b`` are with the points ``columns[ends[b] : ends[b + 1]]``; nothing is gathered for them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)  # that the format may still change
        pairs = torch.sparse_csr_tensor(
            ends, columns, rows.new_zeros(len(columns)), (len(rows), len(points)), check_invariants=False
        )
        products: Tensor = torch.sparse.sampled_addmm(pairs, rows, points.T, beta=0.0)
    return products.values()


@cache
def can_measure_pairs() -> bool:
    """Tell whether this build of torch has what `measure_pairs` needs."""
    one = torch.ones(1, 1)
    try:
        return float(measure_pairs(one, one, torch.tensor([0, 1]), torch.tensor([0]))) == 1
    except RuntimeError:
        return False
