"""Optical flow between neighboring frames: a pyramid of Lucas and Kanade (1981), with robust weights (ours).

It tells which cells move against the camera, see `motion`; what it costs does not grow with the frames. Scikit-image
has the same method, but is no part of the host.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate, pad

from ..types import Grid

PIXELS_PER_CELL = 4
"""Side of a cell in the pictures that are compared: finer ones show no motion better (measured)."""
LONGEST_SIDE = 112
"""Pixels of the longer side of those pictures at most, so that their time does not grow with the frames."""
_SMALLEST = 16
"""Pixels of the shorter side down to which pictures are halved."""
_LEVELS = 5
_ROUNDS = 3
"""Corrections of the flow on each level."""
_RADIUS = 3
"""Pixels beside one that move with it."""
_FLAT = 1e-4
"""Added to squared gradients, so that what has no texture takes the flow of what is coarser."""
_OUTLIER = 0.1
"""Difference of colors in [0, 1] that counts half: more is hidden, or has changed."""
_CUT = 0.1
"""Mean difference of colors in [0, 1], after the flow, from which two frames have nothing in common."""
_LOST = 0.4
"""Share of pixels that are not found back, to within a pixel, from which two frames are too far apart to be followed:
0.45 to 0.7 where they are a second apart, up to 0.36 in clips of 24 frames a second (measured)."""
_EXCHANGES = "12 45 78 01 34 67 12 45 78 03 58 47 36 14 25 47 42 64 42"
"""Pairs of nine values which, put in order one after the other, leave the median in the middle (Smith, 1996)."""
_TOGETHER = 32
"""Pairs of frames that are compared at once."""


def measure_flow(pictures: Tensor, grid: Grid, device: str = "cpu") -> Tensor:
    """Return the flow of each of ``(T,H,W,3)`` uint8 frames to the next and to the one before, ``(T,2,2,h,w)``.

    It is float16, right and down, in units of the longer side. The last frame has none to the next, the first none to
    the one before: 0. It is infinite across a cut, and NaN between frames too far apart to be followed.
    """
    scale = min(PIXELS_PER_CELL, LONGEST_SIDE / max(grid))
    size = (max(1, round(grid.h * scale)), max(1, round(grid.w * scale)))
    flow = torch.zeros(len(pictures), 2, 2, *size, dtype=torch.float16)
    for start in range(0, len(pictures) - 1, _TOGETHER):
        small = torch.stack([_shrink(frame.to(device), size) for frame in pictures[start : start + _TOGETHER + 1]])
        ahead, back = _flow_both_ways(small[:-1], small[1:])
        flow[start : start + len(ahead), 0] = (ahead / max(size)).cpu()
        flow[start + 1 : start + 1 + len(back), 1] = (back / max(size)).cpu()
    return flow


def _flow_both_ways(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the flow ``(B,2,h,w)`` of pictures to others, and back, as `measure_flow` says."""
    ahead, back = estimate_flow(first, second), estimate_flow(second, first)
    missed = torch.linalg.vector_norm(ahead + warp(back, ahead), dim=1) > 1
    cut = (warp(second, ahead) - first).abs().flatten(1).mean(1) > _CUT
    lost = missed.flatten(1).float().mean(1) > _LOST
    ahead[lost] = back[lost] = torch.nan
    ahead[cut] = back[cut] = torch.inf
    return ahead, back


def warp(maps: Tensor, flow: Tensor) -> Tensor:
    """Return what maps ``(B,C,h,w)`` have where a flow ``(B,2,h,w)`` leads; at the border what is nearest."""
    right, down = _look_along(flow)
    height, width = maps.shape[-2:]
    grid = torch.stack([(right + 0.5) * 2 / width - 1, (down + 0.5) * 2 / height - 1], dim=-1)
    return grid_sample(maps, grid, padding_mode="border", align_corners=False)


def estimate_flow(sources: Tensor, targets: Tensor) -> Tensor:
    """Return the flow ``(B,2,h,w)`` of pictures ``(B,3,h,w)`` in [0, 1] to others: right and down, in pixels."""
    levels = [(sources, targets)]
    while len(levels) < _LEVELS and min(levels[-1][0].shape[-2:]) >= 2 * _SMALLEST:
        first, second = (avg_pool2d(each, 2, ceil_mode=True, count_include_pad=False) for each in levels[-1])
        levels.append((first, second))
    flow = sources.new_zeros(len(sources), 2, *levels[-1][0].shape[-2:])
    for first, second in reversed(levels):
        if flow.shape[-2:] != first.shape[-2:]:
            flow = 2 * interpolate(flow, first.shape[-2:], mode="bilinear", align_corners=False)
        flow = _correct(flow, first, second)
    return flow


def _correct(flow: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Return a flow after some rounds of Lucas and Kanade, whose outliers a median removes."""
    height, width = source.shape[-2:]
    padded = pad(source, (1, 1, 1, 1), mode="replicate")
    right = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    for _ in range(_ROUNDS):
        change = warp(target, flow) - source
        x, y = _look_along(flow)
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        weight = inside[:, None] / (1 + change.square().sum(1, keepdim=True) / _OUTLIER**2)
        products = [(right, right), (right, down), (down, down), (right, change), (down, change)]
        sums = torch.cat([(one * other).sum(1, keepdim=True) * weight for one, other in products], dim=1)
        xx, xy, yy, xt, yt = torch.split(_average(sums), 1, dim=1)
        xx, yy = xx + _FLAT, yy + _FLAT
        step = torch.cat([xy * yt - yy * xt, xy * xt - xx * yt], dim=1) / (xx * yy - xy * xy)
        flow = _take_median(flow + step.clamp(-1, 1))
    return flow


def _look_along(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Return where a flow ``(B,2,h,w)`` leads, ``(B,h,w)`` each: pixels from the left and from the top."""
    height, width = flow.shape[-2:]
    right = flow[:, 0] + torch.arange(width, device=flow.device)
    down = flow[:, 1] + torch.arange(height, device=flow.device)[:, None]
    return right, down


def _average(maps: Tensor) -> Tensor:
    """Return the mean of maps ``(B,C,h,w)`` over the pixels around each."""
    padded = pad(maps, (_RADIUS,) * 4, mode="replicate")
    return avg_pool2d(avg_pool2d(padded, (1, 2 * _RADIUS + 1), 1), (2 * _RADIUS + 1, 1), 1)


def _take_median(maps: Tensor) -> Tensor:
    """Return the median of maps ``(B,C,h,w)`` over the nine pixels around each, in half the time of torch's."""
    height, width = maps.shape[-2:]
    padded = pad(maps, (1, 1, 1, 1), mode="replicate")
    around = [padded[..., row : row + height, column : column + width] for row in range(3) for column in range(3)]
    for low, high in ((int(pair[0]), int(pair[1])) for pair in _EXCHANGES.split()):
        around[low], around[high] = torch.minimum(around[low], around[high]), torch.maximum(around[low], around[high])
    return around[4]


def _shrink(frame: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a frame ``(H,W,3)`` uint8 as a picture ``(3,h,w)`` in [0, 1]."""
    return interpolate(frame.movedim(-1, 0)[None].float() / 255, size, mode="area")[0]
