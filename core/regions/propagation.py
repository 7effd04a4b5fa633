"""Labels of one frame propagated to other frames by the features alone, and laid over label maps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..types import Grid, InputError, require_finite, require_shape


@dataclass(frozen=True)
class PropagationConfig:
    """How labels of one frame are propagated to others, without the diffusion model; the values are for corrections.

    "measured" stands for the six DAVIS clips of `benchmarks/corrections.py` with the bundled model, "chosen" for a
    value of ours that no measurement backs. `baselines.DIFT` holds the values of the published baseline.
    """

    num_neighbors: int = 5
    """Most similar context cells that decide on a cell (DIFT takes 15 of 28 frames; measured)."""
    radius: int = 3
    """Cells that something may move by between two frames (measured)."""
    num_frames: int = 1
    """Frames before the current one that are context, beside the marked frame (measured)."""
    temperature: float = 0.1
    """Of the weights of the neighbors (DIFT: 0.2; measured)."""
    num_components: int = 32
    """Main directions of the features in which similarity is computed: the rest is noise and costs time (chosen)."""
    anchor_margin: int | None = 4
    """Cells around the marked part, in the marked frame, that are context in all frames (chosen); None: all cells."""
    keep_agreed: bool = True
    """Whether a cell whose context within the radius agrees takes its label from there, without comparison (chosen)."""


_SAMPLE = 8192
"""Tokens that the main directions are computed from."""
_CHUNK_ELEMENTS = 2**23
"""Components of gathered context cells, or similarities, held at once: 32 MiB in float32."""
_GATHERED = 256
"""Cells of a neighborhood up to which it costs less to gather them than to compare with all cells of a frame."""


def reduce_tokens(queries: Tensor, num_components: int) -> Tensor:
    """Return queries ``(T,N,C)`` in their main directions, of unit length: ``(T,N,min(C,num_components))`` float32."""
    size = require_shape("queries", queries, "T N C")
    tokens = queries.float().cpu()
    if size["C"] > num_components:
        flat = tokens.flatten(0, 1)
        sample = F.normalize(flat[:: max(1, len(flat) // _SAMPLE)], dim=-1).nan_to_num().double()
        _, vectors = torch.linalg.eigh(sample.T @ sample)
        tokens = tokens @ vectors[:, -num_components:].float()
    require_finite("queries", tokens)  # NaN and infinity survive the product
    return F.normalize(tokens, dim=-1)


def propagate_shares(
    tokens: Tensor, grid: Grid, start: Tensor, frame: int, config: PropagationConfig, *, both_ways: bool = False
) -> Tensor:
    """Propagate shares ``(N,P)`` of ``frame``, each in [0, 1] and at most 1 together, by unit tokens ``(T,N,C)``.

    The result ``(T,N,P)`` is empty before that frame, unless ``both_ways``.
    """
    size = require_shape("tokens", tokens, "T N C", N=grid.num_tokens)
    parts = require_shape("start", start, "N P", N=grid.num_tokens)["P"]
    if not 0 <= frame < size["T"]:
        raise InputError(f"`frame` must lie in [0, {size['T'] - 1}], but got {frame}. Choose a frame of the clip.")
    shares = tokens.new_zeros(size["T"], size["N"], parts)
    shares[frame] = start

    def follow(frames: Iterable[int]) -> None:
        memory = PropagationMemory(tokens[frame], start, grid, config)
        for current in frames:
            shares[current] = memory.propagate(tokens[current])
            memory.remember(tokens[current], shares[current])

    follow(range(frame + 1, size["T"]))
    follow(range(frame - 1, -1, -1) if both_ways else ())
    return shares


class PropagationMemory:
    """Unit tokens ``(N,C)`` and shares ``(N,P)`` of the marked frame and of the recent ones.

    Where only cells around the marked part are anchors, the marked frame also counts as a recent one, within the
    radius, and its anchors from the second step on.
    """

    def __init__(self, tokens: Tensor, shares: Tensor, grid: Grid, config: PropagationConfig) -> None:
        self._grid, self._config = grid, config
        self._recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=config.num_frames)  # the newest last
        self._nearby, self._outside = list_neighborhoods(grid, config.radius)
        anchors = self._find_anchors(shares)
        self._anchor_tokens, self._anchor_shares = tokens[anchors], shares[anchors]
        self._has_anchors = config.anchor_margin is None
        if config.anchor_margin is not None:
            self._recent.append((tokens, shares))

    def propagate(self, tokens: Tensor) -> Tensor:
        """Return shares ``(N,P)`` of a frame with unit tokens ``(N,C)``."""
        cells, shares = torch.arange(len(tokens)), tokens.new_zeros(len(tokens), self._anchor_shares.shape[1])
        if self._config.keep_agreed:
            known = torch.stack([soft for _, soft in self._recent])  # (m,N,P)
            most, least = (self._pool(extreme) for extreme in (known.amax(0), -known.amin(0)))
            shares = (-least >= 1).float()  # all around belongs to the part, and stays so
            cells = ((most > 0).any(1) & (-least < 1).all(1)).nonzero()[:, 0]
        gathered = self._nearby.shape[1] * tokens.shape[1] if self._gathers else len(tokens)
        for chunk in torch.split(cells, max(1, _CHUNK_ELEMENTS // (gathered * max(1, len(self._recent))))):
            shares[chunk] = self._vote(tokens[chunk], chunk)
        return shares

    def remember(self, tokens: Tensor, shares: Tensor) -> None:
        """Add a frame; the oldest recent one leaves."""
        self._recent.append((tokens, shares))
        self._has_anchors = True

    @property
    def _gathers(self) -> bool:
        return self._nearby.shape[1] < self._grid.num_tokens

    def _find_anchors(self, shares: Tensor) -> Tensor:
        """Return the cells ``(A,)`` of the marked frame that are context in all frames."""
        margin = self._config.anchor_margin
        if margin is None:
            return torch.arange(len(shares))
        marked = (shares.sum(1) > 0).reshape(1, 1, *self._grid).float()
        return F.max_pool2d(marked, 2 * margin + 1, stride=1, padding=margin).flatten().nonzero()[:, 0]

    def _pool(self, values: Tensor) -> Tensor:
        """Return the largest of ``values`` ``(N,P)`` within the radius of each cell."""
        side = 2 * self._config.radius + 1
        planes = values.T.reshape(1, -1, *self._grid)
        return F.max_pool2d(planes, side, stride=1, padding=self._config.radius).reshape(values.shape[1], -1).T

    def _vote(self, queries: Tensor, cells: Tensor) -> Tensor:
        """Return shares ``(B,P)`` of ``cells`` ``(B,)`` with tokens ``queries`` ``(B,C)``: a softmax of the nearest."""
        nearby, outside = self._nearby[cells], self._outside[cells]
        context = [(self._compare(queries, tokens, nearby, outside), nearby, soft) for tokens, soft in self._recent]
        if self._has_anchors:
            numbers = torch.arange(len(self._anchor_shares)).expand(len(cells), -1)
            place = 0 if self._config.anchor_margin is None else len(context)  # of equal cosines the first counts
            context.insert(place, (queries @ self._anchor_tokens.T, numbers, self._anchor_shares))
        cosines, shares = torch.cat([part[0] for part in context], 1), torch.cat([part[2] for part in context])
        nearest = cosines.topk(min(self._config.num_neighbors, cosines.shape[1]), dim=1)
        weights, places = (nearest.values / self._config.temperature).softmax(1), nearest.indices
        if self._gathers:  # else the shares of all cells stand in the order of the cosines
            firsts = accumulate((len(soft) for *_, soft in context), initial=0)
            rows = [numbers + first for (_, numbers, _), first in zip(context, firsts, strict=False)]
            places = torch.cat(rows, 1).gather(1, places)
        return (weights[..., None] * shares[places]).sum(1)

    def _compare(self, queries: Tensor, tokens: Tensor, nearby: Tensor, outside: Tensor) -> Tensor:
        """Return cosines ``(B,O)`` of queries ``(B,C)`` with neighbors in a frame; minus infinity ``outside``."""
        cosines = torch.einsum("bc,boc->bo", queries, tokens[nearby]) if self._gathers else queries @ tokens.T
        return cosines.masked_fill_(outside, -torch.inf)


def list_neighborhoods(grid: Grid, radius: int) -> tuple[Tensor, Tensor]:
    """Return for each cell its neighbors ``(N,O)``, and which of them are not within ``radius`` rows and columns.

    Large neighborhoods are all cells, ``O = N``; others end beyond the border, where cells are repeated.
    """
    rows, columns = (torch.arange(grid.num_tokens) // grid.w, torch.arange(grid.num_tokens) % grid.w)
    if (2 * radius + 1) ** 2 > min(_GATHERED, grid.num_tokens - 1):
        apart = torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())
        return torch.arange(grid.num_tokens).expand(grid.num_tokens, -1), apart > radius
    reach = torch.arange(-radius, radius + 1)
    down, right = (moves.flatten() for moves in torch.meshgrid(reach, reach, indexing="ij"))
    rows, columns = rows[:, None] + down, columns[:, None] + right
    outside = (rows < 0) | (rows >= grid.h) | (columns < 0) | (columns >= grid.w)
    return rows.clamp(0, grid.h - 1) * grid.w + columns.clamp(0, grid.w - 1), outside


def enlarge_shares(shares: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """Return shares ``(T,N)`` of cells as ``(T,*size)``, bilinear; as they are where the size is the grid's."""
    planes = shares.reshape(-1, 1, *grid)
    if tuple(grid) == tuple(size):
        return planes[:, 0]
    return F.interpolate(planes, size, mode="bilinear", align_corners=False)[:, 0]


