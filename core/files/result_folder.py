"""The folder of a result: label maps, overlay, legend, record, and the state of an unfinished run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image
from torch import Tensor

from ..types import Progress, Region, SettingError, no_progress
from .disk import OUT, Place, explain_unwritable, write_atomically
from .label_images import make_label_image, read_label_values
from .record import RunDescription, RunResult, make_record, require_same_run

LABELS_FOLDER, OVERLAY_FILE, LEGEND_FILE = "labels", "overlay.mp4", "legend.png"
RECORD_FILE, STATE_FILE = "segmentation.json", "resume.safetensors"
MIN_BYTES_PER_PIXEL = 1 / 64
"""Least disk space that label maps and overlay of a pixel take; a disk with less is refused beforehand."""
_LABEL_FILE = re.compile(r"\d{5,}\.png")


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
        """Check that no earlier result is in the way, nor files of other origin that a run would replace."""
        if self.path.exists() and not self.path.is_dir():
            raise SettingError(self.place.setting, "be a folder", f"the file {self.path}", "Choose another name")
        if not (self.path / RECORD_FILE).exists():
            others = sorted({*self.labels.glob("*"), *(path for path in self._files() if path.exists())})
            if others:
                found = f"{self.path}, which holds {others[0].relative_to(self.path).as_posix()} and no {RECORD_FILE}"
                raise SettingError(self.place.setting, "be a folder of its own", found, "Choose another folder")
        elif not (overwrite or resume):
            remedy = "Choose another folder, replace the result with {0}, or continue it with {1} (vidseg segment)"
            limit, got = "not hold a result", f"{self.path}, which does"
            raise SettingError(self.place.setting, limit, got, remedy, "overwrite", "resume")

    def require_writable(self) -> None:
        """Check that the folder, or the one that it would be made in, can be written; nothing is left there."""
        with explain_unwritable(self.path, self.place):
            self._probe(next(path for path in (self.path, *self.path.absolute().parents) if path.exists()))

    def prepare(self, num_pixels: int) -> None:
        """Make the folder and check before any long work that ``num_pixels`` of all frames can be written."""
        with explain_unwritable(self.path, self.place):
            self.path.mkdir(parents=True, exist_ok=True)
            self._probe(self.path)
            free = shutil.disk_usage(self.path).free
        needed = int(num_pixels * MIN_BYTES_PER_PIXEL)
        if free < needed:
            limit = f"lie on a disk with at least {needed / 1e6:.3g} MB free"
            got = f"{self.path}, which has {free / 1e6:.3g} MB"
            raise SettingError(self.place.setting, limit, got, "Free space, or choose another folder")

    def start_anew(self) -> None:
        """Remove the files of an earlier run, and no others; last the record, by which they are known as such."""
        for path in (*self._files(), self.path / RECORD_FILE):
            path.unlink(missing_ok=True)

    def read_regions(self) -> tuple[Region, ...]:
        """Return the regions of a finished run."""
        record = json.loads((self.path / RECORD_FILE).read_text(encoding="utf-8"))
        return tuple(Region(int(region["label"]), str(region["name"])) for region in record["regions"])

    def require_same_run(self, run: RunDescription) -> None:
        """Check that ``run`` may continue what is here; an empty folder may always be."""
        record = self.path / RECORD_FILE
        if record.exists():
            require_same_run(record.read_text(), run)

    def write_label_maps(self, start: int, maps: Tensor, progress: Progress = no_progress) -> None:
        """Write ``maps`` ``(T,H,W)`` uint8 of the frames from number ``start`` on."""
        for number, label_map in enumerate(maps, start):
            self._write_image(self._label_file(number), make_label_image(label_map))
            progress("label maps", number + 1 - start, len(maps))

    def read_label_maps(self, stop: int) -> Iterator[Tensor]:
        """Yield the label maps ``(H,W)`` uint8 of the frames before ``stop``."""
        for number in range(stop):
            yield read_label_values(self._label_file(number), LABELS_FOLDER)

    def write_record(self, run: RunDescription, result: RunResult) -> None:
        """Write `segmentation.json`."""
        self.write_text(RECORD_FILE, make_record(run, result))

    def write_legend(self, legend: Tensor) -> None:
        """Write the legend, ``(H,W,3)`` uint8."""
        self._write_image(self.path / LEGEND_FILE, Image.fromarray(legend.numpy()))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file."""
        self.write_file(name, lambda path: path.write_bytes(content))

    def write_file(self, name: str, write: Callable[[Path], object]) -> None:
        """Let ``write`` fill a file beside the place of ``name``, then put it there."""
        target = self.path / name
        with explain_unwritable(self.path, self.place):
            target.parent.mkdir(exist_ok=True)
            write_atomically(target, write)

    def _write_image(self, target: Path, image: Image.Image) -> None:
        self.write_file(target.relative_to(self.path).as_posix(), lambda path: image.save(path, "PNG"))

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
