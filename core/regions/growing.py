"""Hyperparameters of what is done with results, and of baselines; each with its source.

What is done: corrections, instances, scene files. "measured" stands for the six DAVIS clips of
`benchmarks/corrections.py` with the bundled model, "chosen" for a value of ours that no measurement backs. How masks
are finished is what the user asks for: `masks.Finish`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from scipy.ndimage import label as connected  # scikit-learn brings SciPy
from torch import Tensor

from ..types import Grid
from .propagation import list_neighborhoods


@dataclass(frozen=True)
class GrowthConfig:
    """How a part is grown from points: local clustering by personalized PageRank and a sweep over the conductance.

    Andersen, Chung, Lang: Local Graph Partitioning using PageRank Vectors (2006).
    """

    temperature: float = 0.1
    """Of the similarity of adjacent cells (measured)."""
    restart: float = 0.2
    """Probability of a walk to start again at the points (measured)."""
    min_cells: int = 4
    """Smallest part (measured: 4 to 8 give the same)."""
    max_share: float = 0.25
    """Largest part, as a share of the frame: things, not backgrounds (chosen)."""
    num_steps: int = 80
    """Steps of the walk; what is missing to its limit is below 2e-8."""
    spot_weight: float = 10.0
    """Pull of a corrected point against one cell of the region it lies on (measured)."""
    box_margin: int = 6
    """Cells around a box that count as what surrounds it (measured)."""
    box_neighbors: int = 3
    """Most similar cells that say what a cell of the box looks like (measured)."""
    box_rounds: int = 5
    """Rounds in which the thing in a box is told from what surrounds it (chosen)."""


_ALL_AROUND = torch.ones(3, 3).numpy()
"""Pixels that touch at a corner are connected."""


def find_piece(label_map: Tensor, row: int, column: int) -> Tensor:
    """Return the connected piece ``(H,W)`` bool of the region of ``label_map`` ``(H,W)`` that holds a pixel.

    Pixels that touch at a corner are connected.

    >>> find_piece(torch.tensor([[1, 0, 1], [1, 0, 1]]), 0, 2).long().tolist()
    [[0, 0, 1], [0, 0, 1]]
    """
    same = label_map == label_map[row, column]
    pieces = torch.from_numpy(connected(same.cpu().numpy(), _ALL_AROUND)[0])
    return pieces == pieces[row, column]


def reduce_mask(mask: Tensor, grid: Grid) -> Tensor:
    """Return which share of each cell masks ``(...,H,W)`` cover, ``(...,N)`` float32."""
    planes = mask.float().reshape(-1, *mask.shape[-2:])
    return F.adaptive_avg_pool2d(planes, (grid.h, grid.w)).reshape(*mask.shape[:-2], -1)


class Walker:
    """Walks from cell to adjacent cell of one frame, rather to similar ones, and at times from the start again."""

    def __init__(self, tokens: Tensor, grid: Grid, config: GrowthConfig) -> None:
        """Weigh the connections of adjacent cells by tokens ``(N,C)``, less the mean of the clip to tell them apart."""
        self._grid, self._config = grid, config
        self._nearby, outside = list_neighborhoods(grid, 1)
        outside = outside | (self._nearby == torch.arange(grid.num_tokens)[:, None])
        unit = F.normalize(tokens, dim=-1)
        cosines = torch.einsum("nc,noc->no", unit, unit[self._nearby])
        self._links = ((cosines - 1) / config.temperature).exp().masked_fill(outside, 0).double()
        self._degrees = self._links.sum(1).clamp_min(1e-300)

    def count_visits(self, start: Tensor) -> Tensor:
        """Return how often ``(N,)`` a walk from cells of weights ``(N,)`` is at each cell, by its connections."""
        restart, first = self._config.restart, start.double() / start.double().sum()
        steps, visits = self._links / self._degrees[:, None], first
        for _ in range(self._config.num_steps):
            moved = (visits[:, None] * steps).flatten()
            visits = restart * first + (1 - restart) * torch.zeros_like(visits).index_add_(
                0, self._nearby.flatten(), moved
            )
        return visits / self._degrees

    def grow(self, points: Tensor, without: Tensor) -> Tensor:
        """Grow a part ``(N,)`` bool from points ``(S,)``: the cells that a walk meets before it leaves the thing.

        Cells are sorted by how often the walk is there; the part is the beginning of that list with the least
        conductance, which is the share of the part's connections that lead out of it. What a walk from the cells
        ``without`` ``(R,)`` visits more often is not taken.
        """
        count, config = self._grid.num_tokens, self._config
        visits = self.count_visits(_mark_cells(points, count))
        if len(without):
            visits = visits * (visits > self.count_visits(_mark_cells(without, count)))
        visits[points] = torch.inf
        limit = max(config.min_cells, int(config.max_share * count))
        order = visits.argsort(descending=True, stable=True)[: min(limit, int((visits > 0).sum()))]
        size = self._find_best_cut(order, min(max(config.min_cells, len(points)), len(order)))
        return _mark_cells(order[:size], count) > 0

    def find_patch(self, points: Tensor, inside: Tensor) -> Tensor:
        """Return the spot ``(N,)`` of a region that goes with points ``(S,)`` rather than with its rest."""
        spot = _mark_cells(points, self._grid.num_tokens)
        near = F.max_pool2d(spot.reshape(1, 1, *self._grid), 3, stride=1, padding=1).flatten() > 0
        rest = (inside & ~near).float()
        patch = inside.clone()
        if bool(rest.any()):
            weight = self._config.spot_weight * len(points) / float(rest.sum())
            patch &= self.count_visits(spot) * weight > self.count_visits(rest)
        patch[points] = True
        return patch

    def _find_best_cut(self, order: Tensor, least: int) -> int:
        """Return how many cells from the front of ``order`` have the least conductance; ties: the fewest."""
        place = torch.full((len(self._links),), len(self._links))
        place[order] = torch.arange(len(order))
        earlier = place[self._nearby[order]] < place[order][:, None]
        volume = self._degrees[order].cumsum(0)
        cut = volume - 2 * (self._links[order] * earlier).sum(1).cumsum(0)
        conductance = cut / torch.minimum(volume, self._degrees.sum() - volume).clamp_min(1e-300)
        return least + int(conductance[least - 1 :].argmin())


def find_thing_in_box(tokens: Tensor, box: Tensor, config: GrowthConfig) -> Tensor:
    """Return the cells ``(N,)`` of a box ``(h,w)`` that look more like its middle than like what lies around it.

    Tokens ``(N,C)`` are less the mean of the clip. The middle is at first the inner part of the box, then, a few times,
    the thing itself. It is the whole box where that fills the frame or nothing else is left.
    """
    unit, inside, margin = F.normalize(tokens, dim=-1), box.flatten(), config.box_margin
    near = F.max_pool2d(box[None, None].float(), 2 * margin + 1, stride=1, padding=margin).flatten() > 0
    around = unit[near & ~inside]
    if not len(around):
        return inside
    rows, columns = box.any(1).nonzero()[:, 0], box.any(0).nonzero()[:, 0]
    middle = torch.outer(_make_tent(rows, box.shape[0]), _make_tent(columns, box.shape[1])).flatten()
    thing = middle > middle.max() / 2
    for _ in range(config.box_rounds):
        similar, different = (_measure_likeness(unit[inside], of, config) for of in (unit[thing], around))
        kept = torch.zeros_like(inside).masked_scatter_(inside, similar > different)
        if not bool(kept.any()):
            return inside
        thing = kept
    return thing


def _measure_likeness(tokens: Tensor, examples: Tensor, config: GrowthConfig) -> Tensor:
    """Return the mean similarity ``(B,)`` of tokens ``(B,C)`` to their nearest examples ``(M,C)``."""
    count = min(config.box_neighbors, len(examples))
    return (tokens @ examples.T).topk(count, dim=1).values.mean(1)


def _mark_cells(cells: Tensor, count: int) -> Tensor:
    """Return ``(count,)`` float32 with 1 at the cells ``(S,)``."""
    return torch.zeros(count).index_fill_(0, cells, 1.0)


def _make_tent(places: Tensor, count: int) -> Tensor:
    """Return weights ``(count,)`` that rise from the ends of ``places`` to their middle."""
    weights = torch.zeros(count)
    weights[places] = 1 - (2 * (torch.arange(len(places)) + 0.5) / len(places) - 1).abs()
    return weights
