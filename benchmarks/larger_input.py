"""Larger frames, whole and in tiles, on clips with ground truth: what a finer grid of features is worth.

Usage: python benchmarks/larger_input.py CLIPS --out DIR [--clips NAME,...] [--rows NAME,...]
       [--variants NAME,...] [--seeds 1,2,3] [--max-frames 14] [--quality fast]

CLIPS holds CLIP/{frames,masks} as for `vidseg bench folders`, which gives the same figures where frames are as large as
a row asks for; here smaller ones are enlarged first. 20 regions, the bundled model. DIR gets larger_input.json
(finished ones are not run again) and larger_input.md; features are kept in DIR/features.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vidseg.core.api import load_model
from vidseg.core.config.settings import Settings
from vidseg.core.evaluation.bench.dataset import BenchClip, ClipFrames
from vidseg.core.evaluation.bench.layouts import open_folders
from vidseg.core.evaluation.bench.tally import compute_scores, tally_clip
from vidseg.core.method.coarse import segment_coarse
from vidseg.core.method.enlarging import enlarge_maps
from vidseg.core.method.features import extract_features
from vidseg.core.method.pipeline import label_anchor
from vidseg.core.types import Features

INPUTS: dict[str, dict[str, Any]] = {
    "448": {"max_side": 448},
    "832": {"max_side": 832},
    "832 tiles 448": {"max_side": 832, "tiles": 448},
    "832 tiles 256": {"max_side": 832, "tiles": 256},
}
"""How frames are read."""
VARIANTS: dict[str, dict[str, Any]] = {
    "leaves": {},
    "regions": {"named": "regions"},
    "leaves threshold 2": {"spatial_threshold": 2},
    "regions threshold 2": {"named": "regions", "spatial_threshold": 2},
    "254 leaves": {"num_leaves": 254},
}
"""What the mask names, and what else differs after the features."""
SMALL = 0.03
"""Share of the pixels below which a class is small."""
COLUMNS = ("mIoU", "small", "mVC8 right", "boundary F", "switches", "seconds/frame")


def read_features(clip: BenchClip, name: str, seed: int, arguments: argparse.Namespace) -> tuple[Features, float]:
    """Return the features of a clip's first frames, and the seconds per frame that they took, once."""
    path = arguments.out / "features" / f"{clip.name}_{name}_{seed}.pt".replace(" ", "_")
    if not path.is_file():
        settings = Settings.of(quality=arguments.quality, seed=seed, **INPUTS[name])
        source = ClipFrames(clip)
        frames = source.read(0, source.num_frames)
        size, backbone = (int(frames.shape[1]), int(frames.shape[2])), load_model()
        start = time.process_time()
        made = extract_features(backbone, enlarge(frames, settings.frame.max_side), settings)
        seconds = (time.process_time() - start) / len(frames)
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = made._replace(queries=made.queries.half(), matching=made.matching.half(), frame_size=size)
        nothing = torch.empty(len(frames), 0)
        torch.save((tuple(kept._replace(latents=nothing, noise=nothing)), seconds), path)
    stored, seconds = torch.load(path, weights_only=False)
    features = Features(*stored)
    return features._replace(queries=features.queries.float(), matching=features.matching.float()), seconds


def enlarge(frames: Tensor, side: int) -> Tensor:
    """Return frames ``(T,H,W,3)`` whose longer side is ``side`` at least."""
    scale = side / max(frames.shape[1:3])
    if scale <= 1:
        return frames
    size = [round(length * scale) for length in frames.shape[1:3]]
    large = torch.nn.functional.interpolate(frames.movedim(-1, 1), size, mode="bicubic", antialias=True)
    return large.movedim(1, -1).clamp(0, 1)


def measure(clip: BenchClip, name: str, variant: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Segment a clip from its features, and score it."""
    features, seconds = read_features(clip, name, seed, arguments)
    settings = Settings.of(quality=arguments.quality, seed=seed, **{**INPUTS[name], **VARIANTS[variant]})
    numbers = sorted(clip.masks)  # the first frame's is among them
    truth = torch.stack(list(clip.read_masks(numbers)))
    anchor = label_anchor(features, settings, truth[0])
    labels = enlarge_maps(segment_coarse(features, anchor, settings), features, settings.enlarging).maps
    tally = tally_clip(labels[numbers], truth, numbers, clip.classes, clip.fps)
    scores, pixels = compute_scores([tally]), Counter[str]()
    for (true, _), count in tally.confusion.items():
        pixels[true] += count
    small = [scores.ious[name] for name, count in pixels.items() if count < SMALL * pixels.total()]
    return {
        "mIoU": scores.miou,
        "small": sum(small) / len(small) if small else None,
        "mVC8 right": scores.consistency["mVC8 right"],
        "boundary F": scores.boundary,
        "switches": scores.switches,
        "seconds/frame": seconds,
        "IoU": dict(scores.ious),
    }


def tables(found: dict[str, dict[str, Any]], columns: Sequence[str]) -> str:
    """Return the mean over seeds of each measure: a table with a row for each input and variant, clips side by side."""
    rows = sorted({key.rpartition("|")[0].partition("|")[2] for key in found}, key=order)
    clips = sorted({key.partition("|")[0] for key in found})
    lines = []
    for column in columns:
        lines += [
            "",
            f"## {column}",
            "",
            "| | " + " | ".join([*clips, "mean"]) + " |",
            "| --- " * (len(clips) + 2) + "|",
        ]
        for row in rows:
            means = [mean(found, f"{clip}|{row}|", column) for clip in clips]
            known = [value for value in means if value is not None]
            whole = f"{sum(known) / len(known):.3f}" if known else ""
            cells = ["" if value is None else f"{value:.3f}" for value in means]
            lines.append("| " + " | ".join([row.replace("|", ", "), *cells, whole]) + " |")
    return "\n".join(lines) + "\n"


def order(row: str) -> tuple[int, int]:
    """Return where a row of the tables stands."""
    name, _, variant = row.partition("|")
    return list(VARIANTS).index(variant), list(INPUTS).index(name)


def mean(found: dict[str, dict[str, Any]], start: str, column: str) -> float | None:
    """Return the mean over seeds of a measure of a clip and a row."""
    values = [figures[column] for key, figures in found.items() if key.startswith(start)]
    return None if None in values or not values else sum(values) / len(values)


def main() -> None:
    """Measure what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips_folder", type=Path, metavar="CLIPS")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", default="")
    parser.add_argument("--rows", default="448,832,832 tiles 448")
    parser.add_argument("--variants", default="leaves,regions")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--max-frames", type=int, default=14)
    parser.add_argument("--quality", default="fast", choices=["fast", "draft"])
    arguments = parser.parse_args()
    path = arguments.out / "larger_input.json"
    found: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}
    names = [name for name in arguments.clips.split(",") if name]
    clips = [clip.shorten(arguments.max_frames) for clip in open_folders(arguments.clips_folder).clips]
    clips = [clip for clip in clips if not names or clip.name in names]
    work = product(arguments.seeds.split(","), clips, arguments.rows.split(","), arguments.variants.split(","))
    for seed, clip, name, variant in work:
        key = "|".join((clip.name, name, variant, seed))
        if key not in found:
            found[key] = measure(clip, name, variant, int(seed), arguments)
            print(key, found[key], flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found, indent=1) + "\n")
    (arguments.out / "larger_input.md").write_text(tables(found, COLUMNS))


if __name__ == "__main__":
    main()
