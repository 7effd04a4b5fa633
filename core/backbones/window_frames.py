"""What a UNet call of a video model may hold."""

from __future__ import annotations

import torch
from torch import Tensor

from ..types import InputError


def require_whole_windows(frames: Tensor, count: int, total: int) -> None:
    """Check that ``frames`` are ``0 .. count - 1`` in order, once or more, for ``total`` latents.

    Raises:
        InputError: they are not.
    """
    whole = torch.arange(count).repeat(max(1, total // count))
    if len(frames) != total or not torch.equal(frames.cpu(), whole):
        raise InputError(
            f"`frames` must be whole windows of {count} frames in order for a video model, but got {frames.tolist()}."
        )
