"""Correspondence-based refinement: tracks of matching cells vote on their labels (paper 4.2, Eq. 3-4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from ..config.parts import RefinementConfig
from ..types import Grid, require_finite, require_shape

_CHUNK_ELEMENTS = 2**22
"""Cosines held at once: 16 MiB in float32, whatever the size of the grid."""


def refine(maps: Tensor, matching: Tensor, config: RefinementConfig) -> Tensor:
    """Let the cells that belong together over the frames of a window agree on a label.

    Paper: Eq. 3 matches each cell to the most similar one of the next frame (cosine); matches that move farther than
    the spatial threshold are bad; Eq. 4 takes the majority of the labels along a track.
    Reference code: `config.matching`, `one_sided`, `bad_match` and `voting` select what it does instead.

    Args:
        maps: ``(T,h,w)`` int64 labels >= 0 of one window.
        matching: ``(T,N,C)`` float32, ``N = h*w`` in raster order; need not be normalized.
        config: which matches count and how they vote.

    Returns:
        ``(T,h,w)`` int64, on the device of ``maps``. Equal to ``maps`` for one frame, or when switched off.

    Raises:
        InputError: shapes disagree, or ``matching`` holds NaN or infinity.
    """
    sizes = require_shape("maps", maps, "T h w")
    grid = Grid(sizes["h"], sizes["w"])
    require_shape("matching", matching, "T N C", T=sizes["T"], N=grid.num_tokens)
    require_finite("matching", matching)
    if not config.enabled or sizes["T"] == 1:
        return maps
    matches = match_cells(matching, config).to(maps.device)
    good = within_threshold(matches, grid, config)
    present, labels = torch.unique(maps.flatten(1), sorted=True, return_inverse=True)
    if config.voting == "track":
        votes = _vote_by_track(labels, matches, good, published_starts(grid).to(maps.device), config)
    else:
        votes = _vote_by_cell(labels, matches, good, config)
    voted: Tensor = present[votes]
    return voted.reshape(maps.shape)


def match_cells(matching: Tensor, config: RefinementConfig) -> Tensor:
    """Match each cell to the cell of the next frame with the highest cosine similarity; ties go to the first cell.

    Paper: Eq. 3, ``argmax_c cos(f_j(p), f_{j+1}(c))`` (``matching="pairwise"``).
    Reference code: ``argmax_c j/(j+1) cos(f_j(p), f_{j+1}(c)) + 1/(j+1) cos(f_j(p), f_0(c))``
    (``matching="anchored"``), hence the first hop always stays where it is.

    Args:
        matching: ``(T,N,C)`` float32.
        config: kind of matching.

    Returns:
        ``(T-1,N)`` int64: for each cell of frame ``j`` a cell of frame ``j+1``.
    """
    unit = normalize(matching, dim=-1)
    pairs = []
    for step in range(len(unit) - 1):
        target = unit[step + 1]
        if config.matching == "anchored":  # cosine is linear in the target, so blend targets instead of cosines
            target = (step * target + unit[0]) / (step + 1)
        pairs.append(_most_similar(unit[step], target))
    return torch.stack(pairs) if pairs else torch.empty(0, matching.shape[1], dtype=torch.int64)


def follow_matches(matches: Tensor) -> Tensor:
    """Follow the matches from every cell of the first frame.

    Args:
        matches: ``(T-1,N)`` int64, as `match_cells` returns them.

    Returns:
        ``(T,N)`` int64: for each track, named by its first cell, its cell in each frame.
    """
    cells = [torch.arange(matches.shape[1], device=matches.device)]
    for match in matches:
        cells.append(match[cells[-1]])
    return torch.stack(cells)


def published_starts(grid: Grid) -> Tensor:
    """Return which cells of the first frame start a track in the reference code, ``(N,)`` bool.

    It computes rows and columns as ``int((i / h) * h)`` in float32, which at some sizes is one less than ``i``: there
    the row (column) before starts its tracks twice, which changes nothing, and this one starts none.

    >>> published_starts(Grid(44, 1)).logical_not().nonzero().flatten().tolist()
    [13, 26]
    """
    rows, columns = (torch.zeros(size, dtype=torch.bool) for size in grid)
    for started in rows, columns:
        index = torch.arange(len(started), dtype=torch.float32)
        started[(index / len(started) * len(started)).long()] = True
    return (rows[:, None] & columns).flatten()


def within_threshold(matches: Tensor, grid: Grid, config: RefinementConfig) -> Tensor:
    """Tell which matches move by at most ``config.spatial_threshold`` cells, vertically and horizontally.

    Reference code: compares the signed move (``one_sided``), so that moves up and left of any length pass.

    Args:
        matches: ``(T-1,N)`` int64.
        grid: size of the grid, ``N = h*w``.
        config: threshold and sides.

    Returns:
        ``(T-1,N)`` bool.
    """
    start = torch.arange(grid.num_tokens, device=matches.device)
    down = matches // grid.w - start // grid.w
    right = matches % grid.w - start % grid.w
    if not config.one_sided:
        down, right = down.abs(), right.abs()
    return torch.maximum(down, right) <= config.spatial_threshold


def _most_similar(source: Tensor, target: Tensor) -> Tensor:
    """Return for each row of ``(N,C)`` the row of ``(N,C)`` with the largest product, ``(N,)``; ties: the first."""
    chunk = max(1, _CHUNK_ELEMENTS // len(target))
    return torch.cat([(rows @ target.T).argmax(1) for rows in torch.split(source, chunk)])


def _vote_by_cell(labels: Tensor, matches: Tensor, good: Tensor, config: RefinementConfig) -> Tensor:
    """Give each cell the majority of the labels along all tracks through it.

    A track starts at each cell that no match reaches, and ends at a bad match (``split``) or with the window; with
    ``drop``, one with a bad match anywhere does not vote. Each of its labels is one vote at each of its cells.
    Ties: the cell keeps its label if that is among the tied, else takes the smallest.

    All tracks through a cell share what follows it, so their votes are those gathered on the way to the cell
    (forward pass) plus, once per track, the labels ahead (backward pass). No track is ever listed.
    """
    own = one_hot(labels).to(torch.int32)  # (T,N,K)
    linked = good if config.bad_match == "split" else torch.ones_like(good)
    tracks = _first_cells(matches, linked)  # (T,N) int32: at first those that start here, in the end all through here
    if config.bad_match == "drop":
        tracks[:-1] *= _good_to_the_end(matches, good)
    votes = own * tracks[..., None]
    for step, (match, link) in enumerate(zip(matches, linked, strict=True)):
        arriving = torch.zeros_like(tracks[0]).index_add_(0, match[link], tracks[step][link])
        tracks[step + 1] += arriving
        votes[step + 1] += own[step + 1] * arriving[:, None]
        votes[step + 1].index_add_(0, match[link], votes[step][link])
    ahead = torch.zeros_like(own[0])
    for step in range(len(matches) - 1, -1, -1):
        ahead = (ahead + own[step + 1])[matches[step]] * linked[step][:, None]
        votes[step] += tracks[step][:, None] * ahead
    keeps = votes.gather(2, labels[..., None]).squeeze(2) == votes.amax(2)
    return torch.where(keeps, labels, votes.argmax(2))


def _first_cells(matches: Tensor, linked: Tensor) -> Tensor:
    """Return ``(T,N)`` int32: 1 where a track starts, which is where no link arrives."""
    starts = torch.ones(len(matches) + 1, matches.shape[1], dtype=torch.int32, device=matches.device)
    for frame, (match, link) in enumerate(zip(matches, linked, strict=True), start=1):
        starts[frame, match[link]] = 0
    return starts


def _good_to_the_end(matches: Tensor, good: Tensor) -> Tensor:
    """Return ``(T-1,N)`` bool: no bad match lies between this cell and the end of the window."""
    whole = good.clone()
    for step in range(len(matches) - 2, -1, -1):
        whole[step] &= whole[step + 1][matches[step]]
    return whole


def _vote_by_track(labels: Tensor, matches: Tensor, good: Tensor, starts: Tensor, config: RefinementConfig) -> Tensor:
    """Write the majority label of each track from ``starts`` ``(N,)`` on all its cells, later tracks over earlier ones.

    Ties go to the label that the track meets first. Cells that no track reaches keep their label (reference code).
    """
    cells = follow_matches(matches)  # (T,N)
    passed = good.gather(1, cells[:-1]).cumprod(0).bool()  # (T-1,N): no bad match so far
    inside = torch.cat([torch.ones_like(cells[:1], dtype=torch.bool), passed])
    if config.bad_match == "drop":
        inside = inside & passed[-1]
    inside = inside & starts
    met = labels.gather(1, cells)  # (T,N)
    counts = (one_hot(met) * inside[..., None]).sum(0)  # (N,K)
    support = counts.gather(1, met.T).masked_fill(~inside.T, -1)  # (N,T): votes for the label met in each frame
    majority = met.gather(0, support.argmax(1)[None]).squeeze(0)  # (N,)
    order = torch.arange(cells.shape[1], device=cells.device).expand_as(cells).masked_fill(~inside, -1)
    last = torch.full_like(cells, -1).scatter_reduce_(1, cells, order, "amax")
    return torch.where(last >= 0, majority[last.clamp(min=0)], labels)
