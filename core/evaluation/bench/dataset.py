"""Clips of a data set with their frames and masks, read as its own evaluation does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor

from ...files.images import read_image
from ...files.label_images import find_label_rules, open_picture, read_label_values
from ...regions.labels import reduce_reference
from ...types import VOID, InputError


class BenchClip(NamedTuple):
    """One clip of a data set.

    Attributes:
        name: unique in the data set.
        frames: image files in order.
        masks: mask file by number of the labeled frame.
        fps: frames per second, or None where unknown.
        reader: kind of the masks, a key of `MASK_READERS` or another.
        classes: name of each label.
        size: ``(H, W)`` that frames and masks are brought to, or None for their own.
    """

    name: str
    frames: tuple[Path, ...]
    masks: Mapping[int, Path]
    fps: float | None
    reader: str
    classes: Mapping[int, str]
    size: tuple[int, int] | None = None

    @property
    def middle(self) -> int:
        """Number of the labeled frame that pictures show: the middle one."""
        return sorted(self.masks)[len(self.masks) // 2]

    def shorten(self, max_frames: int) -> BenchClip:
        """Return the first ``max_frames`` frames; 0 keeps all."""
        if not max_frames or max_frames >= len(self.frames):
            return self
        masks = {number: path for number, path in self.masks.items() if number < max_frames}
        if not masks:
            raise InputError(
                f"`--max-frames` must reach the first labeled frame of {self.name}, number {min(self.masks) + 1}, "
                f"but got {max_frames}. Allow more frames."
            )
        return self._replace(frames=self.frames[:max_frames], masks=masks)

    def read_mask(self, number: int) -> Tensor:
        """Return the ground truth of a labeled frame, ``(H,W)`` uint8, 255 = void."""
        return next(self.read_masks([number]))

    def read_masks(self, numbers: Sequence[int]) -> Iterator[Tensor]:
        """Yield the ground truth of labeled frames, ``(H,W)`` uint8, 255 = void; one rule reads all of a clip."""
        read = MASK_READERS.get(self.reader)
        if read is None:
            rules = find_label_rules(self.masks.values(), "masks", flat_colors=False)
            read = lambda path: rules.read(open_picture(path, "masks"))  # noqa: E731
        for number in numbers:
            labels = read(self.masks[number])
            yield labels if self.size is None else reduce_reference(labels, self.size)


@dataclass(frozen=True)
class Dataset:
    """A data set and the paper's settings for it.

    Attributes:
        name: what the command line calls it.
        title: what tables call it.
        clips: in the order of their names.
        num_clusters: clusters K (A.3).
        max_side: longer side in pixels at which frames are processed; 0 keeps them.
    """

    name: str
    title: str
    clips: tuple[BenchClip, ...]
    num_clusters: int = 20
    max_side: int = 0

    def select(self, names: tuple[str, ...]) -> Dataset:
        """Return the data set with the clips called ``names`` alone; no name keeps all."""
        known = {clip.name for clip in self.clips}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InputError(f"`--clips` must name clips of {self.title}, but got {unknown}. Known: {sorted(known)}.")
        return replace(self, clips=tuple(clip for clip in self.clips if clip.name in names)) if names else self

    def shorten(self, max_frames: int) -> Dataset:
        """Return the data set with the first ``max_frames`` frames of each clip; 0 keeps all."""
        return replace(self, clips=tuple(clip.shorten(max_frames) for clip in self.clips))


class ClipFrames:
    """The frames of a clip as a `FrameSource`; all must have the size of the first."""

    def __init__(self, clip: BenchClip) -> None:
        self._clip = clip
        self.frame_size = clip.size or (int(read_image(clip.frames[0]).shape[0]), int(_read_width(clip.frames[0])))

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self._clip.frames)

    def read(self, start: int, stop: int) -> Tensor:
        """Return frames ``start`` (included) to ``stop`` (excluded), ``(T,H,W,3)`` float32 in [0, 1]."""
        return torch.stack([self._read_frame(path) for path in self._clip.frames[start:stop]])

    def _read_frame(self, path: Path) -> Tensor:
        frame = torch.from_numpy(read_image(path))
        if self._clip.size is not None and tuple(frame.shape[:2]) != self.frame_size:
            planes = frame.movedim(-1, 0)[None]  # (H,W,3) -> (1,3,H,W)
            resized = F.interpolate(planes, self.frame_size, mode="bicubic", antialias=True, align_corners=False)
            frame = resized[0].movedim(0, -1).clamp(0, 1)
        if tuple(frame.shape[:2]) != self.frame_size:
            height, width = self.frame_size
            raise InputError(
                f"`ROOT` must hold clips whose frames have one size, but {path} is {frame.shape[1]}x{frame.shape[0]} "
                f"and the first frame {width}x{height}. Extract the clip again."
            )
        return frame


def _read_width(path: Path) -> int:
    """Return the width of an image, pixels."""
    with Image.open(path) as image:
        return int(image.width)


MaskReader = Callable[[Path], Tensor]
"""Reads a mask file."""
CITYSCAPES_CLASSES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""The 19 evaluated classes by id in ``labelIds.png``; the other ids are void, as in the Cityscapes benchmark."""
CAMVID_COLORS = {
    "sky": "808080",
    "building": "800000 008040 40C000 C00080 400040",  # building, bridge, wall, archway, tunnel
    "pole": "C0C080 000040",  # column or pole, traffic cone
    "road": "804080 8000C0 C00040",  # road, lane marks driven and not driven over
    "pavement": "0000C0 40C080 8080C0",  # sidewalk, parking block, road shoulder
    "tree": "808000 C0C000",  # tree, other vegetation
    "sign": "C08080 808040 004040",  # sign or symbol, text, traffic light
    "fence": "404080",
    "car": "400080 4080C0 C080C0 C04080 804040",  # car, SUV or pickup, truck or bus, train, other moving
    "pedestrian": "404000 C08040 4000C0 408040",  # pedestrian, child, cart or pram, animal
    "bicyclist": "0080C0 C000C0",  # bicyclist, motorcycle or scooter
}
"""Colors of the official 32 classes of CamVid by the 11 classes into which evaluations merge them; others are void."""
CAMVID_CLASSES = dict(enumerate(CAMVID_COLORS))
"""The 11 classes, in the order of the 480x360 copy."""


