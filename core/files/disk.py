"""Writing that leaves a whole file or none, what to say when it fails, and label maps that are too many for memory."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..types import InputError, SettingError, require_shape

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Place(NamedTuple):
    """How messages speak of a folder: the setting that chooses it, and what to do once a full disk has space again.

    ``others`` are the keys that the remedy speaks of.
    """

    setting: str
    disk_full: str
    others: tuple[str, ...] = ()


OUT = Place("out", "Free space, then continue with {0}", ("resume",))
"""The folder of a run."""


def write_atomically(path: Path, write: Callable[[Path], object], *, lasting: bool = True) -> None:
    """Let ``write`` fill a file beside ``path``, then put it there; ``lasting``: it outlasts a loss of power."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        if lasting:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(partial, path)  # noqa: PTH105, atomic on every platform
        if lasting:
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder outlast a loss of power, where the system can do that."""
    if os.name != "nt":
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


@contextlib.contextmanager
def explain_unwritable(path: Path, place: Place) -> Iterator[None]:
    """Say in the words of ``place`` why writing ``path``, or below it, failed."""
    try:
        yield
    except OSError as error:
        remedy = place.disk_full if error.errno in _DISK_FULL else "Choose a folder that you may write to"
        got = f"{path}, which is not: {error.strerror or error}"
        raise SettingError(place.setting, "be writable", got, remedy, *place.others) from error


class LabelStore:
    """A file of ``T`` label maps ``(H,W)`` uint8, written window by window, read as a tensor of mapped memory.

    Writing goes through the file, so that what is written does not count as memory of the process.
    """

    def __init__(self, folder: Path, num_frames: int, frame_size: tuple[int, int]) -> None:
        """Make the file in ``folder``, which must have room for it."""
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
