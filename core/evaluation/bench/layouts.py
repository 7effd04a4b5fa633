"""Find the clips of a data set in the folders in which it is published (paper A.3)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ...documents import anything, table
from ...files.clip_meta import META, META_FILE, read_optional
from ...files.images import IMAGE_SUFFIXES, natural_key
from ...types import MAX_NAME, InputError, quote
from .dataset import CAMVID_CLASSES, CITYSCAPES_CLASSES, BenchClip, Dataset
from .sources import SOURCES

VSPW_FPS, CITYSCAPES_FPS, CAMVID_FPS = 15.0, 17.0, 15.0
"""Frames per second of the published frames; CamVid: every second one of 30, which are those with ground truth."""
CITYSCAPES_LENGTH, CITYSCAPES_LABELED = 30, 19
"""Frames of a clip, and the index of its one labeled frame."""
CITYSCAPES_MAX_SIDE = 1024
"""Half the original width. The paper reduces the frames "to fit into GPU memory"; its factor is not in the text."""
CAMVID_SIZE = (360, 480)
"""``(H, W)`` of the paper's CamVid; official frames and masks are reduced to it."""
CAMVID_CLIP, CAMVID_FIRST, CAMVID_LAST = "0016E5", 7959, 8159
"""The validation clip: frames of this drive, 101 at 15 Hz (the paper says 100)."""


def open_vspw(root: Path) -> Dataset:
    """Find the validation clips of VSPW: ``data/CLIP/{origin,mask}`` by ``val.txt``; 480p, 124 classes, K = 20."""
    listing = root / "val.txt"
    _require("vspw", listing.is_file() and (root / "data").is_dir(), f"{root} holds no val.txt or no folder data")
    names = _read_vspw_classes(root / "label_num_dic_final.json")
    clips = []
    try:
        listed = listing.read_text(encoding="utf-8-sig").split()
    except ValueError as error:
        raise InputError(f"`ROOT` must hold vspw as published, but {listing} is no UTF-8. Copy it again.") from error
    for name in listed:
        is_folder = re.fullmatch(r"[\w.-]+", name) is not None and name not in {".", ".."}
        _require("vspw", is_folder, f"{listing} names {quote(name)}, which is no clip")
        folder = root / "data" / name
        frames, masks = _list_images(folder / "origin"), {path.stem: path for path in _list_images(folder / "mask")}
        _require("vspw", bool(frames), f"{folder / 'origin'} of val.txt holds no frame")
        labeled = {index: masks[frame.stem] for index, frame in enumerate(frames) if frame.stem in masks}
        _require("vspw", bool(labeled), f"{folder / 'mask'} holds no mask named as a frame")
        clips.append(BenchClip(name, frames, labeled, VSPW_FPS, "vspw", names))
    return _make_dataset("vspw", "VSPW", clips)


def open_cityscapes(root: Path) -> Dataset:
    """Find the validation clips of Cityscapes: 30 frames, the 20th labeled; 19 classes, K = 30.

    Frames lie in ``leftImg8bit_sequence/val/CITY``, masks in ``gtFine/val/CITY``. Frames are processed at
    `CITYSCAPES_MAX_SIDE`, label maps scored at the original size.
    """
    frames_folder, truth_folder = root / "leftImg8bit_sequence" / "val", root / "gtFine" / "val"
    for folder in (frames_folder, truth_folder):
        _require("cityscapes", folder.is_dir(), f"{folder} is not there")
    clips = []
    for mask in sorted(truth_folder.glob("*/*_gtFine_labelIds.png")):
        city, sequence, number = mask.name.split("_")[:3]
        first = int(number) - CITYSCAPES_LABELED
        frames = tuple(
            frames_folder / city / f"{city}_{sequence}_{first + index:0{len(number)}d}_leftImg8bit.png"
            for index in range(CITYSCAPES_LENGTH)
        )
        missing = [frame.name for frame in frames if not frame.is_file()]
        _require("cityscapes", not missing, f"{frames_folder / city} lacks {len(missing)} frames: {missing[:1]}")
        name = f"{city}_{sequence}_{number}"
        clips.append(
            BenchClip(name, frames, {CITYSCAPES_LABELED: mask}, CITYSCAPES_FPS, "cityscapes", CITYSCAPES_CLASSES)
        )
    return _make_dataset("cityscapes", "Cityscapes", clips, num_clusters=30, max_side=CITYSCAPES_MAX_SIDE)


