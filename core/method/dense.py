"""Winners at every pixel from the answers of all leaves at once, for devices on which leaving out takes longer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .axes import Axis, list_bands, resize
from .guided import GPU_BAND


def find_dense_winners(answers: Tensor, owners: Tensor, to_frame: Sequence[Axis] | None) -> Tensor:
    """Return the strongest label at each pixel of a frame, ``(H',W')``, from answers of leaves ``(H,n,W)``.

    The answer of a label is the sum of those of its leaves; ties: the lowest label. ``owners`` ``(n,)`` int64 are the
    labels of the leaves. ``to_frame`` enlarges answers to the frame, and is None where both have one size.
    """
    kinds: Tensor = torch.unique(owners)
    number = torch.searchsorted(kinds, owners)
    sums = answers.new_zeros(len(answers), len(kinds), answers.shape[2]).index_add_(1, number, answers)
    best = [_enlarge(sums, band, to_frame).argmax(1) for band in _list_bands(sums, to_frame)]
    return kinds[torch.cat(best)]


def find_dense_leaves(answers: Tensor, owners: Tensor, labels: Tensor, to_frame: Sequence[Axis] | None) -> Tensor:
    """Return which of the leaves of each pixel's label ``(H',W')`` is the strongest, the first where it has none."""
    found = []
    for band in _list_bands(answers, to_frame):
        near = _enlarge(answers, band, to_frame)
        near.masked_fill_(owners[:, None] != labels[band][:, None], -torch.inf)
        found.append(near.argmax(1))
    return torch.cat(found)


def _list_bands(values: Tensor, to_frame: Sequence[Axis] | None) -> Iterator[slice]:
    """Yield rows of the frame for which values ``(H,n,W)`` are enlarged at once."""
    height, width = (len(axis.low) for axis in to_frame) if to_frame else (len(values), values.shape[2])
    return list_bands(slice(0, height), max(1, GPU_BAND // (values.shape[1] * width)))


def _enlarge(values: Tensor, band: slice, to_frame: Sequence[Axis] | None) -> Tensor:
    """Return a band of the frame ``(r,n,W')`` of values ``(H,n,W)``, in memory of its own."""
    if to_frame is None:
        return values[band].clone()
    rows, columns = to_frame
    since = rows.needed(band, slice(0, len(values)))
    return resize(values[since], to_frame, [since, slice(0, values.shape[2])], [band, slice(0, len(columns.low))])
