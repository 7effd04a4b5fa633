"""Headers of `.safetensors` files: what a file holds, without reading its tensors; pickles are refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ..types import InputError
from .sizes import SUPPORTED, Shapes

PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
MAX_HEADER_BYTES = 100_000_000
"""Limit of the format itself."""


class TensorInfo(NamedTuple):
    """Entry of a `.safetensors` header."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        count = 1
        for length in self.shape:
            count *= length
        return count


class Header(NamedTuple):
    """Header of a `.safetensors` file."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]

    @property
    def shapes(self) -> Shapes:
        """Shapes by tensor name."""
        return {name: info.shape for name, info in self.tensors.items()}


def read_header(path: Path) -> Header:
    """Read the header of a `.safetensors` file and check that the file is complete.

    Raises:
        InputError: a pickle, another kind of file, or a truncated one.
    """
    _refuse_pickle(path)
    num_bytes = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        text = stream.read(length) if 2 <= length <= MAX_HEADER_BYTES else b""
    if not text.startswith(b"{"):
        raise InputError(f"`model` must be a .safetensors file, but {path.name} is not one. Supported are {SUPPORTED}.")
    try:
        entries: dict[str, Any] = json.loads(text)
        metadata = dict(entries.pop("__metadata__", None) or {})
        tensors = {name: TensorInfo(str(e["dtype"]), tuple(map(int, e["shape"]))) for name, e in entries.items()}
        end = 8 + length + max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError):
        raise _incomplete(path, num_bytes) from None
    if end > num_bytes:
        raise _incomplete(path, num_bytes)
    return Header(tensors, metadata)


def find_common_dtype(infos: Iterable[TensorInfo]) -> str:
    """Return the type of most values, such as ``F16``."""
    counts: dict[str, int] = {}
    for info in infos:
        counts[info.dtype] = counts.get(info.dtype, 0) + info.size
    return max(counts, key=lambda dtype: counts[dtype], default="")


def _refuse_pickle(path: Path) -> None:
    """Refuse files that could run code when they are read."""
    with path.open("rb") as stream:
        start = stream.read(9)
    is_pickle = start[:2] in (b"PK", b"\x80\x02", b"\x80\x04") and start[8:] != b"{"  # else the length of a header
    if path.suffix.lower() in PICKLE_SUFFIXES or is_pickle:
        raise InputError(
            f"`model` must be a .safetensors file, but {path.name} is a pickle, which could run code. Convert it where "
            "you trust it: `safetensors.torch.save_file({k: v.contiguous() for k, v in torch.load(FILE, "
            'weights_only=True)["state_dict"].items()}, OUT)`.'
        )


def _incomplete(path: Path, num_bytes: int) -> InputError:
    return InputError(
        f"`model` must be a complete .safetensors file, but {path.name} ends after {num_bytes} bytes, before its last "
        "tensor, or has a damaged header. Download or copy it again."
    )