_HALF = 0.5
"""Share of a cell above which it belongs to a region."""
_NONE = -1
"""In place of a label where no exact part lies."""


class _Mark(NamedTuple):
    """Shares ``(T,N)`` propagated from what was marked in ``frame``; before it only if it counts both ways."""

    frame: int
    shares: Tensor
    both_ways: bool


class Layers:
    """Marked regions over label maps.

    A region may be marked in several frames. Between two of them it is a blend of what is propagated from both, by the
    distance in time; beyond the last it is what is propagated from that.
    """

    def __init__(self, tokens: Tensor, grid: Grid, config: PropagationConfig) -> None:
        self._tokens, self._grid, self._config = tokens, grid, config
        self._marks: dict[int, list[_Mark]] = {}
        self._exact: dict[int, Tensor] = {}  # by frame: labels (H,W) in the resolution of the maps, or _NONE

    def mark(
        self,
        label: int,
        frame: int,
        part: Tensor,
        *,
        both_ways: bool = True,
        whole: bool = False,
        exact: Tensor | None = None,
    ) -> None:
        """Mark shares ``part`` ``(N,)`` of a frame as ``label``; they are taken from the other marked regions there.

        ``both_ways``: it also counts in the frames before. ``whole``: it is all of the region in that frame, not more
        of it. ``exact`` ``(H,W)`` bool is the part in the resolution of the maps, for its own frame.
        """
        start = part[:, None]
        propagated = propagate_shares(self._tokens, self._grid, start, frame, self._config, both_ways=both_ways)[..., 0]
        for other in [other for other in self._marks if other != label]:
            shares = self._stack_shares(other)
            if bool((torch.minimum(shares[frame], part) > 0).any()):
                self._remember(other, _Mark(frame, torch.minimum(shares, 1 - propagated), both_ways))
        adds = label in self._marks and not whole
        known = torch.maximum(self._stack_shares(label), propagated) if adds else propagated
        self._remember(label, _Mark(frame, known, both_ways))
        self._mark_exact(label, frame, part, exact, whole=whole)

    def blend_shares(self, label: int, frame: int) -> Tensor:
        """Return the share ``(N,)`` of a region in each cell of a frame."""
        marks = [mark for mark in self._marks[label] if mark.both_ways or mark.frame <= frame]
        before = [mark for mark in marks if mark.frame <= frame]
        after = [mark for mark in marks if mark.frame > frame]
        if not marks:
            return self._tokens.new_zeros(self._grid.num_tokens)
        first, last = before[-1] if before else after[0], after[0] if after else before[-1]
        weight = (frame - first.frame) / max(1, last.frame - first.frame)
        return torch.lerp(first.shares[frame], last.shares[frame], weight if first is not last else 0.0)

    def lay_over(self, labels: Tensor, frame: int) -> Tensor:
        """Return the labels ``(H,W)`` of a frame under the regions; the largest share wins, above half."""
        result, best = labels.clone(), torch.full(labels.shape, _HALF)
        for label in self._marks:
            shares = self.blend_shares(label, frame)
            if float(shares.max()) > _HALF:
                enlarged = enlarge_shares(shares[None], self._grid, (labels.shape[0], labels.shape[1]))[0]
                result[enlarged > best] = label
                best = torch.maximum(best, enlarged)
        exact = self._exact.get(frame)
        return result if exact is None else torch.where(exact == _NONE, result, exact.to(result.dtype))

    def clear(self) -> bool:
        """Forget all regions; tell whether there were any."""
        had = bool(self._marks)
        self._marks, self._exact = {}, {}
        return had

    def _stack_shares(self, label: int) -> Tensor:
        """Return the shares ``(T,N)`` of a region in all frames."""
        return torch.stack([self.blend_shares(label, frame) for frame in range(len(self._tokens))])

    def _mark_exact(self, label: int, frame: int, part: Tensor, exact: Tensor | None, *, whole: bool) -> None:
        """Take what was marked last from the exact parts of its frame, and keep its own."""
        if frame in self._exact:
            known = self._exact[frame]
            size = (known.shape[0], known.shape[1])
            known[enlarge_shares(part[None], self._grid, size)[0] > _HALF] = _NONE
            if whole:
                known[known == label] = _NONE
        if exact is not None:
            known = self._exact.setdefault(frame, torch.full(exact.shape, _NONE))
            known[exact] = label

    def _remember(self, label: int, mark: _Mark) -> None:
        """Keep a mark, in the place of an earlier one of the same frame, which counted in the frames before or not."""
        marks = {other.frame: other for other in self._marks.get(label, ())}
        both_ways = mark.both_ways or (mark.frame in marks and marks[mark.frame].both_ways)
        marks[mark.frame] = mark._replace(both_ways=both_ways)
        self._marks[label] = [marks[frame] for frame in sorted(marks)]
