"""Regions that were marked in some frames, in all frames: what corrections lay over a segmentation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .carrying import carried_shares
from .config_results import CarryConfig
from .marks import enlarged_shares
from .types import Grid

_HALF = 0.5
"""Share of a cell above which it belongs to a region."""
_NONE = -1
"""In place of a label where no exact part lies."""


class _Mark(NamedTuple):
    """Shares ``(T,N)`` carried from what was marked in ``frame``; before it only if it counts both ways."""

    frame: int
    shares: Tensor
    both_ways: bool


class Layers:
    """Marked regions over label maps.

    A region may be marked in several frames. Between two of them it is a blend of what is carried from both, by the
    distance in time; beyond the last it is what is carried from that.
    """

    def __init__(self, tokens: Tensor, grid: Grid, config: CarryConfig) -> None:
        """Start without any region.

        Args:
            tokens: ``(T,N,C)`` float32 of unit length.
            grid: size of the coarse grid, ``N = h*w``.
            config: how marks are carried.
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
        carried = carried_shares(self._tokens, self._grid, start, frame, self._config, both_ways=both_ways)[..., 0]
        for other in [other for other in self._marks if other != label]:
            shares = self._all_shares(other)
            if bool((torch.minimum(shares[frame], part) > 0).any()):
                self._remember(other, _Mark(frame, torch.minimum(shares, 1 - carried), both_ways))
        adds = label in self._marks and not whole
        known = torch.maximum(self._all_shares(label), carried) if adds else carried
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
                enlarged = enlarged_shares(shares[None], self._grid, (labels.shape[0], labels.shape[1]))[0]
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
            known[enlarged_shares(part[None], self._grid, size)[0] > _HALF] = _NONE
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