def read_vspw(path: Path) -> Tensor:
    """Read a mask of VSPW: 0 ("others") and 255 are void, value ``n`` is class ``n - 1``, as its authors advise."""
    values = read_label_values(path, "masks")
    return torch.where((values == 0) | (values == VOID), VOID, values - 1).to(torch.uint8)


def read_cityscapes(path: Path) -> Tensor:
    """Read ``labelIds.png``: ids of `CITYSCAPES_CLASSES` stay, the others are void."""
    return _keep_classes(read_label_values(path, "masks"), CITYSCAPES_CLASSES)


def read_camvid_copy(path: Path) -> Tensor:
    """Read a mask of the 480x360 copy: 0 to 10 are `CAMVID_CLASSES`, 11 is void."""
    return _keep_classes(read_label_values(path, "masks"), CAMVID_CLASSES)


def read_camvid(path: Path) -> Tensor:
    """Read an official mask of CamVid, whose colors are classes."""
    levels = torch.from_numpy((read_image(path) * np.float32(255)).round().astype(np.int64))
    codes = (levels * torch.tensor([1 << 16, 1 << 8, 1])).sum(-1)
    labels = torch.full(codes.shape, VOID, dtype=torch.uint8)
    for label, name in CAMVID_CLASSES.items():
        for color in CAMVID_COLORS[name].split():
            labels[codes == int(color, 16)] = label
    if float(((labels == VOID) & (codes != 0)).float().mean()) > 0.5:
        raise InputError(
            f"`ROOT` must hold masks in CamVid's colors, but {path.name} has others. Take LabeledApproved_full."
        )
    return labels


def _keep_classes(labels: Tensor, classes: Mapping[int, str]) -> Tensor:
    """Return ``labels`` with those that are no class made void."""
    table = torch.full((256,), VOID, dtype=torch.uint8)
    for label in classes:
        table[label] = label
    return table[labels.long()]


MASK_READERS: Mapping[str, MaskReader] = {
    "vspw": read_vspw,
    "cityscapes": read_cityscapes,
    "camvid": read_camvid,
    "camvid copy": read_camvid_copy,
}
"""Readers by kind of mask; those of other kinds are plain label images or black and white."""
