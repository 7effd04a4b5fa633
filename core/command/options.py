"""Options of `vidseg segment`, and the settings that they ask for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..config.overrides import parse_value, with_overrides
from ..config.settings import (
    OWN,
    PRESETS,
    QUALITIES,
    SETTINGS,
    Settings,
    preset,
    replace_values,
    with_quality,
    with_window_frames,
)
from ..evaluation.bench.sources import SOURCES
from ..types import quote

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""Types in which a model runs, and what torch calls them."""
OPTIONS = {
    "cluster.num_clusters": "--clusters",
    "sampling.seed": "--seed",
    "frame.max_side": "--max-side",
    "window.length": "--window",
    "feature.blocks": "--blocks",
}
"""Settings that have options of their own."""
WORDS = {
    **OPTIONS, "video.frames": "--window", "overrides": "--set", "dtype": "--dtype fp32",
    "quality": "--quality", "out": "--out",
    "anchor_mask": "--anchor-mask", "baseline": "--baseline", "device": "--device",
    "engine": "--engine ray", "workers": "--workers", "address": "--address",
    "overwrite": "--overwrite", "resume": "--resume", "num_regions": "--num", "label": "--split",
}  # fmt: skip
"""What people type for settings and arguments of the core."""


_LONGEST_PATH = 4096
"""Characters of a path at most, as systems have it."""


def read_path(text: str) -> Path:
    """Return a path that was typed; an empty one is no folder, least of all the present one."""
    if not text.strip() or "\0" in text or len(text) > _LONGEST_PATH:
        raise argparse.ArgumentTypeError(f"must be a path, but got {quote(text)}. Type a name")
    return Path(text)


def add_segment_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `vidseg segment`."""
    add = parser.add_argument
    add(
        "input",
        type=read_path,
        nargs="+",
        metavar="CLIP",
        help="video file, folder of frames, or folder that holds frames/; or a text file of paths, one a line",
    )
    add("--out", type=read_path, required=True, metavar="DIR", help="folder of the result; of many clips, DIR/CLIP")
    add(
        "--model",
        type=read_path,
        metavar="FILE",
        help="Stable Diffusion 1.x/2.x, SDXL (for fast and draft) or Stable Video Diffusion; default: the bundled one",
    )
    add(
        "--features",
        type=read_path,
        metavar="FOLDER",
        help="instead of --model: DINOv2 or DINOv3 as transformers saves it, as a yardstick; for fast and draft",
    )
    add("--preset", default="default", choices=list(PRESETS), help=OWN["preset"].text)
    add("--quality", default="exact", choices=list(QUALITIES), help=OWN["quality"].text)
    for (key, option), name in zip(OPTIONS.items(), ("K", "S", "PX", "N", "B,..."), strict=True):
        about = SETTINGS[key]
        kind = about.kind if about.kind is int else str
        default = ",".join(map(str, about.value)) if isinstance(about.value, tuple) else about.value
        add(option, type=kind, metavar=name, help=f"{about.text} ({about.span}; default: {default})")
    add("--no-refine", action="store_true", help="without correspondence-based refinement")
    add("--no-modulation", action="store_true", help="without masked modulation: coarse regions, much faster")
    add("--set", action="append", default=[], metavar="part.field=value", dest="overrides", help="any other setting")
    add(
        "--anchor-mask",
        type=read_path,
        metavar="PNG",
        help="classes of the first frame name the regions; 255 = unknown, or white",
    )
    add("--baseline", choices=["color", "slic", "frame"], help="run a baseline to compare with instead of the method")
    add_device_options(parser)
    add_engine_options(parser)
    add("--resume", action="store_true", help="continue an interrupted run at its first unfinished window")
    add("--overwrite", action="store_true", help="replace an earlier result")
    parser.epilog = "Settings of --set: " + ", ".join(SETTINGS)


def add_bench_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `vidseg bench`."""
    add = parser.add_argument
    add("dataset", choices=list(SOURCES), metavar="DATASET", help=f"one of {', '.join(SOURCES)}")
    add("root", type=read_path, metavar="ROOT", help="its folder, as published; folders: CLIP/{frames,masks}")
    add(
        "--out",
        type=read_path,
        required=True,
        metavar="DIR",
        help="folder of results; finished clips are kept",
    )
    add(
        "--model",
        type=read_path,
        metavar="FILE",
        help="Stable Diffusion 1.x/2.x or Video Diffusion; default: the bundled one",
    )
    yardstick = "adds a row, the yardstick: features of DINOv2 or DINOv3, as transformers saves it"
    add("--features", type=read_path, metavar="FOLDER", help=yardstick)
    add("--preset", default="default", metavar="NAME,...", help="settings of the rows; the first is ablated")
    add("--quality", default="exact", choices=list(QUALITIES), help="of our rows: speed for quality (default: exact)")
    add("--ablation", action="store_true", help="the paper's Table 2, and the preset without modulation")
    add("--baselines", action="store_true", help="EmerDiff twice, color K-means, 3D SLIC, label propagation")
    add("--nameless", action="store_true", help="no mask names regions; adds measures of regions without names")
    add("--rows", default="", metavar="NAME,...", help="these rows of those asked for, by the names of their folders")
    add("--clips", default="", metavar="NAME,...", help="these clips alone")
    add("--max-frames", type=int, default=0, metavar="N", help="the first N frames of each clip; 0 takes all")
    add("--max-side", type=int, metavar="PX", help="process frames at this longer side; scores stay at full size")
    add("--set", action="append", default=[], metavar="part.field=value", dest="overrides", help="any other setting")
    add_device_options(parser)
    add_engine_options(parser)
    add("--overwrite", action="store_true", help="run finished clips again")


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add where and in which type the model runs."""
    parser.add_argument("--device", metavar="DEVICE", help="cuda, mps or cpu (default: the first that is there)")
    parser.add_argument("--dtype", default="fp32", choices=list(DTYPES), help="type of the model (default: fp32)")


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add where the work is spread."""
    add = parser.add_argument
    add("--engine", default="local", choices=["local", "ray"], help="here, or on a Ray cluster (pip install ray)")
    add("--workers", type=int, default=0, metavar="N", help="of ray; by default one per GPU, or per machine without")
    add("--address", metavar="HOST:PORT", help="of the head of a Ray cluster; default: RAY_ADDRESS, or this machine")


