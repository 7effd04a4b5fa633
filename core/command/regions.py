"""The command `vidseg regions`: another number of regions for a result that is there, without running a model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..files.clip import open_clip
from ..files.overlay import write_overlay
from ..files.record import change_regions
from ..files.result_folder import LEAVES_FOLDER, OVERLAY_FILE, RECORD_FILE, ResultFolder
from ..progress import RunProgress
from ..regions.cutting import cut_regions, restore_leaves, split_region
from ..regions.labels import count_pixels
from ..regions.palette import draw_legend
from ..types import InputError, LabelMaps, SettingError

STAGE = "regions"
"""Name of the stage that writes the label maps."""


class Recut:
    """Label maps of a result folder, cut anew from its leaves."""

    def __init__(self, path: Path, progress: RunProgress) -> None:
        self.folder, self._progress = ResultFolder(path), progress
        if not (path / RECORD_FILE).is_file():
            raise SettingError("result", f"hold {RECORD_FILE}", f"{path}, which does not", "Check the path")
        record = self.folder.read_record()
        if not record.get("leaves") or not (path / LEAVES_FOLDER).is_dir():
            limit, got = "be of a finished run with the method tree", f"{path}, which is not"
            raise SettingError("result", limit, got, "Segment the clip again")
        self.num_frames: int = record["frames_done"]
        leaves = restore_leaves(torch.empty(0, dtype=torch.uint8), record["leaves"])
        self.labels = LabelMaps(torch.empty(0, 1, 1), self.folder.read_regions(), leaves=leaves)

    def change(self, num_regions: int | None, splits: list[int]) -> None:
        """Cut into a number of regions, then split some of these in two."""
        if num_regions is not None:
            self.labels = cut_regions(self.labels, num_regions)
        for label in splits:
            self.labels = split_region(self.labels, label)

    def write(self, clip: Path | None) -> None:
        """Write label maps, legend and record; the overlay if the clip is given, else the old one is removed."""
        leaves = self.labels.leaves
        if leaves is None:
            raise RuntimeError("labels lost their leaves")
        table, areas = torch.tensor(leaves.owners, dtype=torch.uint8), torch.zeros(256, dtype=torch.int64)
        self._write_record(areas, finished=False)
        for number, leaf_map in enumerate(self.folder.read_label_maps(self.num_frames, folder=LEAVES_FOLDER)):
            label_map: Tensor = table[leaf_map.long()][None]
            self.folder.write_label_maps(number, LabelMaps(label_map, self.labels.regions))
            areas += count_pixels(label_map)[0]
            self._progress(STAGE, number + 1, self.num_frames)
        self.folder.write_legend(draw_legend(self.labels.regions))
        (self.folder.path / OVERLAY_FILE).unlink(missing_ok=True)
        if clip is not None:
            with open_clip(clip, self._progress) as frames:
                if frames.num_frames < self.num_frames:
                    raise InputError(
                        f"`clip` must have the {self.num_frames} frames that were segmented, but got "
                        f"{frames.num_frames}. Give the same clip."
                    )
                write_overlay(self.folder, frames, self._progress)
        self._write_record(areas, finished=True)

    def _write_record(self, areas: Tensor, *, finished: bool) -> None:
        earlier = (self.folder.path / RECORD_FILE).read_text(encoding="utf-8")
        changed = change_regions(earlier, self.labels, areas.tolist(), finished=finished)
        self.folder.write_text(RECORD_FILE, changed)