def open_camvid(root: Path) -> Dataset:
    """Find the validation clip of CamVid in the official folders or in the 480x360 copy; 11 classes, K = 20."""
    inner = root / "CamVid"
    root = inner if inner.is_dir() else root
    raw, official = root / "701_StillsRaw_full", root / "LabeledApproved_full"
    copy, annotated = root / "val", root / "valannot"
    if raw.is_dir() or official.is_dir():
        frames, masks = _list_images(raw), {path.stem.removesuffix("_L"): path for path in _list_images(official)}
        reader, size = "camvid", CAMVID_SIZE
    else:
        _require("camvid", copy.is_dir() and annotated.is_dir(), f"{root} holds neither {raw.name} nor val, valannot")
        frames, masks = _list_images(copy), {path.stem: path for path in _list_images(annotated)}
        reader, size = "camvid copy", None
    frames = tuple(frame for frame in frames if _is_in_camvid_clip(frame.stem))
    _require("camvid", bool(frames), f"{root} holds no frame {CAMVID_CLIP}_{CAMVID_FIRST:05d} to {CAMVID_LAST:05d}")
    missing = [frame.stem for frame in frames if frame.stem not in masks]
    _require("camvid", not missing, f"{len(missing)} frames have no mask, the first is {missing[:1]}")
    labeled = {index: masks[frame.stem] for index, frame in enumerate(frames)}
    return _make_dataset(
        "camvid", "CamVid", [BenchClip(CAMVID_CLIP, frames, labeled, CAMVID_FPS, reader, CAMVID_CLASSES, size)]
    )


def open_folders(root: Path) -> Dataset:
    """Find clips in the layout ``CLIP/{frames,masks}``, with ``meta.json`` (``classes``, ``fps``) where there is one.

    A class is known by its name: clips may number theirs differently. Settings are those for VSPW.
    """
    folders = [root] if (root / "frames").is_dir() else sorted(root.iterdir(), key=lambda path: natural_key(path.name))
    clips = []
    for folder in [folder for folder in folders if (folder / "frames").is_dir()]:
        frames, masks = _list_images(folder / "frames"), {path.stem: path for path in _list_images(folder / "masks")}
        labeled = {index: masks[frame.stem] for index, frame in enumerate(frames) if frame.stem in masks}
        _require("folders", bool(labeled), f"{folder / 'masks'} holds no mask named as a frame")
        meta = read_optional(folder / META_FILE, META, "ROOT")
        classes = meta.get("classes") or {}
        clips.append(BenchClip(folder.name, frames, labeled, meta.get("fps"), "plain", classes))
    return _make_dataset("folders", root.resolve().name, clips)


LAYOUTS: Mapping[str, Callable[[Path], Dataset]] = {
    "vspw": open_vspw,
    "cityscapes": open_cityscapes,
    "camvid": open_camvid,
    "folders": open_folders,
}
"""Loaders by the name of the data set."""


def open_dataset(name: str, root: Path) -> Dataset:
    """Return the data set ``name`` that lies in ``root``."""
    if name not in LAYOUTS:
        raise InputError(f"`DATASET` must be one of {', '.join(LAYOUTS)}, but got {name!r}.")
    _require(name, root.is_dir(), f"{root} is no folder")
    return LAYOUTS[name](root)


def _make_dataset(name: str, title: str, clips: list[BenchClip], num_clusters: int = 20, max_side: int = 0) -> Dataset:
    _require(name, bool(clips), "there is no clip")
    return Dataset(name, title, tuple(clips), num_clusters, max_side)


def _require(name: str, condition: bool, problem: str) -> None:
    """Check that what a data set needs is there."""
    if not condition:
        raise InputError(f"`ROOT` must hold {name} as published, but {problem}. Get {SOURCES[name]}.")


def _list_images(folder: Path) -> tuple[Path, ...]:
    """Return the images of a folder in natural order; none where there is no folder."""
    paths = folder.iterdir() if folder.is_dir() else ()
    found = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")]
    return tuple(sorted(found, key=lambda path: natural_key(path.name)))


def _is_in_camvid_clip(stem: str) -> bool:
    """Tell whether a frame's name is one of the validation clip."""
    match = re.fullmatch(rf"{CAMVID_CLIP}_(\d+)", stem)
    return match is not None and CAMVID_FIRST <= int(match[1]) <= CAMVID_LAST


def _read_vspw_classes(path: Path) -> dict[int, str]:
    """Return the names of VSPW's classes from its own file, or numbers where it is not there."""
    names = {label: f"class {label}" for label in range(124)}
    for name, number in read_optional(path, table(anything), "ROOT").items():
        if re.fullmatch(r"[0-9]{1,3}", str(number)) and 1 <= int(str(number)) <= 124:
            names[int(str(number)) - 1] = name[:MAX_NAME]
    return names
