"""How the mask files of each data set become labels ``(H,W)`` uint8, 255 = void, and what the labels are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..files.images import read_image, read_labels
from ..types import VOID, InputError

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
"""Colours of the official 32 classes of CamVid by the 11 classes into which evaluations merge them; others are void."""
CAMVID_CLASSES = dict(enumerate(CAMVID_COLORS))
"""The 11 classes, in the order of the 480x360 copy."""


def read_vspw(path: Path) -> Tensor:
    """Read a mask of VSPW: 0 ("others") and 255 are void, value ``n`` is class ``n - 1``, as its authors advise."""
    values = read_labels(path, "masks")
    return torch.where((values == 0) | (values == VOID), VOID, values - 1).to(torch.uint8)


def read_cityscapes(path: Path) -> Tensor:
    """Read ``labelIds.png``: ids of `CITYSCAPES_CLASSES` stay, the others are void."""
    return _kept(read_labels(path, "masks"), CITYSCAPES_CLASSES)


def read_camvid_copy(path: Path) -> Tensor:
    """Read a mask of the 480x360 copy: 0 to 10 are `CAMVID_CLASSES`, 11 is void."""
    return _kept(read_labels(path, "masks"), CAMVID_CLASSES)


def read_camvid(path: Path) -> Tensor:
    """Read an official mask of CamVid, whose colours are classes.

    Raises:
        InputError: most colours are none of CamVid's.
    """
    levels = torch.from_numpy((read_image(path) * np.float32(255)).round().astype(np.int64))
    codes = (levels * torch.tensor([1 << 16, 1 << 8, 1])).sum(-1)
    labels = torch.full(codes.shape, VOID, dtype=torch.uint8)
    for label, name in CAMVID_CLASSES.items():
        for color in CAMVID_COLORS[name].split():
            labels[codes == int(color, 16)] = label
    if float(((labels == VOID) & (codes != 0)).float().mean()) > 0.5:
        raise InputError(
            f"`ROOT` must hold masks in CamVid's colours, but {path.name} has others. Take LabeledApproved_full."
        )
    return labels


def _kept(labels: Tensor, classes: Mapping[int, str]) -> Tensor:
    """Return ``labels`` with those that are no class made void."""
    table = torch.full((256,), VOID, dtype=torch.uint8)
    for label in classes:
        table[label] = label
    return table[labels.long()]


def read_plain(path: Path) -> Tensor:
    """Read a palette or grey image whose values are labels."""
    return read_labels(path, "masks")


MASK_READERS: Mapping[str, MaskReader] = {
    "plain": read_plain,
    "vspw": read_vspw,
    "cityscapes": read_cityscapes,
    "camvid": read_camvid,
    "camvid copy": read_camvid_copy,
}
"""Readers by kind of mask."""
