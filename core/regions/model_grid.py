"""Masks on the grid of a video model: whatever resizes them to its latent marks each cell that they touch, no other.

A video model sees groups of frames as one latent frame and squares of pixels as one cell. Who edits with it passes
masks of the clip's size, and the host resizes them: trilinearly, or in time to the nearest frame. Its sampling points
are not the middles of the groups, so that a mask that is right frame by frame can leave a cell unmasked, and the old
thing bleeds through. Here the mask of a group is written on those frames that the host looks at.
"""

from __future__ import annotations

import math
from itertools import accumulate, chain, cycle, islice
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..types import InputError, Progress, no_progress, require_shape

Length = Literal["pad", "trim", "keep"]
Unit = Literal["latent", "token"]
_NEAR = 0.01
"""Frames by which the host's rounding may move a sampling point, at most."""
_HALF = 0.5
"""Part of a latent frame that its own frames must give, so that it counts as masked."""


class ModelGrid(NamedTuple):
    """How a model divides a clip.

    Attributes:
        lead: frames of the first latent frames.
        cycle: frames of the latent frames after them, again and again.
        cell: pixels of a side of a latent cell.
        token: pixels of a side of what the model takes together; sides of the clip are multiples of it.
        first: fewest frames.
        step: frames by which longer clips are longer.
        resized: whether the host resizes masks in time; else each frame's mask is taken as it is.
    """

    lead: tuple[int, ...]
    cycle: tuple[int, ...]
    cell: int
    token: int
    first: int
    step: int
    resized: bool = True

    def groups(self, count: int) -> list[tuple[int, int]]:
        """Return start and end of the frames of each latent frame of a clip of ``count`` frames.

        >>> GRIDS["Wan, Hunyuan"].groups(9)
        [(0, 1), (1, 5), (5, 9)]
        """
        sizes = chain(self.lead, cycle(self.cycle))
        stops = list(accumulate(islice(sizes, count)))
        number = stops.index(count) + 1
        return list(zip([0, *stops][:number], stops[:number], strict=True))

    def fit_length(self, count: int, how: Length) -> int:
        """Return how many frames the model takes of ``count``.

        >>> [GRIDS["LTX"].fit_length(20, how) for how in ("pad", "trim")]
        [25, 17]

        Raises:
            InputError: the number does not fit and ``how`` is ``keep``, or there is nothing to trim.
        """
        above = self.first + self.step * max(0, math.ceil((count - self.first) / self.step))
        below = self.first + self.step * ((count - self.first) // self.step)
        wanted = {"pad": above, "trim": below, "keep": count}[how]
        if wanted < self.first or (how == "keep" and count != above):
            offer = f"{below} or {above}" if below >= self.first else f"at least {above}"
            raise InputError(
                f"`frames` must be {self.first} plus a multiple of {self.step} for this model, but got {count} frames. "
                f"Choose `pad` for the length (the last frame is repeated), or pass {offer}."
            )
        return wanted


def custom_grid(first: int, group: int, cell: int) -> ModelGrid:
    """Return the grid of a model whose first latent frame is ``first`` frames, each other one ``group`` frames."""
    if min(first, group, cell) < 1:
        raise InputError(f"`first`, `group` and `cell` must be at least 1, but got {first}, {group}, {cell}.")
    return ModelGrid((first,), (group,), cell, cell, first, group)


GRIDS = {
    "Wan, Hunyuan": ModelGrid((1,), (4,), 8, 16, 1, 4),
    "VOID": ModelGrid((1,), (4,), 8, 16, 5, 8, resized=False),
    "LTX": ModelGrid((1,), (8,), 32, 32, 1, 8),
    "MiniMax H3": ModelGrid((), (1, 4, 4, 4, 4), 16, 32, 5, 17),
    "SD, per frame": ModelGrid((), (1,), 8, 8, 1, 1, resized=False),
}
"""Models by name. VOID takes an even number of latent frames, and passes masks through its autoencoder."""


class FittedMasks(NamedTuple):
    """Masks for a model.

    Attributes:
        masks: ``(T,H,W)`` float32, 0 or 1, for nodes that take masks.
        seen: ``(T,H,W)`` bool, pixels that lie in a masked cell of their own latent frame, or under ``masks``.
        cells: ``(N,h,w)`` bool, latent cells that are masked.
    """

    masks: Tensor
    seen: Tensor
    cells: Tensor


def fit_masks(
    masks: Tensor, grid: ModelGrid, unit: Unit = "latent", length: Length = "pad", progress: Progress = no_progress
) -> FittedMasks:
    """Extend masks ``(T,H,W)``, of which above a half is inside, to the cells of a model that they touch.

    Args:
        masks: of each frame.
        grid: of the model.
        unit: extend to latent cells, or to all cells of a token.
        length: what to do with a number of frames that the model does not take: repeat the last, drop, or refuse.
        progress: called with stage ``masks`` in frames.

    Returns:
        Masks of as many frames as the model takes.

    Raises:
        InputError: the size or number of the frames does not fit the model.
    """
    sizes = require_shape("masks", masks, "T H W")
    if masks.numel() == 0:
        raise InputError(f"`masks` must hold at least one mask, but got {tuple(masks.shape)}. Pass one per frame.")
    require_sides("masks", (sizes["H"], sizes["W"]), grid)
    inside = fit_frames(masks.cpu() > _HALF, grid, length)
    groups = grid.groups(len(inside))
    side = grid.cell if unit == "latent" else grid.token
    cells = torch.stack([_reduce(inside[start:stop].any(0), side, side // grid.cell) for start, stop in groups])
    sampled = _list_sampled(len(inside), len(groups)) if grid.resized else {}
    own = [number for number, (start, stop) in enumerate(groups) for _ in range(start, stop)]
    result, seen = torch.empty(inside.shape), torch.empty_like(inside)
    for frame, group in enumerate(own):
        shown = _enlarge(cells[sampled.get(frame, [group])].all(0), grid.cell)
        result[frame] = shown
        seen[frame] = shown | _enlarge(cells[group], grid.cell)
        progress("masks", frame + 1, len(own))
    return FittedMasks(result, seen, cells)


def fit_frames(frames: Tensor, grid: ModelGrid, length: Length = "pad") -> Tensor:
    """Return as many of ``frames`` ``(T,...)`` as the model takes, the last one repeated; see `fit_masks`."""
    count = grid.fit_length(len(frames), length)
    missing = count - len(frames)
    return torch.cat([frames, frames[-1:].expand(missing, *frames.shape[1:])]) if missing > 0 else frames[:count]


def require_sides(name: str, size: tuple[int, int], grid: ModelGrid) -> None:
    """Check that height and width, ``size``, are multiples of what the model takes together."""
    if any(side % grid.token for side in size):
        near = "x".join(str(max(1, round(side / grid.token)) * grid.token) for side in reversed(size))
        raise InputError(
            f"`{name}` must have sides that are multiples of {grid.token} pixels for this model, but got "
            f"{size[1]}x{size[0]}. Crop the clip to such a box, or scale frames and masks to {near}."
        )


def _reduce(inside: Tensor, side: int, repeats: int) -> Tensor:
    """Return for each square of ``side`` pixels of ``(H,W)`` whether it holds a pixel, as ``repeats``² cells."""
    touched = F.max_pool2d(inside[None].float(), side)[0] > 0
    return _enlarge(touched, repeats)


def _enlarge(cells: Tensor, side: int) -> Tensor:
    return cells.repeat_interleave(side, 0).repeat_interleave(side, 1)


def _list_sampled(count: int, latents: int) -> dict[int, list[int]]:
    """Return the latent frames for which the host looks at each of ``count`` frames; others are missing.

    A frame that serves two shows what both have; the frame with the greater share in a latent frame must be its own.
    """
    if count == latents:  # nothing is resized
        return {}
    points = [(number + 0.5) * count / latents - 0.5 for number in range(latents)]
    looked: dict[int, list[int]] = {}
    for number, point in enumerate(points):
        for frame in range(math.floor(point - _NEAR), math.floor(point + _NEAR) + 2):
            if 0 <= frame < count:
                looked.setdefault(frame, []).append(number)
    for number, point in enumerate(points):
        if _own_share(point, number, looked) < _HALF:
            raise InputError(
                f"`group` must be larger for {count} frames: the host's resizing mixes latent frame {number} with its "
                "neighbors. Pass more frames to each latent frame."
            )
    return looked


def _own_share(point: float, number: int, looked: dict[int, list[int]]) -> float:
    """Return which part of the latent frame that is sampled at ``point`` comes from frames that serve it alone."""
    below = math.floor(point)
    shares = {below: 1 - (point - below), below + 1: point - below}
    return sum(share for frame, share in shares.items() if looked.get(frame) == [number])
