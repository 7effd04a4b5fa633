"""Marked parts of one frame in all frames, by the features alone: propagated, and laid over label maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..types import Grid, InputError, require_finite, require_shape


@dataclass(frozen=True)
class PropagationConfig:
    """How a marked part of one frame is propagated to other frames, without the diffusion model."""

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
    anchor_margin: int = 4
    """Cells around the marked part, in the marked frame, that are context in all frames (chosen)."""


_SAMPLE = 8192
"""Tokens that the main directions are computed from."""
_CHUNK_ELEMENTS = 2**23
"""Components of gathered context cells held at once: 32 MiB in float32."""


def reduce_tokens(queries: Tensor, num_components: int) -> Tensor:
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


def propagate_shares(
    tokens: Tensor, grid: Grid, start: Tensor, frame: int, config: PropagationConfig, *, both_ways: bool = False
) -> Tensor:
    """Propagate parts that are marked in one frame to the frames after it, or to all.

    Args:
        tokens: ``(T,N,C)`` float32 of unit length, see `reduce_tokens`.
        grid: size of the coarse grid, ``N = h*w``.
        start: ``(N,P)`` float32, share of each part in each cell of the marked frame, in [0, 1], at most 1 together.
        frame: the marked frame.
        config: context and neighbors.
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

    def __init__(self, tokens: Tensor, grid: Grid, shares: Tensor, frame: int, config: PropagationConfig) -> None:
        self.tokens, self.shares, self.frame, self.config = tokens, shares, frame, config
        self.grid = grid
        self.nearby, self.outside = list_neighborhoods(grid, config.radius)
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


def list_neighborhoods(grid: Grid, radius: int) -> tuple[Tensor, Tensor]:
    """Return for each cell the cells within ``radius`` rows and columns ``(N,O)``, and which are beyond the border."""
    reach = torch.arange(-radius, radius + 1)
    down, right = (moves.flatten() for moves in torch.meshgrid(reach, reach, indexing="ij"))
    cells = torch.arange(grid.num_tokens)
    rows, columns = cells[:, None] // grid.w + down, cells[:, None] % grid.w + right
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
        """Start without any region.

        Args:
            tokens: ``(T,N,C)`` float32 of unit length.
            grid: size of the coarse grid, ``N = h*w``.
            config: how marks are propagated.
        """
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
        """Mark a part of a frame as ``label``; it is taken from the other marked regions there.

        Args:
            label: of the region; a new one, or one that was marked before.
            frame: the marked frame.
            part: ``(N,)`` float32, share of each cell.
            both_ways: whether it also counts in the frames before.
            whole: the part is all of the region in that frame, not more of it.
            exact: ``(H,W)`` bool, the part in the resolution of the maps, for its own frame.
        """
        start = part[:, None]
        propagated = propagate_shares(self._tokens, self._grid, start, frame, self._config, both_ways=both_ways)[..., 0]
        for other in [other for other in self._marks if other != label]:
            shares = self._all_shares(other)
            if bool((torch.minimum(shares[frame], part) > 0).any()):
                self._remember(other, _Mark(frame, torch.minimum(shares, 1 - propagated), both_ways))
        adds = label in self._marks and not whole
        known = torch.maximum(self._all_shares(label), propagated) if adds else propagated
        self._remember(label, _Mark(frame, known, both_ways))
        self._mark_exact(label, frame, part, exact, whole=whole)

    def shares(self, label: int, frame: int) -> Tensor:
        """Return the share ``(N,)`` of a region in each cell of a frame."""
        marks = [mark for mark in self._marks[label] if mark.both_ways or mark.frame <= frame]
        before = [mark for mark in marks if mark.frame <= frame]
        after = [mark for mark in marks if mark.frame > frame]
        if not marks:
            return self._tokens.new_zeros(self._grid.num_tokens)
        first, last = before[-1] if before else after[0], after[0] if after else before[-1]
        weight = (frame - first.frame) / max(1, last.frame - first.frame)
        return torch.lerp(first.shares[frame], last.shares[frame], weight if first is not last else 0.0)

    def over(self, labels: Tensor, frame: int) -> Tensor:
        """Return the labels ``(H,W)`` of a frame under the regions; the largest share wins, above half."""
        result, best = labels.clone(), torch.full(labels.shape, _HALF)
        for label in self._marks:
            shares = self.shares(label, frame)
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

    def _all_shares(self, label: int) -> Tensor:
        """Return the shares ``(T,N)`` of a region in all frames."""
        return torch.stack([self.shares(label, frame) for frame in range(len(self._tokens))])

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
