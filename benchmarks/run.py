"""Time one clip at each quality, and the paper's published code on the same weights and frames; one process per row.

Usage: python benchmarks/run.py --out DIR [--rows exact,balanced,fast,draft] [--paper CHECKOUT] [--sd21]
       [--width 256 --height 128 --frames 14 --clusters 20] [--model FILE] [--device cpu --dtype float32]

The clip is the bundled one in the size that is asked for. The clusters that the published K-means finds in its first
frame (those of our ``reference`` preset) serve as ground truth, so that all rows have the same regions: fewer than K
where some lie in later frames only. ``--sd21`` takes random weights of the true SD 2.1 size: time and memory do not
depend on what the weights are. CHECKOUT as in paper_code.py. DIR gets run.json, run.md and run.png.

``UNet`` counts calls of the whole UNet for one frame with both halves of guidance, parts by their measured share.
The published code processes ``frames // 14 + 1`` windows, one of them again if the last is full; ``window`` compares
one window of each, ``clip`` the whole clip. Seconds are the processor's where torch has one thread (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from counting import CountingBackbone, clock
from PIL import Image
from plots import new_figure
from vidseg.core.backbones.diffusers.load import find_embedding, load_diffusers
from vidseg.core.backbones.memory import measure_peak
from vidseg.core.checkpoints.describe import describe_model
from vidseg.core.checkpoints.sizes import ModelSizes, UNetSizes, VAESizes
from vidseg.core.config.settings import QUALITIES, Settings, preset, replace_parts, with_quality
from vidseg.core.evaluation.bench.dataset import BenchClip
from vidseg.core.evaluation.bench.layouts import open_folders
from vidseg.core.files.clip import open_clip
from vidseg.core.files.label_images import make_label_image, read_label_values
from vidseg.core.files.record import list_versions
from vidseg.core.method.features import extract_features
from vidseg.core.method.pipeline import label_anchor, segment_windows
from vidseg.tests.narrow_checkpoint import random_model

ASSETS = Path(__file__).parents[1] / "assets"
SD21 = ModelSizes(UNetSizes(320, num_head_channels=64, context_dim=1024), VAESizes(ch=128))
PUBLISHED = "published"
WINDOW = 14
COLUMNS = (
    "row",
    "seconds",
    "frames/s",
    "window",
    "clip",
    "UNet",
    "decodes",
    "encode s",
    "UNet s",
    "decode s",
    "other s",
    "peak GiB",
)
UNDIVIDED = "not divided"
PARTS = {"encode s": "C0", "UNet s": "C1", "decode s": "C2", "other s": "C3", UNDIVIDED: "0.6"}
"""Parts of a row's seconds, and their colors in the plot."""


def settings_of(quality: str, clusters: int) -> Settings:
    """Return the default settings at a quality."""
    return with_quality(replace_parts(preset("default"), cluster={"num_clusters": clusters}), quality)


def prepare(arguments: Namespace) -> None:
    """Write frames, and a mask of the first one's clusters, to ``DIR/clip``; and random weights if asked for."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.sd21 and not arguments.model.exists():
        random_model(arguments.model, sizes=SD21)
    for earlier in ("clip", PUBLISHED):
        shutil.rmtree(arguments.out / earlier, ignore_errors=True)
    frames_folder, masks = arguments.out / "clip" / "frames", arguments.out / "clip" / "masks"
    for folder in (frames_folder, masks):
        folder.mkdir(parents=True)
    with open_clip(ASSETS / "demo_clip.mp4") as clip:
        frames = clip.read(0, clip.num_frames)[torch.arange(arguments.frames) % clip.num_frames]
    frames = F.interpolate(frames.movedim(-1, 1), (arguments.height, arguments.width), mode="area").movedim(1, -1)
    for number, frame in enumerate(frames):
        Image.fromarray((frame * 255).round().to(torch.uint8).numpy()).save(frames_folder / f"{number:05d}.png")
    settings = replace_parts(preset("reference"), cluster={"num_clusters": arguments.clusters})
    features = extract_features(loaded(arguments), frames[:WINDOW], settings)
    cells = label_anchor(features, settings).cluster_map
    make_label_image(cells.repeat_interleave(16, 0).repeat_interleave(16, 1)).save(masks / "00000.png")


def loaded(arguments: Namespace) -> Any:  # noqa: ANN401, a backbone
    """Load the model."""
    return load_diffusers(arguments.model, dtype=getattr(torch, arguments.dtype), device=arguments.device)


def timed_row(arguments: Namespace) -> dict[str, Any]:
    """Run one row in this process and return its figures."""
    (clip,) = open_folders(arguments.out / "clip").clips
    figures = _published(arguments, clip) if arguments.row == PUBLISHED else _ours(arguments, clip)
    on_gpu = torch.cuda.is_available() and arguments.device != "cpu"
    peak = torch.cuda.max_memory_allocated() if on_gpu else measure_peak()["main memory"]
    return {"row": arguments.row, **figures, "peak GiB": peak / 2**30}


def _ours(arguments: Namespace, clip: BenchClip) -> dict[str, Any]:
    settings = settings_of(arguments.row, arguments.clusters)
    import sklearn.cluster  # noqa: F401, PLC0415, imported on first use else

    backbone = CountingBackbone(loaded(arguments))
    reference = read_label_values(clip.masks[0], "mask")
    with open_clip(clip.frames[0].parent) as frames:
        extract_features(backbone, frames.read(0, 1), settings)  # warm-up
        backbone.reset()
        start = clock()
        windows = list(segment_windows(backbone, frames, settings, reference=reference))
        seconds = clock() - start
    labels = torch.cat([window.labels.maps for window in windows])
    torch.save(labels, arguments.out / f"{arguments.row}.pt")
    return {"seconds": seconds, "labels": len(labels.unique()), **backbone.figures(seconds)}


def _published(arguments: Namespace, clip: BenchClip) -> dict[str, Any]:
    from paper_code import run_published  # noqa: PLC0415, needs the checkout's own packages

    positive = find_embedding(describe_model(arguments.model))[None]  # alone: a model changes how memory is kept
    work = Namespace(**vars(arguments), checkout=arguments.paper, window=WINDOW)
    work.out = arguments.out.resolve()
    labels, seconds = run_published(work, clip, positive)
    return {"seconds": seconds, "labels": len(labels.unique())}


def in_process(arguments: Namespace, row: str) -> dict[str, Any]:
    """Run a row in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--row", row]
    subprocess.run(command, check=True)  # noqa: S603
    result: dict[str, Any] = json.loads((arguments.out / f"{row}.json").read_text())
    return result


