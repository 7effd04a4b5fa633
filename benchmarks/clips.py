"""Score variants of the method, and two floors, on clips with ground truth; print and write one table.

Usage: python benchmarks/clips.py CLIPS --model FILE --out FOLDER [--variants default,paper,...] [--clips NAME,...]

CLIPS holds one folder per clip with ``frames/`` and ``masks/`` (8-bit labels, 255 = void, equal file stems). Clusters
are named by the mask of the first frame, as in the paper (5.1). FOLDER gets ``results.json`` and ``results.md``;
finished pairs of clip and variant in ``results.json`` are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vidseg.core.backbones import Backbone
from vidseg.core.backbones.diffusers_unet import load_diffusers
from vidseg.core.baselines import color_windows, frame_windows
from vidseg.core.config import Settings, preset
from vidseg.core.images import read_labels
from vidseg.core.metrics import MeanIoU, VideoConsistency, boundary_f_score, flip_rate
from vidseg.core.options import with_overrides
from vidseg.core.pipeline import segment_windows
from vidseg.core.video import Clip, open_clip

EMERDIFF_SOFT = ("modulation.blending=none", "modulation.factor=10", "difference.filter_strength=1")
"""Modulation as EmerDiff does it, the ablation's "without masked modulation"."""
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "color": ("default", ()),
    "frame": ("default", ()),
    "default": ("default", ()),
    "paper": ("paper", ()),
    "reference": ("reference", ()),
    "emerdiff": ("emerdiff", ()),
    "window 1, none": ("paper", ("window.length=1", "feature.blocks=7", "refinement.enabled=false", *EMERDIFF_SOFT)),
    "window 14, none": ("paper", ("feature.blocks=7", "refinement.enabled=false", *EMERDIFF_SOFT)),
    "+ modulation": ("paper", ("feature.blocks=7", "refinement.enabled=false")),
    "+ modulation, aggregation": ("paper", ("refinement.enabled=false",)),
    "+ modulation, CBR": ("paper", ("feature.blocks=7",)),
    "coarse only": ("default", ("modulation.enabled=false",)),
}
"""Preset and overrides by name; the two floors are `vidseg.core.baselines`. Others: ``preset+part.field=value+...``."""
METRICS = ("mIoU", "mVC8", "mVC16", "boundary F", "flips", "seconds/frame")


def settings_of(variant: str, arguments: argparse.Namespace) -> Settings:
    """Return the settings of a variant with the overrides that hold for all."""
    base, overrides = VARIANTS.get(variant, (variant.split("+", maxsplit=1)[0], tuple(variant.split("+")[1:])))
    common = (f"cluster.num_clusters={arguments.clusters}", f"frame.max_side={arguments.max_side}")
    return with_overrides(preset(base), (*common, *overrides, *arguments.set))


def read_truth(clip: Clip, folder: Path) -> tuple[Tensor, list[int]]:
    """Return masks ``(L,H,W)`` and the frame numbers that have one."""
    frames = sorted((folder / "frames").iterdir())[: clip.num_frames]
    numbers = [index for index, frame in enumerate(frames) if (folder / "masks" / f"{frame.stem}.png").is_file()]
    masks = [read_labels(folder / "masks" / f"{frames[index].stem}.png", "masks") for index in numbers]
    return torch.stack(masks), numbers


def windows_of(
    variant: str, backbone: Backbone, clip: Clip, settings: Settings, reference: Tensor
) -> Iterator[tuple[range, Tensor]]:
    """Yield frame numbers and label maps of each window."""
    if variant.split("+", maxsplit=1)[0] == "color":
        results: Iterator[Any] = color_windows(clip, settings, reference=reference)
    elif variant.split("+", maxsplit=1)[0] == "frame":
        results = frame_windows(backbone, clip, settings, reference=reference)
    else:
        results = segment_windows(backbone, clip, settings, reference=reference)
    for result in results:
        yield result.frames, result.labels.maps


def score(folder: Path, variant: str, backbone: Backbone, settings: Settings) -> dict[str, Any]:
    """Segment one clip and return its figures."""
    with open_clip(folder) as clip:
        truth, numbers = read_truth(clip, folder)
        labels = torch.zeros((clip.num_frames, *clip.info.frame_size), dtype=torch.uint8)
        start = time.perf_counter()
        for span, maps in windows_of(variant, backbone, clip, settings, truth[0]):
            labels[span.start : span.stop] = maps.cpu()
        seconds = time.perf_counter() - start
    prediction = labels[numbers]
    iou = MeanIoU()
    iou.update(prediction, truth)
    consistency = {}
    for length in (8, 16):
        runs = VideoConsistency(length)
        runs.update(prediction, truth)
        consistency[f"mVC{length}"] = runs.compute()
    return {
        "mIoU": iou.compute(),
        **consistency,
        "boundary F": boundary(prediction, truth),
        "flips": flip_rate(prediction, truth),
        "seconds/frame": seconds / len(labels),
    }


def boundary(prediction: Tensor, truth: Tensor) -> float:
    """Return the mean boundary F over frames and the labels they hold."""
    scores = []
    for ours, theirs in zip(prediction[::5], truth[::5], strict=True):
        valid = theirs != 255
        labels = [label for label in theirs.unique().tolist() if label != 255]
        scores += [boundary_f_score((ours == label) & valid, theirs == label) for label in labels]
    return sum(scores) / len(scores)


def table(results: dict[str, dict[str, dict[str, Any]]], variants: Sequence[str], clips: Sequence[str]) -> str:
    """Return the figures as Markdown: mIoU of each clip, then the means of all figures."""
    head = ["variant", *clips, *(f"mean {name}" for name in METRICS)]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for variant in variants:
        rows = [results[clip][variant] for clip in clips if variant in results.get(clip, {})]
        if len(rows) < len(clips):
            continue
        cells = [f"{row['mIoU']:.3f}" for row in rows]
        for name in METRICS:
            values = [row[name] for row in rows if row[name] is not None]
            cells.append(f"{sum(values) / len(values):.3f}" if values else "")
        lines.append("| " + " | ".join([variant, *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("root", type=Path, metavar="CLIPS")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", default="color,frame,coarse only,default,paper,reference")
    parser.add_argument("--clips", default="")
    parser.add_argument("--clusters", type=int, default=20)
    parser.add_argument("--max-side", type=int, default=448)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--device", default=None)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    arguments = parser.parse_args()
    clips = arguments.clips.split(",") if arguments.clips else sorted(p.name for p in arguments.root.iterdir())
    variants = arguments.variants.split(",")
    backbone = load_diffusers(arguments.model, dtype=getattr(torch, arguments.dtype), device=arguments.device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    store = arguments.out / "results.json"
    results = json.loads(store.read_text()) if store.is_file() else {}
    for variant in variants:
        settings = settings_of(variant, arguments)
        for clip in clips:
            if variant in results.setdefault(clip, {}):
                continue
            results[clip][variant] = score(arguments.root / clip, variant, backbone, settings)
            print(clip, variant, {k: v if v is None else round(v, 3) for k, v in results[clip][variant].items()})
            store.write_text(json.dumps(results, indent=1))
    text = table(results, variants, clips)
    (arguments.out / "results.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
