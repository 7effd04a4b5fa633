"""The folder of a result: label maps, overlay, legend, record, and the state that an interrupted run continues from."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from ..method.pipeline import ScanState
from ..regions.palette import PALETTE
from ..types import InputError, Progress, Region, no_progress
from .images import read_labels
from .record import RunDescription, RunResult, require_same_run, write_record_lines

LABELS_FOLDER, OVERLAY_FILE, LEGEND_FILE = "labels", "overlay.mp4", "legend.png"
RECORD_FILE, STATE_FILE = "segmentation.json", "resume.safetensors"
MIN_BYTES_PER_PIXEL = 1 / 64
"""Least disk space that label maps and overlay of a pixel take; a disk with less is refused beforehand."""
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_LABEL_FILE = re.compile(r"\d{5,}\.png")


class Place(NamedTuple):
    """How messages speak of a folder: the setting that chooses it, and what to do once a full disk has space again."""

    setting: str
    disk_full: str


OUT = Place("--out", "Free space, then continue with --resume.")
"""The folder of the command line."""


class ResultFolder:
    """The folder of one result. Each file appears whole or not at all."""

    def __init__(self, path: Path, place: Place = OUT) -> None:
        self.path, self.place = path, place

    @property
    def labels(self) -> Path:
        """Folder of the label maps."""
        return self.path / LABELS_FOLDER

    @property
    def state(self) -> Path:
        """File of the state after the last finished window; only while a run is unfinished."""
        return self.path / STATE_FILE

    def is_finished(self) -> bool:
        """Tell whether an earlier run is there that came to its end."""
        record = self.path / RECORD_FILE
        try:
            return record.is_file() and bool(json.loads(record.read_text())["finished"])
        except (ValueError, KeyError, TypeError):
            return False

    def require_free(self, *, overwrite: bool, resume: bool) -> None:
        """Check that no earlier result is in the way, nor files of other origin that a run would replace.

        Args:
            overwrite: whether an earlier result may be replaced.
            resume: whether it is to be continued.

        Raises:
            InputError: there is one, there are such files, or the path is a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(
                f"`{self.place.setting}` must be a folder, but {self.path} is a file. Choose another name."
            )
        if not (self.path / RECORD_FILE).exists():
            others = sorted({*self.labels.glob("*"), *(path for path in self._files() if path.exists())})
            if others:
                raise InputError(
                    f"`{self.place.setting}` must be a folder of its own, but {self.path} holds "
                    f"{others[0].relative_to(self.path).as_posix()} and no {RECORD_FILE}. Choose another folder."
                )
        elif not (overwrite or resume):
            raise InputError(
                f"`{self.place.setting}` must not hold a result, but {self.path} does. Choose another folder, "
                "replace the result with --overwrite, or continue it with --resume (`vidseg segment`)."
            )

    def require_writable(self) -> None:
        """Check that the folder, or the one that it would be made in, can be written; nothing is left there.

        Raises:
            InputError: it cannot.
        """
        try:
            self._probe(next(path for path in (self.path, *self.path.absolute().parents) if path.exists()))
        except OSError as error:
            raise describe_unwritable(self.path, error, self.place) from error

    def prepare(self, num_pixels: int) -> None:
        """Make the folder and check before any long work that the result can be written.

        Args:
            num_pixels: of all frames together.

        Raises:
            InputError: the folder cannot be written, or its disk is full.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._probe(self.path)
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise describe_unwritable(self.path, error, self.place) from error
        needed = int(num_pixels * MIN_BYTES_PER_PIXEL)
        if free < needed:
            raise InputError(
                f"`{self.place.setting}` must lie on a disk with at least {needed / 1e6:.3g} MB free, but {self.path} "
                f"has {free / 1e6:.3g} MB. Free space, or choose another folder."
            )

    def start_anew(self) -> None:
        """Remove the files of an earlier run, and no others; last the record, by which they are known as such."""
        for path in (*self._files(), self.path / RECORD_FILE):
            path.unlink(missing_ok=True)

    def read_regions(self) -> tuple[Region, ...]:
        """Return the regions of a finished run."""
        record = json.loads((self.path / RECORD_FILE).read_text(encoding="utf-8"))
        return tuple(Region(int(region["label"]), str(region["name"])) for region in record["regions"])

    def require_same_run(self, run: RunDescription) -> None:
        """Check that ``run`` may continue what is here; an empty folder may always be.

        Raises:
            InputError: it may not; the message names the difference.
        """
        record = self.path / RECORD_FILE
        if record.exists():
            require_same_run(record.read_text(), run)

    def write_label_maps(self, start: int, maps: Tensor, progress: Progress = no_progress) -> None:
        """Write ``maps`` ``(T,H,W)`` uint8 of the frames from number ``start`` on.

        ``progress`` is called with stage ``label maps`` in frames.
        """
        for number, label_map in enumerate(maps, start):
            buffer = io.BytesIO()
            make_label_image(label_map).save(buffer, "PNG")
            self._write(self._label_file(number), [buffer.getvalue()])
            progress("label maps", number + 1 - start, len(maps))

    def read_label_maps(self, stop: int) -> Iterator[Tensor]:
        """Yield the label maps ``(H,W)`` uint8 of the frames before ``stop``.

        Raises:
            InputError: one is missing or damaged.
        """
        for number in range(stop):
            yield read_labels(self._label_file(number), LABELS_FOLDER)

    def write_record(self, run: RunDescription, result: RunResult) -> None:
        """Write `segmentation.json`."""
        self._write(self.path / RECORD_FILE, (line.encode() for line in write_record_lines(run, result)))

    def write_legend(self, legend: Tensor) -> None:
        """Write the legend, ``(H,W,3)`` uint8."""
        buffer = io.BytesIO()
        Image.fromarray(legend.numpy()).save(buffer, "PNG")
        self._write(self.path / LEGEND_FILE, [buffer.getvalue()])

    def write_state(self, state: ScanState) -> None:
        """Write the state after a finished window."""

        def write(partial: Path) -> None:
            try:
                state.save(partial)
            except SafetensorError as error:  # it wraps the system's error in a text
                code = errno.ENOSPC if "os error 28" in str(error) else errno.EIO
                raise OSError(code, os.strerror(code)) from error

        self.write_file(STATE_FILE, write)

    def write_file(self, name: str, write: Callable[[Path], None]) -> None:
        """Let ``write`` fill a file beside the place of ``name``, then put it there."""
        target = self.path / name
        partial = target.with_name(f".{target.name}.partial")
        try:
            target.parent.mkdir(exist_ok=True)
            write(partial)
            os.replace(partial, target)  # noqa: PTH105, atomic on every platform
        except OSError as error:
            raise describe_unwritable(self.path, error, self.place) from error
        finally:
            partial.unlink(missing_ok=True)

    def _write(self, target: Path, content: Iterable[bytes]) -> None:
        """Write a whole file."""
        self.write_file(target.relative_to(self.path).as_posix(), lambda partial: _write_through(partial, content))

    def _label_file(self, number: int) -> Path:
        return self.labels / f"{number:05d}.png"

    def _files(self) -> list[Path]:
        """Return the files of a run but for the record; the label maps are those that are here."""
        maps = [path for path in self.labels.glob("*.png") if _LABEL_FILE.fullmatch(path.name)]
        return [self.state, self.path / OVERLAY_FILE, self.path / LEGEND_FILE, *sorted(maps)]

    @staticmethod
    def _probe(folder: Path) -> None:
        """Write a file into a folder and remove it."""
        probe = folder / ".vidseg-probe"
        probe.write_bytes(b"vidseg")
        probe.unlink()


def make_label_image(label_map: Tensor) -> Image.Image:
    """Return ``label_map`` ``(H,W)`` uint8 as a palette image whose index is the label."""
    image = Image.fromarray(label_map.cpu().numpy().astype(np.uint8))
    image.putpalette(PALETTE.flatten().tolist())
    return image


def count_areas(label_map: Tensor) -> dict[int, int]:
    """Return the number of pixels of each label that occurs.

    >>> count_areas(torch.tensor([[0, 3], [3, 3]], dtype=torch.uint8))
    {0: 1, 3: 3}
    """
    labels, counts = torch.unique(label_map, return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))


def list_colors(regions: Sequence[Region]) -> dict[int, str]:
    """Return the color of each region as ``#rrggbb``."""
    return {region.label: "#{:02x}{:02x}{:02x}".format(*PALETTE[region.label].tolist()) for region in regions}


def describe_unwritable(path: Path, error: OSError, place: Place) -> InputError:
    """Return what to say when writing below ``path`` failed."""
    remedy = "Choose a folder that you may write to."
    if error.errno in _DISK_FULL:
        remedy = place.disk_full
    return InputError(f"`{place.setting}` must be writable, but {path} is not: {error.strerror or error}. {remedy}")


def _write_through(path: Path, content: Iterable[bytes]) -> None:
    """Write ``content`` so that it outlasts a loss of power."""
    with path.open("wb") as file:
        file.writelines(content)
        file.flush()
        os.fsync(file.fileno())