def compared(rows: Sequence[dict[str, Any]], frames: int) -> list[dict[str, Any]]:
    """Add what a row takes of the published code's time, or of ours at quality ``exact`` where that did not run."""
    base = next((row for row in rows if row["row"] == PUBLISHED), rows[0])
    windows = frames // WINDOW + 1 if base["row"] == PUBLISHED else -(-frames // WINDOW)
    ours = -(-frames // WINDOW)
    result = []
    for row in rows:
        count = windows if row is base else ours
        per_window = (row["seconds"] / count) / (base["seconds"] / windows)
        rates = {"frames/s": frames / row["seconds"], "window": per_window, "clip": row["seconds"] / base["seconds"]}
        result.append({**row, **rates})
    return result


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table, with what it was made on."""
    machine = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores, {platform.machine()}"
    )
    cells = [[_shown(row.get(column)) for column in COLUMNS] for row in rows]
    lines = ["| " + " | ".join(line) + " |" for line in (COLUMNS, ["---"] * len(COLUMNS), *cells)]
    lines.append("")
    lines.append(f"{machine}, {torch.get_num_threads()} threads; {list_versions()}; `{' '.join(sys.argv)}`")
    return "\n".join(lines) + "\n"


def _shown(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.3g}"


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the seconds of the parts of each row; the published code's are not told apart."""
    figure = new_figure((7, 0.6 * len(rows) + 1.2))
    if figure is None:
        return
    axes = figure.subplots()
    names = [row["row"] for row in rows]
    left = [0.0] * len(rows)
    for part, color in PARTS.items():
        widths = [row.get(part, row["seconds"] if part == UNDIVIDED and "UNet s" not in row else 0.0) for row in rows]
        axes.barh(names, widths, left=left, label=part.removesuffix(" s"), color=color)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=100)


def main() -> None:
    """Run all rows, or one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", default=",".join(QUALITIES))
    parser.add_argument("--paper", type=Path)
    parser.add_argument("--sd21", action="store_true")
    for name, value in (("width", 256), ("height", 128), ("frames", WINDOW), ("clusters", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--model", type=Path, default=ASSETS / "demo_model.safetensors")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--row")
    arguments = parser.parse_args()
    if arguments.sd21:
        arguments.model = arguments.out / "sd21_random.safetensors"
    if arguments.row:
        (arguments.out / f"{arguments.row}.json").write_text(json.dumps(timed_row(arguments)))
        return
    prepare(arguments)
    names = ([PUBLISHED] if arguments.paper else []) + arguments.rows.split(",")
    rows = compared([in_process(arguments, name) for name in names], arguments.frames)
    (arguments.out / "run.json").write_text(json.dumps(rows, indent=1) + "\n")
    (arguments.out / "run.md").write_text(markdown(rows))
    plot(rows, arguments.out / "run.png")
    print(markdown(rows))


if __name__ == "__main__":
    main()
