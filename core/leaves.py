"""Leaves: small clusters that regions are put together from, and the tree by which they merge (data only)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class MergeTree(NamedTuple):
    """How leaves merge, numbered by the order in which they split off when more and more regions are cut.

    The cut into K regions has the labels 0 to K-1: leaf ``i`` is a region of its own from K = i + 1 on, and belongs to
    the region of ``parents[i]`` before. The larger part of a region that splits keeps its label. `regions.tree` makes
    trees and cuts them.

    Attributes:
        parents: for each leaf a smaller one; that of leaf 0 is 0.
        heights: distance between the two parts that split there, see `regions.tree.build_tree`; never rising, and
            infinite for leaf 0.
    """

    parents: tuple[int, ...]
    heights: tuple[float, ...]


class LaterCells(NamedTuple):
    """Cells of other frames whose leaf the anchor frame lacks, by which the scan knows such leaves.

    Attributes:
        tokens: ``(M,C)`` as they were clustered.
        leaves: ``(M,)`` int64, their leaves.
    """

    tokens: Tensor
    leaves: Tensor


class Leaves(NamedTuple):
    """The leaves of label maps, for another number of regions without another run.

    Attributes:
        maps: leaf of each cell or pixel, of the shape and type of the label maps.
        tree: how they merge. Leaves from its length on were found later, and stand alone.
        owners: label of the region that each leaf belongs to.
        votes: ``(T,h,w,k)`` leaves of the nearest tokens in the scene context, by which the leaf of a cell was chosen;
            None where they are not known, and in full resolution.
    """

    maps: Tensor
    tree: MergeTree
    owners: tuple[int, ...]
    votes: Tensor | None = None


class TokenScales(NamedTuple):
    """What else than its looks a cell is known by, see `method.tokens.make_tokens`; 0 leaves it out.

    Attributes:
        place: the longer side of the frame, in units of looks.
        motion: motion in full, likewise.
    """

    place: float = 0.0
    motion: float = 0.0
