"""Carry marked parts of one frame to the others by the features alone.

Each cell takes the weighted label of its most similar context cells, which lie near it in the frames before it and in
the marked part of the marked frame (label propagation as in DIFT and STC, with the paper's features). No diffusion.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .config_results import CarryConfig
from .types import Grid, InputError, require_finite, require_shape

_SAMPLE = 8192
"""Tokens that the main directions are computed from."""
_CHUNK_ELEMENTS = 2**23
"""Components of gathered context cells held at once: 32 MiB in float32."""


def unit_tokens(queries: Tensor, num_components: int) -> Tensor:
    """Return tokens in their main directions, of unit length, so that products are cosine similarities.

    Args:
        queries: ``(T,N,C)`` float32.
        num_components: directions kept; all if there are no more.

    Returns:
        ``(T,N,min(C,num_components))`` float32 on the CPU.

    Raises:
        InputError: the shape is wrong, or a token is NaN or infinite.
    """
    size = require_shape("queries", queries, "T N C")
    tokens = queries.float().cpu()
    if size["C"] > num_components:
        flat = tokens.flatten(0, 1)
        sample = F.normalize(flat[:: max(1, len(flat) // _SAMPLE)], dim=-1).nan_to_num().double()
        _, vectors = torch.linalg.eigh(sample.T @ sample)
        tokens = tokens @ vectors[:, -num_components:].float()
    require_finite("queries", tokens)  # NaN and infinity survive the product
    return F.normalize(tokens, dim=-1)


def carried_shares(
    tokens: Tensor, grid: Grid, start: Tensor, frame: int, config: CarryConfig, *, both_ways: bool = False
) -> Tensor:
    """Carry parts that are marked in one frame to the frames after it, or to all.

    Args:
        tokens: ``(T,N,C)`` float32 of unit length, see `unit_tokens`.
        grid: size of the coarse grid, ``N = h*w``.
        start: ``(N,P)`` float32, share of each part in each cell of the marked frame, in [0, 1], at most 1 together.
        frame: the marked frame.
        config: context and neighbours.
        both_ways: also to the frames before it; else those stay empty.

    Returns:
        ``(T,N,P)`` float32 shares of the parts.

    Raises:
        InputError: shapes disagree, or there is no such frame.
    """
    size = require_shape("tokens", tokens, "T N C", N=grid.num_tokens)
    parts = require_shape("start", start, "N P", N=grid.num_tokens)["P"]
    if not 0 <= frame < size["T"]:
        raise InputError(f"`frame` must lie in [0, {size['T'] - 1}], but got {frame}. Choose a frame of the clip.")
    shares = tokens.new_zeros(size["T"], size["N"], parts)
    shares[frame] = start
    walk = _Walk(tokens, grid, shares, frame, config)
    for current in range(frame + 1, size["T"]):
        walk.label(current, -1)
    for current in range(frame - 1, -1, -1) if both_ways else ():
        walk.label(current, 1)
    return shares


class _Walk:
    """Labels frame after frame from the marked one on; ``shares`` fills up."""

    def __init__(self, tokens: Tensor, grid: Grid, shares: Tensor, frame: int, config: CarryConfig) -> None:
        self.tokens, self.shares, self.frame, self.config = tokens, shares, frame, config
        self.grid = grid
        self.nearby, self.outside = neighborhoods(grid, config.radius)
        marked = (shares[frame].sum(1) > 0).reshape(1, 1, *grid).float()
        margin = 2 * config.anchor_margin + 1
        self.anchor = F.max_pool2d(marked, margin, stride=1, padding=config.anchor_margin).flatten().nonzero()[:, 0]

    def label(self, current: int, step: int) -> None:
        """Label frame ``current``, whose context lies in the direction of ``step`` (-1: before it)."""
        reach = min(self.config.num_frames, abs(current - self.frame))
        context = [current + step * distance for distance in range(1, reach + 1)]
        known = self.shares[context]  # (m,N,P)
        most, least = (self._around(extreme) for extreme in (known.amax(0), -known.amin(0)))
        self.shares[current] = (-least >= 1).float()  # all around belongs to the part, and stays so
        open_cells = ((most > 0).any(1) & (-least < 1).all(1)).nonzero()[:, 0]
        chunk = max(1, _CHUNK_ELEMENTS // (self.nearby.shape[1] * reach * self.tokens.shape[2]))
        for cells in torch.split(open_cells, chunk):
            self.shares[current, cells] = self._votes(self.tokens[current, cells], cells, context, known)

    def _around(self, values: Tensor) -> Tensor:
        """Return the largest of ``values`` ``(N,P)`` within the radius of each cell."""
        side = 2 * self.config.radius + 1
        planes = values.T.reshape(1, -1, *self.grid)
        return F.max_pool2d(planes, side, stride=1, padding=self.config.radius).reshape(values.shape[1], -1).T

    def _votes(self, queries: Tensor, cells: Tensor, context: list[int], known: Tensor) -> Tensor:
        """Return ``(B,P)`` shares of ``cells`` ``(B,)`` with tokens ``queries`` ``(B,C)``."""
        nearby, outside = self.nearby[cells], self.outside[cells]
        keys = self.tokens[context][:, nearby]  # (m,B,O,C)
        cosines = torch.einsum("bc,mboc->bmo", queries, keys).masked_fill_(outside[:, None], -2).flatten(1)
        labels = known[:, nearby].movedim(1, 0).flatten(1, 2)  # (m,B,O,P) -> (B,m*O,P)
        if abs(context[0] - self.frame) > 0:
            far = queries @ self.tokens[self.frame, self.anchor].T
            cosines = torch.cat([cosines, far], 1)
            marked = self.shares[self.frame, self.anchor]
            labels = torch.cat([labels, marked.expand(len(cells), *marked.shape)], 1)
        nearest = cosines.topk(min(self.config.num_neighbors, cosines.shape[1]), dim=1)
        weights = (nearest.values / self.config.temperature).softmax(1)
        picked = labels.gather(1, nearest.indices[..., None].expand(-1, -1, labels.shape[2]))
        return (weights[..., None] * picked).sum(1)


def neighborhoods(grid: Grid, radius: int) -> tuple[Tensor, Tensor]:
    """Return for each cell the cells within ``radius`` rows and columns ``(N,O)``, and which are beyond the border."""
    reach = torch.arange(-radius, radius + 1)
    down, right = (moves.flatten() for moves in torch.meshgrid(reach, reach, indexing="ij"))
    cells = torch.arange(grid.num_tokens)
    rows, columns = cells[:, None] // grid.w + down, cells[:, None] % grid.w + right
    outside = (rows < 0) | (rows >= grid.h) | (columns < 0) | (columns >= grid.w)
    return rows.clamp(0, grid.h - 1) * grid.w + columns.clamp(0, grid.w - 1), outside
