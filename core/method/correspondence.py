"""Correspondence-based refinement: tracks of matching cells vote on their labels (paper 4.2, Eq. 3-4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from ..config.parts import RefinementConfig
from ..types import Grid, require_finite, require_shape

_CHUNK_ELEMENTS = 2**22
"""Cosines held at once: 16 MiB in float32, whatever the size of the grid."""


def vote_by_cell(labels: Tensor, matching: Tensor, grid: Grid, threshold: int) -> Tensor:
    """Give each cell of ``(T,N)`` labels from 0 on the majority of the labels along all tracks through it.

    Matches of the features ``(T,N,C)`` that move farther than the threshold are bad. A track starts at each cell that
    no match reaches, and ends at a bad match or with the window. Each of its labels is one vote at each of its cells.
    Ties: the cell keeps its label if that is among the tied, else takes the smallest.

    All tracks through a cell share what follows it, so their votes are those gathered on the way to the cell
    (forward pass) plus, once per track, the labels ahead (backward pass). No track is ever listed.
    """
    matches = match_cells(matching).to(labels.device)
    good = within_threshold(matches, grid, threshold)
    own = one_hot(labels).to(torch.int32)  # (T,N,K)
    tracks = _first_cells(matches, good)  # (T,N) int32: at first those that start here, in the end all through here
    votes = own * tracks[..., None]
    for step, (match, link) in enumerate(zip(matches, good, strict=True)):
        arriving = torch.zeros_like(tracks[0]).index_add_(0, match[link], tracks[step][link])
        tracks[step + 1] += arriving
        votes[step + 1] += own[step + 1] * arriving[:, None]
        votes[step + 1].index_add_(0, match[link], votes[step][link])
    ahead = torch.zeros_like(own[0])
    for step in range(len(matches) - 1, -1, -1):
        ahead = (ahead + own[step + 1])[matches[step]] * good[step][:, None]
        votes[step] += tracks[step][:, None] * ahead
    keeps = votes.gather(2, labels[..., None]).squeeze(2) == votes.amax(2)
    return torch.where(keeps, labels, votes.argmax(2))


Vote = Callable[[Tensor, Tensor, Grid, int], Tensor]
"""`vote_by_cell`, or a function that takes its place."""


def refine(maps: Tensor, matching: Tensor, config: RefinementConfig, vote: Vote = vote_by_cell) -> Tensor:
    """Let the cells that belong together over the frames of a window agree on a label, ``(T,h,w)`` int64.

    Of ``(T,h,w)`` labels >= 0 and features ``(T,N,C)``, ``N = h*w`` in raster order. Paper: Eq. 3 matches each cell to
    the most similar one of the next frame (cosine); matches that move farther than the spatial threshold are bad;
    Eq. 4 takes the majority of the labels along a track.
    """
    sizes = require_shape("maps", maps, "T h w")
    grid = Grid(sizes["h"], sizes["w"])
    require_shape("matching", matching, "T N C", T=sizes["T"], N=grid.num_tokens)
    require_finite("matching", matching)
    if not config.enabled or sizes["T"] == 1:
        return maps
    present, labels = torch.unique(maps.flatten(1), sorted=True, return_inverse=True)
    voted: Tensor = present[vote(labels, matching, grid, config.spatial_threshold)]
    return voted.reshape(maps.shape)


def match_cells(matching: Tensor) -> Tensor:
    """Match each cell of ``(T,N,C)`` to the most similar one of the next frame, ``(T-1,N)`` int64; ties: the first.

    Paper: Eq. 3, ``argmax_c cos(f_j(p), f_{j+1}(c))``.
    """
    unit = normalize(matching, dim=-1)
    return match_features(unit[:-1], unit[1:])


def match_features(sources: Tensor, targets: Iterable[Tensor]) -> Tensor:
    """Return for each row of each of ``(T,N,C)`` the row of its target ``(N,C)`` with the largest product."""
    pairs = [_most_similar(source, target) for source, target in zip(sources, targets, strict=True)]
    return torch.stack(pairs) if pairs else torch.empty(0, sources.shape[1], dtype=torch.int64)


def measure_moves(matches: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return by how many cells ``(T-1,N)`` matches move down and right, negative for up and left."""
    start = torch.arange(grid.num_tokens, device=matches.device)
    return matches // grid.w - start // grid.w, matches % grid.w - start % grid.w


def within_threshold(matches: Tensor, grid: Grid, threshold: int) -> Tensor:
    """Tell which ``(T-1,N)`` matches move by at most ``threshold`` cells, vertically and horizontally."""
    down, right = measure_moves(matches, grid)
    return torch.maximum(down.abs(), right.abs()) <= threshold


def _most_similar(source: Tensor, target: Tensor) -> Tensor:
    """Return for each row of ``(N,C)`` the row of ``(N,C)`` with the largest product, ``(N,)``; ties: the first."""
    chunk = max(1, _CHUNK_ELEMENTS // len(target))
    return torch.cat([(rows @ target.T).argmax(1) for rows in torch.split(source, chunk)])


def _first_cells(matches: Tensor, linked: Tensor) -> Tensor:
    """Return ``(T,N)`` int32: 1 where a track starts, which is where no link arrives."""
    starts = torch.ones(len(matches) + 1, matches.shape[1], dtype=torch.int32, device=matches.device)
    for frame, (match, link) in enumerate(zip(matches, linked, strict=True), start=1):
        starts[frame, match[link]] = 0
    return starts