def make_settings(arguments: argparse.Namespace, kind: str = "sd", num_frames: int = 0) -> Settings:
    """Return the settings that the options of `vidseg segment` ask for: preset, then options, then ``--set``.

    ``kind`` of the model is ``sd`` or ``svd``; ``num_frames`` a video model sees together, 0 where it does not tell.
    """
    typed = {key: getattr(arguments, _attribute(option)) for key, option in OPTIONS.items()}
    values: dict[str, Any] = {key: value for key, value in typed.items() if value is not None}
    if "feature.blocks" in values:
        values["feature.blocks"] = parse_value(SETTINGS["feature.blocks"], values["feature.blocks"])
    if kind == "svd" and "window.length" in values:
        values["video.frames"] = values["window.length"]
    if arguments.no_refine:
        values["refinement.enabled"] = False
    if arguments.no_modulation:
        values["modulation.enabled"] = False
    settings = replace_values(with_window_frames(preset(arguments.preset, kind), num_frames), values)
    return with_overrides(with_quality(settings, arguments.quality), arguments.overrides)


def list_words(arguments: argparse.Namespace) -> dict[str, str]:
    """Return what a person calls settings and arguments who typed a command; what ``--set`` names keeps its key."""
    by_key = {override.partition("=")[0].strip() for override in getattr(arguments, "overrides", ())}
    words = {key: word for key, word in WORDS.items() if key not in by_key}
    return {key: word for key, word in words.items() if hasattr(arguments, _attribute(word))}


def _attribute(word: str) -> str:
    """Return where argparse keeps the value of an option."""
    return {"--set": "overrides"}.get(word, word.split(maxsplit=1)[0].removeprefix("--").replace("-", "_"))
