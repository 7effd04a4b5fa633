"""How values travel in a Ray cluster: tensors as the bytes that they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Packed = tuple[NDArray[np.uint8], torch.dtype, tuple[int, ...]]
"""The bytes of a tensor, its type and its shape."""


def send_plainly(ray: Any) -> None:  # noqa: ANN401, an optional package
    """Let this process send tensors as arrays, which Ray neither pickles nor copies more often than need be."""
    ray.util.register_serializer(Tensor, serializer=pack, deserializer=unpack)


def pack(tensor: Tensor) -> Packed:
    """Return the bytes of a tensor."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy(), tensor.dtype, tuple(tensor.shape)


def unpack(packed: Packed) -> Tensor:
    """Return the tensor, in memory of its own: that of Ray must not be written."""
    array, dtype, shape = packed
    if not array.size:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(array.copy()).view(dtype).reshape(shape)
