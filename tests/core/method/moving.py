"""A clip in which one half of a stone rolls away: what looks alike is told apart by its motion alone."""

from __future__ import annotations

import torch
from vidseg.core.method.flow import measure_flow
from vidseg.core.types import Features, Grid

GRID = Grid(8, 14)
SIDE = 16
STEP = 4
"""Pixels that the thing moves each frame, a quarter of a cell."""


def texture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Return a random picture ``(height,width,3)`` in [0, 1] of large and small spots."""
    generator, spots = torch.Generator().manual_seed(seed), torch.zeros(1, 3, height, width)
    for detail in (6, 24):
        coarse = torch.rand(1, 3, height // detail + 2, width // detail + 2, generator=generator)
        spots += torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic") / 2
    return spots.clamp(0, 1)[0].movedim(0, -1)


def as_bytes(picture: torch.Tensor) -> torch.Tensor:
    return (picture * 255).round().to(torch.uint8)


def rolling_pictures(num_frames: int = 8, camera: int = 0) -> torch.Tensor:
    """Return frames ``(T,128,224,3)`` uint8: 4 by 4 cells move right over a ground that ``camera`` moves."""
    ground, thing = texture(128, 224 + camera * num_frames), texture(64, 64, seed=1)
    frames = []
    for frame in range(num_frames):
        picture = ground[:, camera * frame : camera * frame + 224].clone()
        left = 64 + STEP * frame
        picture[32:96, left : left + 64] = thing
        frames.append(as_bytes(picture))
    return torch.stack(frames)


def where_it_is(frame: int) -> torch.Tensor:
    """Return the share of each cell ``(8,14)`` that the thing covers."""
    covered = torch.zeros(128, 224)
    covered[32:96, 64 + STEP * frame : 128 + STEP * frame] = 1
    return covered.reshape(GRID.h, SIDE, GRID.w, SIDE).mean((1, 3))


def rolling_stone(num_frames: int = 8) -> Features:
    """Return features of such a clip: the thing and the four columns at its left, where it begins, look the same."""
    stone, ground = torch.randn(2, 16, generator=torch.Generator().manual_seed(2))
    queries = []
    for frame in range(num_frames):
        like_stone = where_it_is(frame) > 0.5
        like_stone[2:6, :4] = True
        queries.append(torch.where(like_stone.flatten()[:, None], stone, ground))
    tokens = torch.stack(queries)
    tokens = tokens + 0.05 * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(3))
    nothing, pictures = torch.empty(num_frames, 0), rolling_pictures(num_frames)
    flow = measure_flow(pictures, GRID)
    return Features(tokens, tokens, nothing, nothing, GRID, (128, 224), pictures, flow=flow)
