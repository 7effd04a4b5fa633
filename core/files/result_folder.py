"""The folder of a result: label maps, overlay, legend, record, and the state of an unfinished run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..documents import DamageError, read_document
from ..leaves import Leaves
from ..regions.cutting import restore_leaves
from ..types import LabelMaps, Progress, Region, SettingError, no_progress
from .disk import OUT, Place, explain_unwritable, write_atomically
from .images import open_image
from .label_images import make_label_image, read_label_values
from .lock import hold_folder
from .record import PROGRAM, RECORD, RunDescription, RunResult, make_record, require_same_run

LABELS_FOLDER, OVERLAY_FILE, LEGEND_FILE = "labels", "overlay.mp4", "legend.png"
LEAVES_FOLDER = "leaves"
"""Folder of the maps of the leaves that regions are made of, where there are any."""
RECORD_FILE, STATE_FILE = "segmentation.json", "resume.safetensors"
MIN_BYTES_PER_PIXEL = 1 / 64
"""Least disk space that label maps and overlay of a pixel take; a disk with less is refused beforehand."""
_RUNS = 3
"""How zlib compresses label maps: by runs alone (`Z_RLE`), in a third of the time, for a few more bytes."""
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

    def hold(self) -> AbstractContextManager[None]:
        """Make the folder, and keep other runs out of it."""
        return hold_folder(self.path, self.place)

    def is_finished(self) -> bool:
        """Tell whether an earlier run is there that came to its end."""
        try:
            return (self.path / RECORD_FILE).is_file() and bool(self.read_record()["finished"])
        except SettingError:
            return False

    def read_record(self) -> dict[str, Any]:
        """Return the checked record of a run, or of Save Regions; its regions are `Region`."""
        limit, remedy = f"hold a readable {RECORD_FILE} of {PROGRAM}", "Choose another folder"
        try:
            record = read_document(self.path / RECORD_FILE, RECORD)
        except (OSError, DamageError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise SettingError(self.place.setting, limit, f"one in {self.path} that {reason}", remedy) from error
        if record["program"] != PROGRAM:
            raise SettingError(self.place.setting, limit, f"one of another program in {self.path}", remedy)
        return dict(record)

    def require_free(self, *, overwrite: bool, resume: bool) -> None:
        """Check that no earlier result is in the way, nor files of other origin that a run would replace."""
        if self.path.exists() and not self.path.is_dir():
            raise SettingError(self.place.setting, "be a folder", f"the file {self.path}", "Choose another name")
        if not (self.path / RECORD_FILE).exists():
            others = sorted({*self.labels.glob("*"), *(path for path in self._files() if path.exists())})
            if others:
                found = f"{self.path}, which holds {others[0].relative_to(self.path).as_posix()} and no {RECORD_FILE}"
                raise SettingError(self.place.setting, "be a folder of its own", found, "Choose another folder")
            return
        record = self.read_record()
        if not (overwrite or resume):
            remedy = "Choose another folder, replace the result with {0}, or continue it with {1} (vidseg segment)"
            limit, got = "not hold a result", f"{self.path}, which does"
            raise SettingError(self.place.setting, limit, got, remedy, "overwrite", "resume")
        foreign = [self.labels] if self.labels.is_symlink() else []
        if not record["finished"] and record["frames_done"] < self._count_frames(record):  # these are written last
            foreign += [path for path in (self.path / OVERLAY_FILE, self.path / LEGEND_FILE) if path.exists()]
        if foreign:
            got = f"{self.path}, whose {foreign[0].name} is not of the run that is there"
            remedy = "Move it away, or choose another folder"
            raise SettingError(self.place.setting, "be a folder of its own", got, remedy)

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

    @contextmanager
    def whole_or_nothing(self) -> Iterator[None]:
        """Remove a new folder again where writing into it fails or is stopped."""
        try:
            yield
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def start_anew(self) -> None:
        """Remove the files of an earlier run, and no others; last the record, by which they are known as such."""
        if (self.path / RECORD_FILE).exists():
            count = self._count_frames(self.read_record())
            own = [path for path in self._files() if path.parent == self.path or int(path.stem) < count]
            for path in (*own, self.path / RECORD_FILE):
                path.unlink(missing_ok=True)

    def read_regions(self) -> tuple[Region, ...]:
        """Return the regions of a finished run."""
        return tuple(self.read_record()["regions"])

    def require_same_run(self, run: RunDescription) -> None:
        """Check that ``run`` may continue what is here, and that it is all here; an empty folder may always be."""
        if not (self.path / RECORD_FILE).exists():
            return
        record = self.read_record()
        require_same_run((self.path / RECORD_FILE).read_text(encoding="utf-8"), run)
        done = record["frames_done"]
        if done and not record["finished"] and not self.state.exists():
            got = f"none in {self.path}, though {done} frames are finished"
            raise SettingError("resume", f"find {STATE_FILE}", got, "Restore it, or start anew with {0}", "overwrite")
        folders = (LABELS_FOLDER, *([LEAVES_FOLDER] if record.get("leaves") else []))
        for path in (self._map_file(folder, number) for folder in folders for number in range(done)):
            self._require_size(path, run.clip.frame_size)

    def write_label_maps(self, start: int, labels: LabelMaps, progress: Progress = no_progress) -> None:
        """Write label maps ``(T,H,W)`` uint8, and those of their leaves, of the frames from number ``start`` on."""
        for number, label_map in enumerate(labels.maps):
            self._write_labels(self._map_file(LABELS_FOLDER, start + number), label_map)
            if labels.leaves:
                self._write_labels(self._map_file(LEAVES_FOLDER, start + number), labels.leaves.maps[number])
            progress("label maps", number + 1, labels.num_frames)

    def read_label_maps(self, stop: int, folder: str = LABELS_FOLDER) -> Iterator[Tensor]:
        """Yield the label maps ``(H,W)`` uint8, or those of the leaves, of the frames before ``stop``."""
        for number in range(stop):
            yield read_label_values(self._map_file(folder, number), folder)

    def read_leaves(self, maps: Tensor) -> Leaves | None:
        """Return the leaves of the label maps ``(T,H,W)`` that are here; None if there are none, or no longer theirs.

        Label maps that were changed since, in an image editor, are not those of the leaves.
        """
        made_of = self.read_record().get("leaves")
        if made_of is None or not (self.path / LEAVES_FOLDER).is_dir():
            return None
        leaf_maps = torch.empty_like(maps)
        table = torch.tensor(made_of["owners"], dtype=maps.dtype)
        for number, leaf_map in enumerate(self.read_label_maps(len(maps), LEAVES_FOLDER)):
            inside = leaf_map.shape == maps.shape[1:] and int(leaf_map.max()) < len(table)
            if not inside or not torch.equal(table[leaf_map.long()], maps[number]):
                return None
            leaf_maps[number] = leaf_map
        return restore_leaves(leaf_maps, made_of)

    def read_all_label_maps(self, count: int) -> Tensor:
        """Return all label maps ``(T,H,W)`` uint8, which must have the size of the first, in a byte a pixel."""
        maps: Tensor | None = None
        for number, label_map in enumerate(self.read_label_maps(count)):
            if maps is None:
                maps = torch.empty((count, *label_map.shape), dtype=torch.uint8)
            if label_map.shape != maps.shape[1:]:
                sizes = [f"{shape[1]}x{shape[0]}" for shape in (label_map.shape, maps.shape[1:])]
                got = f"{self._map_file(LABELS_FOLDER, number).name} of {sizes[0]} after others of {sizes[1]}"
                raise SettingError("folder", "hold label maps of one size", got, "Save the regions again")
            maps[number] = label_map
        if maps is None:
            raise SettingError("folder", "hold label maps", f"none in {LABELS_FOLDER}/", "Save the regions again")
        return maps

    @staticmethod
    def _require_size(path: Path, size: tuple[int, int]) -> None:
        """Check that a map of a finished frame is there and has the size ``(H, W)`` of the frames."""
        try:
            with open_image(path) as image:
                fault = "" if (image.height, image.width) == size else f"is {image.width}x{image.height}"
        except OSError:
            fault = "is damaged" if path.exists() else "is missing"
        if fault:
            limit = f"find the label maps of all finished frames, {size[1]}x{size[0]}"
            remedy = "Put it back, or start anew with {0}"
            raise SettingError("resume", limit, f"{path}, which {fault}", remedy, "overwrite")

    @staticmethod
    def _count_frames(record: dict[str, Any]) -> int:
        """Return how many label maps a run may have written."""
        frames: int = record["frames_done"]
        return max(frames, int(record.get("input", {}).get("num_frames", 0)))

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

    def _write_labels(self, target: Path, label_map: Tensor) -> None:
        self._write_image(target, make_label_image(label_map), compress_type=_RUNS)

    def _write_image(self, target: Path, image: Image.Image, **options: int) -> None:
        self.write_file(target.relative_to(self.path).as_posix(), lambda path: image.save(path, "PNG", **options))

    def _map_file(self, folder: str, number: int) -> Path:
        return self.path / folder / f"{number:05d}.png"

    def _files(self) -> list[Path]:
        """Return the files of a run but for the record; the label maps are those that are here."""
        folders = (self.labels, self.path / LEAVES_FOLDER)
        maps = [path for folder in folders for path in folder.glob("*.png") if _LABEL_FILE.fullmatch(path.name)]
        return [self.state, self.path / OVERLAY_FILE, self.path / LEGEND_FILE, *sorted(maps)]

    @staticmethod
    def _probe(folder: Path) -> None:
        """Write a file into a folder and remove it."""
        probe = folder / ".vidseg-probe"
        probe.write_bytes(b"vidseg")
        probe.unlink()
