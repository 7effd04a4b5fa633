"""Label maps of a long clip on disk: written window by window, read as an ordinary tensor of mapped memory."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from ..types import InputError, require_shape


class LabelStore:
    """A file of ``T`` label maps ``(H,W)`` uint8, one byte per pixel. Use it in a ``with`` block.

    Writing goes through the file, so that what is written does not count as memory of the process.
    """

    def __init__(self, folder: Path, num_frames: int, frame_size: tuple[int, int]) -> None:
        """Make the file in ``folder``, which must have room for it.

        Raises:
            InputError: the disk has less room than the labels take.
        """
        self._shape = (num_frames, *frame_size)
        needed = num_frames * frame_size[0] * frame_size[1]
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise InputError(
                f"`video` must fit into the host's folder for temporary files with its labels, {needed / 1e9:.3g} GB, "
                f"but {folder} has {free / 1e9:.3g} GB free. Free space, or cut the video."
            )
        with tempfile.NamedTemporaryFile(dir=folder, prefix="vidseg-", suffix=".labels", delete=False) as file:
            self._path = Path(file.name)
            file.truncate(needed)
        self._file = self._path.open("r+b")

    def __enter__(self) -> LabelStore:
        """Return the store."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the file and remove its name; where the system keeps mapped files, the host clears its folder."""
        self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def write(self, start: int, maps: Tensor) -> None:
        """Write ``maps`` ``(n,H,W)`` uint8 of the frames from number ``start`` on."""
        require_shape("maps", maps, "n H W", H=self._shape[1], W=self._shape[2])
        self._file.seek(start * self._shape[1] * self._shape[2])
        self._file.write(maps.cpu().contiguous().numpy().tobytes())

    def maps(self) -> Tensor:
        """Return all label maps ``(T,H,W)`` uint8; pages are read as they are needed, changes stay in memory."""
        self._file.flush()
        size = self._shape[0] * self._shape[1] * self._shape[2]
        return torch.from_file(str(self._path), shared=False, size=size, dtype=torch.uint8).reshape(self._shape)
