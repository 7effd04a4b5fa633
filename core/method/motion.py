"""How much a cell moves against the camera, by the flow over its window (ours).

Things of one look that touch, such as an animal and the stones that it sits on, are told apart by nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..types import Grid
from .flow import warp

FULL_MOTION = 0.07 / 13
"""Share of the longer side that a cell moves each frame, on average, to count as moving in full."""
FEWEST_FRAMES = 4
"""Frames that a window needs: with fewer, motion is no more than noise."""
_ROUNDS = 10
"""Fits of the camera's motion, each with less weight for what moved otherwise."""
_ODD = 0.25 * FULL_MOTION
"""Motion against the camera that counts half in the next fit."""


def measure_motion(flow: Tensor, grid: Grid) -> Tensor:
    """Return for a window's flow ``(T,2,2,h,w)``, see `flow.measure_flow`, the motion of each cell, ``(T,N)`` float32.

    Each pixel is followed to both ends of the window. What a cell moves, less what the camera does to the picture (an
    affine motion, which most cells share), is 1 from `FULL_MOTION` on. Each part of the window from one cut of the clip
    to the next is a window of its own. Motion is NaN where it is unknown: in less than `FEWEST_FRAMES` frames, and
    where some of them are too far apart to be followed.
    """
    cuts = flow[:-1, 0].isinf().flatten(1).any(1).nonzero()[:, 0] + 1
    runs = torch.tensor_split(flow.float(), cuts)
    return torch.cat([_measure_run(run, grid) for run in runs])


def _measure_run(flow: Tensor, grid: Grid) -> Tensor:
    """Return the motion ``(T,N)`` of frames without a cut among them."""
    ahead, back = flow[:-1, 0], flow[1:, 1]
    if len(flow) < FEWEST_FRAMES or ahead.isnan().any() or back.isnan().any():
        return torch.full((len(flow), grid.num_tokens), float("nan"))
    moved = _follow(ahead.flip(0)).flip(0) - _follow(back)
    speed = adaptive_avg_pool2d(moved / (len(flow) - 1), (grid.h, grid.w))
    return (_less_camera(speed) / FULL_MOTION).clamp(max=1)


def _follow(flow: Tensor) -> Tensor:
    """Return how far the first frame's pixels lie from those of each, ``(T,2,h,w)``.

    ``(T-1,2,h,w)`` is the flow of each frame but the first to the one before.
    """
    ways = [torch.zeros_like(flow[:1])]
    for step in torch.split(flow, 1):
        ways.append(step + warp(ways[-1], step * max(step.shape[-2:])))
    return torch.cat(ways)


def _less_camera(speed: Tensor) -> Tensor:
    """Return how much of the speeds ``(T,2,h,w)`` of cells is not the camera's, ``(T,h*w)``.

    That is an affine motion, fitted robustly.
    """
    height, width = speed.shape[-2:]
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    places = torch.stack([torch.ones_like(rows), rows, columns], dim=-1).flatten(0, 1).double()  # (h*w,3)
    speeds = speed.flatten(2).mT.double()  # (T,h*w,2)
    rest, weights = speeds, speeds.new_ones(len(speeds), height * width, 1)
    for _ in range(_ROUNDS):
        weighted = (places * weights).mT
        ridge = 1e-9 * torch.eye(3, dtype=torch.double)  # a grid may be one cell high
        camera = places @ torch.linalg.solve(weighted @ places + ridge, weighted @ speeds)
        rest = torch.linalg.vector_norm(speeds - camera, dim=-1, keepdim=True)
        weights = 1 / (1 + (rest / _ODD).square())
    return rest.float().squeeze(-1)
