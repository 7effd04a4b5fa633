"""Write small copies of the official layouts: a bright square that moves over a dark slope, with masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
COLORS = {"road": (128, 64, 128), "car": (64, 0, 128), "void": (0, 0, 0)}
"""Two of CamVid's colors, and its void."""


def scene(number: int, height: int = SIDE, width: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Return frame ``(H,W,3)`` and where the square is ``(H,W)``, the top rows of which are void (2)."""
    frame = np.broadcast_to((np.arange(width) * 64 // width)[None, :, None], (height, width, 3)).astype(np.uint8)
    inside = np.zeros((height, width), np.uint8)
    left = min(number * width // 32, width // 2)
    inside[height // 4 : 3 * height // 4, left : left + width // 2] = 1
    frame[inside == 1] = (250, 200, 20)
    inside[: height // 32] = 2
    return frame, inside


def write_frame(path: Path, number: int, height: int = SIDE, width: int = SIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene(number, height, width)[0]).save(path)


def write_mask(path: Path, number: int, values: tuple[int, int, int], height: int = SIDE, width: int = SIDE) -> None:
    """Write a gray mask in which ground, square and void have these values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)[scene(number, height, width)[1]]).save(path)


def write_vspw(root: Path, clips: tuple[str, ...] = ("12_one", "7_two"), frames: int = 8) -> Path:
    """``data/CLIP/{origin,mask}``, ``val.txt``; the mask of value n is class n - 1, 0 and 255 are void."""
    for clip in clips:
        for number in range(frames):
            write_frame(root / "data" / clip / "origin" / f"{number:08d}.jpg", number)
            write_mask(root / "data" / clip / "mask" / f"{number:08d}.png", number, (1, 124, 255 if number % 2 else 0))
    (root / "val.txt").write_text("".join(f"{clip}\n" for clip in clips))
    (root / "label_num_dic_final.json").write_text(json.dumps({"others": "0", "wall": "1", "toilet": "124"}))
    return root


def write_cityscapes(root: Path, width: int = 2 * SIDE) -> Path:
    """30 frames, of which the 20th has a mask; ground 7 (road), square 26 (car), void 0."""
    for number in range(30):
        name = f"town_000001_{number + 276:06d}_leftImg8bit.png"
        write_frame(root / "leftImg8bit_sequence" / "val" / "town" / name, number, SIDE, width)
    mask = root / "gtFine" / "val" / "town" / "town_000001_000295_gtFine_labelIds.png"
    write_mask(mask, 19, (7, 26, 0), SIDE, width)
    return root


def write_camvid(root: Path, frames: int = 8) -> Path:
    """Official folders: 960x720, masks in colors; one frame of another drive, which must be left out."""
    colors = np.array([COLORS["road"], COLORS["car"], COLORS["void"]], np.uint8)
    for number in range(frames):
        stem = f"0016E5_{7959 + 2 * number:05d}"
        write_frame(root / "701_StillsRaw_full" / f"{stem}.png", number, 720, 960)
        mask = root / "LabeledApproved_full" / f"{stem}_L.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colors[scene(number, 720, 960)[1]]).save(mask)
    write_frame(root / "701_StillsRaw_full" / "0001TP_006690.png", 0, 720, 960)
    write_frame(root / "701_StillsRaw_full" / "0016E5_00390.png", 0, 720, 960)
    return root


def write_camvid_copy(root: Path, frames: int = 8) -> Path:
    """``CamVid/{val,valannot}`` at 480x360; road 3, car 8, void 11."""
    for number in range(frames):
        stem = f"0016E5_{7959 + 2 * number:05d}"
        write_frame(root / "CamVid" / "val" / f"{stem}.png", number, 360, 480)
        write_mask(root / "CamVid" / "valannot" / f"{stem}.png", number, (3, 8, 11), 360, 480)
    return root


def write_folders(root: Path, clips: tuple[str, ...] = ("one", "two"), frames: int = 8) -> Path:
    """``CLIP/{frames,masks}``; the second clip has no mask of its frame 3, and names its square otherwise."""
    for index, clip in enumerate(clips):
        for number in range(frames):
            write_frame(root / clip / "frames" / f"{number:05d}.png", number)
            if index == 0 or number != 3:
                write_mask(root / clip / "masks" / f"{number:05d}.png", number, (0, 1, 255))
        meta = {"classes": ["ground", f"square {index}"], "fps": 10}
        (root / clip / "meta.json").write_text(json.dumps(meta))
    return root


WRITERS = {
    "vspw": write_vspw,
    "cityscapes": write_cityscapes,
    "camvid": write_camvid,
    "camvid copy": write_camvid_copy,
    "folders": write_folders,
}
