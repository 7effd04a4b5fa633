"""Masks made fit for what comes after: grown, feathered, steady in time, and whole up to the border."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ..config.fields import Part, setting
from ..types import InputError, Progress, SettingError, no_progress, require_shape


@dataclass(frozen=True)
class Finish(Part):
    """How masks are finished; the steps are taken in this order."""

    smooth_frames: int = setting(
        1, "Each pixel goes with the majority of this many frames; 1 changes nothing", low=1, high=99
    )
    border: int = setting(
        2, "Pixels along the frame's border that repeat their inner neighbor: no line is left", low=0, high=64
    )
    grow: int = setting(0, "Pixels to add around; negative: remove", low=-1024, high=1024)
    shape: Literal["region", "box", "blocks"] = setting(
        "region",
        "region: as it is. box: the box around it. blocks: all blocks of 16 pixels that it touches, which some video "
        "models inpaint better",
    )
    block_size: int = setting(16, "Side of the blocks, in pixels", low=1, high=1024)
    feather: int = setting(0, "Pixels over which the edge fades out", low=0, high=1024)

    def check(self) -> None:
        """Raise `SettingError` for a value that does not fit."""
        super().check()
        if self.smooth_frames % 2 == 0:
            raise SettingError("finish.smooth_frames", "be odd", self.smooth_frames, "Use 1, 3, 5, ...")


def finish_masks(masks: Tensor, finish: Finish, progress: Progress = no_progress) -> Tensor:
    """Finish masks ``(T,H,W)``, of which above a half is inside: float32 in [0, 1] on the CPU.

    A frame without mask stays empty but for smoothing in time.
    """
    require_shape("masks", masks, "T H W")
    if masks.numel() == 0:
        raise InputError(f"`masks` must hold at least one mask, but got {tuple(masks.shape)}. Pass one per frame.")
    finish.check()
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
