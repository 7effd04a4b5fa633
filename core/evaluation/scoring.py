"""Compare the label maps of a result with a folder of masks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..files.clip_meta import META, META_FILE, read_optional
from ..files.label_images import read_label_set
from ..files.record import FRAME_NAMES, RECORD
from ..files.result_folder import LABELS_FOLDER, RECORD_FILE
from ..types import InputError
from .metrics import CONSISTENCY, MeanIoU, VideoConsistency, compute_class_ious
from .supervoxels import RegionScores, RegionTally

MASKS_FOLDER = "masks"
"""Folder of the masks inside a clip's folder."""
_NUMBERED = re.compile(r"(\d+)\.png")


class Scores(NamedTuple):
    """Scores of one clip.

    Attributes:
        num_frames: labeled frames compared.
        miou: mean intersection over union, in [0, 1].
        mvc: consistency in [0, 1] by the names of `metrics.CONSISTENCY`; None where no run is long enough.
        ious: intersection over union of each label of the masks, in [0, 1].
        names: name of each of these labels, where the result or the clip tells.
        named: whether the clusters of the result were named by an anchor mask; if not, scores mean little.
        nameless: measures to which names do not matter.
    """

    num_frames: int
    miou: float
    mvc: dict[str, float | None]
    ious: dict[int, float]
    names: dict[int, str]
    named: bool
    nameless: RegionScores

    def to_json(self) -> str:
        """Return the scores as JSON."""
        record = {
            "frames": self.num_frames,
            "miou": self.miou,
            **{name.lower().replace(" ", "_"): value for name, value in self.mvc.items()},
            "iou": {str(label): value for label, value in self.ious.items()},
            "names": {str(label): name for label, name in self.names.items()},
            "named": self.named,
            "nameless": self.nameless._asdict(),
        }
        return json.dumps(record, indent=1) + "\n"

    def to_text(self) -> str:
        """Return the scores as a table, in percent."""
        rows = [("mIoU", self.miou), *self.mvc.items()]
        rows += [(f"IoU {label} {self.names.get(label, '')}".rstrip(), value) for label, value in self.ious.items()]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {'  n/a' if value is None else f'{100 * value:5.1f}'}\n" for name, value in rows]
        return f"{self.num_frames} labeled frames\n" + "".join(lines) + self.nameless.to_text()


def score_folder(result: Path, masks: Path) -> Scores:
    """Score the label maps in ``result``, a result or a folder of ``%05d.png``, against ``masks``; void does not count.

    Masks may lie in a folder ``masks`` inside the one given. They are named as the frames where the result tells the
    names of these, else by their number.
    """
    labels = result / LABELS_FOLDER if (result / LABELS_FOLDER).is_dir() else result
    masks = masks / MASKS_FOLDER if (masks / MASKS_FOLDER).is_dir() else masks
    truth, predicted = _list_masks(result, masks), _list_numbered(labels, "DIR")
    missing = sorted(truth.keys() - predicted.keys())
    if missing:
        raise InputError(
            f"`DIR` must hold a label map of each labeled frame, but {len(missing)} are missing, the first is "
            f"{missing[0]:05d}.png for the mask {truth[missing[0]].name}. Finish the run with --resume, or pass the "
            "masks of the same clip; without names of frames 00000.png is the first."
        )
    nameless = RegionTally()
    miou, mvc = MeanIoU(), {name: VideoConsistency(*run) for name, run in CONSISTENCY.items()}
    previous = -1
    for number, prediction, mask in _read_pairs(predicted, truth):
        for consistency in mvc.values():
            if number != previous + 1:
                consistency.restart()
            consistency.add(prediction, mask)
        previous = number
        miou.update(prediction, mask)
        nameless.update(number, prediction, mask)
    ious = compute_class_ious(miou.matrix)
    named, names = _read_names(result, masks)
    return Scores(
        len(truth),
        miou.compute(),
        {name: consistency.compute() for name, consistency in mvc.items()},
        ious,
        {label: names[label] for label in ious if label in names},
        named,
        nameless.compute(),
    )


def _read_pairs(predicted: dict[int, Path], truth: dict[int, Path]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield number, label map and mask of each labeled frame in order."""
    numbers = sorted(truth)
    _, masks = read_label_set([truth[number] for number in numbers], "MASKS")
    _, predictions = read_label_set([predicted[number] for number in numbers], "DIR")
    for number, prediction, mask in zip(numbers, predictions, masks, strict=True):
        if prediction.shape != mask.shape:
            raise InputError(
                f"`MASKS` must have the size of the label maps, {prediction.shape[1]}x{prediction.shape[0]}, but "
                f"{truth[number].name} is {mask.shape[1]}x{mask.shape[0]}. Pass the masks of the same clip."
            )
        yield number, prediction, mask


def _list_masks(result: Path, masks: Path) -> dict[int, Path]:
    """Return the masks by the number of their frame: the frame of the same name, where the result tells the names."""
    names = read_optional(result / RECORD_FILE, RECORD, "DIR").get(FRAME_NAMES)
    if not names or not masks.is_dir():
        return _list_numbered(masks, "MASKS")
    numbers = {name: number for number, name in enumerate(names)}
    files = sorted(masks.glob("[!.]*.png"))
    others = [path.name for path in files if path.stem not in numbers]
    if others or not files:
        raise InputError(
            f"`MASKS` must be named as the frames, {names[0]}.png to {names[-1]}.png, but {masks} holds "
            f"{others[0] if others else 'no PNG'}. Rename the masks; to pair them by number, give the folder "
            f"{LABELS_FOLDER} of the result as DIR."
        )
    return {numbers[path.stem]: path for path in files}


def _list_numbered(folder: Path, name: str) -> dict[int, Path]:
    """Return the images of ``folder`` by the number that is their name."""
    files = folder.iterdir() if folder.is_dir() else ()
    found = {int(match[1]): path for path in files if (match := _NUMBERED.fullmatch(path.name))}
    if not found:
        raise InputError(f"`{name}` must be a folder of images named 00000.png, 00001.png, ..., but {folder} is not.")
    return found


def _read_names(result: Path, masks: Path) -> tuple[bool, dict[int, str]]:
    """Return whether an anchor mask named the clusters, and the names of labels by the clip's ``meta.json``."""
    found = read_optional(result / RECORD_FILE, RECORD, "DIR")
    meta = read_optional(masks.parent / META_FILE, META, "MASKS")
    return bool(found.get("anchor_mask", True)), meta.get("classes") or {}
