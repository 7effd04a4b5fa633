"""Masks made fit for what comes after: grown, feathered, steady in time, and whole up to the border."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ..types import InputError, Progress, no_progress, require_shape

Shape = Literal["region", "box", "blocks"]


class Finish(NamedTuple):
    """How masks are finished; the steps are taken in this order.

    Attributes:
        smooth_frames: a pixel is inside if it is in most of this many frames around each; odd, 1 changes nothing.
        border: pixels along the border of the frame that repeat their inner neighbor, so that no line is left.
        grow: pixels by which the mask is extended; negative ones are taken away.
        shape: ``region``; ``box`` around all of it; ``blocks``, all blocks of `block_size` pixels that it touches.
        block_size: of blocks, pixels.
        feather: pixels over which the edge falls from 1 to 0, half inside and half outside.
    """

    smooth_frames: int = 1
    border: int = 2
    grow: int = 0
    shape: Shape = "region"
    block_size: int = 16
    feather: int = 0


def finish_masks(masks: Tensor, finish: Finish, progress: Progress = no_progress) -> Tensor:
    """Finish masks ``(T,H,W)``, of which above a half is inside: float32 in [0, 1] on the CPU.

    A frame without mask stays empty but for smoothing in time.
    """
    require_shape("masks", masks, "T H W")
    if masks.numel() == 0:
        raise InputError(f"`masks` must hold at least one mask, but got {tuple(masks.shape)}. Pass one per frame.")
    if finish.smooth_frames < 1 or finish.smooth_frames % 2 == 0:
        raise InputError(
            f"`smooth_frames` must be odd and at least 1, but got {finish.smooth_frames}. Use 1, 3, 5, ..."
        )
    if min(finish.feather, finish.border, finish.block_size - 1) < 0:
        raise InputError(f"`feather`, `border` and `block_size` must not be negative, but got {finish}. Use 0 or more.")
    inside = masks.cpu() > 0.5
    result = torch.empty(masks.shape)
    for number in range(len(masks)):
        frame = _fill_border(_steady_masks(inside, number, finish.smooth_frames), finish.border)
        result[number] = _feather(_apply_shape(_grow(frame, finish.grow), finish), finish.feather)
        progress("masks", number + 1, len(masks))
    return result


def _steady_masks(inside: Tensor, frame: int, length: int) -> Tensor:
    """Return the majority ``(H,W)`` bool of the frames of ``(T,H,W)`` around one; at the ends of fewer frames."""
    reach = min(length // 2, frame, len(inside) - 1 - frame)
    return inside[frame - reach : frame + reach + 1].float().mean(0) > 0.5


def _grow(inside: Tensor, pixels: int) -> Tensor:
    """Return the mask ``(H,W)`` extended by a Euclidean distance; nothing is lost at the frame's border."""
    if pixels == 0 or not bool(inside.any()) or bool(inside.all()):
        return inside
    outward = pixels > 0
    distance = torch.from_numpy(distance_transform_edt((~inside if outward else inside).numpy()))
    return distance <= pixels if outward else distance > -pixels


def _fill_border(inside: Tensor, width: int) -> Tensor:
    """Return the mask ``(H,W)`` with ``width`` pixels along the border repeated from inside."""
    reach = min(width, (min(inside.shape) - 1) // 2)
    if reach < 1:
        return inside
    inner = inside[reach:-reach, reach:-reach].float()[None, None]
    return F.pad(inner, (reach,) * 4, mode="replicate")[0, 0] > 0.5


def _apply_shape(inside: Tensor, finish: Finish) -> Tensor:
    """Return the mask ``(H,W)`` in the shape that is wanted."""
    if finish.shape == "region":
        return inside
    return _fill_box(inside) if finish.shape == "box" else _fill_blocks(inside, finish.block_size)


def _fill_box(inside: Tensor) -> Tensor:
    """Return the smallest box around a mask ``(H,W)``."""
    rows, columns = inside.any(1), inside.any(0)
    between = [side.cumsum(0).bool() & side.flip(0).cumsum(0).bool().flip(0) for side in (rows, columns)]
    return torch.outer(*between)


def _fill_blocks(inside: Tensor, size: int) -> Tensor:
    """Return all blocks of ``size`` pixels that a mask ``(H,W)`` touches."""
    blocks = F.max_pool2d(inside[None].float(), size, ceil_mode=True)[0]
    whole = blocks.repeat_interleave(size, 0).repeat_interleave(size, 1)
    return whole[: inside.shape[0], : inside.shape[1]] > 0


def _feather(inside: Tensor, width: int) -> Tensor:
    """Return a mask ``(H,W)`` float32 whose edge falls over ``width`` pixels; the frame's border is no edge."""
    if width == 0 or not bool(inside.any()) or bool(inside.all()):
        return inside.float()
    within, beyond = (torch.from_numpy(distance_transform_edt(part.numpy())) for part in (inside, ~inside))
    signed = torch.where(inside, within - 0.5, 0.5 - beyond)
    return (signed / width + 0.5).clamp(0, 1).float()
