"""Options of `vidseg segment`, and the settings that they ask for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ..config.overrides import list_setting_names, parse_value, with_overrides
from ..config.settings import PRESETS, QUALITIES, Settings, preset, replace_parts, with_quality, with_window_frames

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
OPTIONS = {
    "cluster.num_clusters": "clusters",
    "sampling.seed": "seed",
    "frame.max_side": "max_side",
    "window.length": "window",
    "video.frames": "window",
    "feature.blocks": "blocks",
}
"""Options that hold the value of a setting, by setting."""


def add_segment_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `vidseg segment`."""
    add = parser.add_argument
    add("input", type=Path, metavar="INPUT", help="video file, folder of frames, or folder that holds frames/")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the result")
    add(
        "--model",
        type=Path,
        metavar="FILE",
        help="Stable Diffusion 1.x/2.x or Stable Video Diffusion; default: the bundled one",
    )
    add("--preset", default="default", choices=list(PRESETS), help="settings to start from (default: default)")
    add(
        "--quality",
        default="exact",
        choices=list(QUALITIES),
        help="exact (default): the paper's; balanced: regions share modulated passes; fast, draft: no modulation",
    )
    add(
        "--clusters",
        type=int,
        metavar="K",
        help="clusters, at most 255 (default: 20); 0 chooses their number",
    )
    add("--seed", type=int, metavar="S", help="seed of noise and K-means")
    add("--max-side", type=int, metavar="PX", help="reduce the longer side to this many pixels; 0 keeps it")
    add(
        "--window",
        type=int,
        metavar="N",
        help="frames of a window, with SVD of a sample (default: 14; SVD-XT 25)",
    )
    add("--blocks", metavar="B,...", help="decoder blocks whose queries are the features, of 6,7,8")
    add("--no-refine", action="store_true", help="without correspondence-based refinement")
    add("--no-modulation", action="store_true", help="without masked modulation: coarse regions, much faster")
    add("--set", action="append", default=[], metavar="part.field=value", dest="overrides", help="any other setting")
    add(
        "--anchor-mask",
        type=Path,
        metavar="PNG",
        help="classes of the first frame name the regions; 255 = unknown, or white",
    )
    add("--baseline", choices=["color", "frame"], help="run a baseline to compare with instead of the method")
    add_device_options(parser)
    add("--resume", action="store_true", help="continue an interrupted run at its first unfinished window")
    add("--overwrite", action="store_true", help="replace an earlier result")
    parser.epilog = "Settings of --set: " + ", ".join(list_setting_names(Settings()))


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add where and in which type the model runs."""
    parser.add_argument("--device", metavar="DEVICE", help="cuda, mps or cpu (default: the first that is there)")
    parser.add_argument("--dtype", default="fp32", choices=list(DTYPES), help="type of the model (default: fp32)")


def make_settings(arguments: argparse.Namespace, kind: str = "sd", num_frames: int = 0) -> Settings:
    """Return the settings that the options of `vidseg segment` ask for: preset, then options, then ``--set``.

    Args:
        arguments: of the command line.
        kind: of the model, ``sd`` or ``svd``, whose presets differ. A video model sees whole windows.
        num_frames: that a video model sees together, where the model tells, else 0.

    Returns:
        All settings.

    Raises:
        InputError: a value is not allowed.
    """
    values: dict[str, Any] = {setting: getattr(arguments, option) for setting, option in OPTIONS.items()}
    if kind != "svd":
        del values["video.frames"]
    if arguments.blocks is not None:
        values["feature.blocks"] = parse_value("--blocks", tuple[int, ...], arguments.blocks)
    values["refinement.enabled"] = False if arguments.no_refine else None
    values["modulation.enabled"] = False if arguments.no_modulation else None
    settings = with_window_frames(preset(arguments.preset, kind), num_frames)
    for setting, value in values.items():
        if value is not None:
            part, field = setting.split(".")
            settings = replace_parts(settings, **{part: {field: value}})
    return with_overrides(with_quality(settings, arguments.quality), arguments.overrides)


def list_option_names(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the options of a command by the settings that they fill, but for settings that ``--set`` names."""
    overridden = {override.partition("=")[0].strip() for override in getattr(arguments, "overrides", ())}
    arguments_of_core = {"anchor_mask": "--anchor-mask", "device": "--device"}
    return arguments_of_core | {
        setting: f"--{option.replace('_', '-')}"
        for setting, option in OPTIONS.items()
        if hasattr(arguments, option) and setting not in overridden
    }
