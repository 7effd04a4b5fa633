"""Frames and labels that the caller holds, as tensors or arrays."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..types import MAX_LABEL, InputError, require_shape

Array = Tensor | NDArray[Any]


def to_labels(name: str, value: object) -> Tensor:
    """Return labels ``(H,W)`` uint8 on the CPU of whole numbers or booleans in a tensor or an array."""
    labels = to_tensor(name, value).cpu()
    require_shape(name, labels, "H W")
    whole = not (labels.is_floating_point() or labels.is_complex()) and labels.numel() > 0
    values = labels.long() if whole else labels  # torch has no least of some types of numpy
    if not whole or values.min() < 0 or values.max() > MAX_LABEL:
        raise InputError(
            f"`{name}` must hold whole numbers in [0, {MAX_LABEL}], but got others, as {labels.dtype}. Give labels."
        )
    return values.to(torch.uint8)


def to_tensor(name: str, value: object) -> Tensor:
    """Return a tensor or an array as a tensor that shares its memory where it can."""
    if isinstance(value, Tensor):
        return value.detach()
    if not isinstance(value, np.ndarray):
        raise InputError(
            f"`{name}` must be a tensor, an array or a path, but got {type(value).__name__}. Stack frames in a list."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an array that must not be written: nobody writes here
            return torch.from_numpy(np.ascontiguousarray(value))
    except (TypeError, ValueError) as error:
        raise InputError(f"`{name}` must hold numbers, but got an array of {value.dtype}. Convert it.") from error
