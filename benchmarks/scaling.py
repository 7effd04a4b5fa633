"""Show that memory does not grow with the clip: peak memory and time of `vidseg segment` against frames, and others.

Usage: python benchmarks/scaling.py --out DIR [--frames 60,300,1000,3000] [--sides 128,256,448] [--clusters 5,10,20]
       [--host COMFYUI --host-frames 60,1000] [--workers 1,2]

Every point is one process of `vidseg segment --quality draft` with the bundled model on an 854x480 video made of the
bundled clip; frames are processed at 128 pixels on the long side unless ``--sides`` says otherwise. The points over
clusters run with ``--quality exact``, whose cost depends on them. With ``--host``, the folder
of a ComfyUI whose Python runs this, the node `SegmentVideo` is measured as well (in_host.py). DIR gets scaling.json,
scaling.md and scaling.png. With ``--workers``, work is spread over that many workers of a Ray cluster on this machine
as well (spread.py): workers.json and workers.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from plots import new_figure
from spread import describe, describe_model_curve, measure, measure_stages
from torch import Tensor
from vidseg.core.config.settings import Settings
from vidseg.core.files.clip import open_clip
from vidseg.core.files.video import write_video

CLIP = Path(__file__).parents[1] / "assets" / "demo_clip.mp4"
SIZE = (480, 854)
BASE_FRAMES, BASE_SIDE = 60, 128
NUM_CLIPS = 8
"""Clips that are spread over workers, at quality ``draft``."""


def pictures(num_frames: int) -> Iterator[Tensor]:
    """Yield the bundled clip forth and back, ``(H,W,3)`` uint8."""
    with open_clip(CLIP) as clip:
        frames = clip.read(0, clip.num_frames)
    frames = (F.interpolate(frames.movedim(-1, 1), SIZE, mode="bilinear").movedim(1, -1) * 255).round().to(torch.uint8)
    turn = 2 * len(frames) - 2
    for number in range(num_frames):
        place = number % turn
        yield frames[place if place < len(frames) else turn - place]


LAUNCHER = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""
"""A small program between: Linux counts what the parent held as memory of its child."""


def measured(*words: object) -> dict[str, float]:
    """Run Python in a process of its own; return its seconds, those of the processor, and its peak MiB."""
    command = [sys.executable, *map(str, words)]
    start = time.perf_counter()
    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-S", "-c", LAUNCHER, *command], check=True, capture_output=True, text=True
    )
    status, used, peak = json.loads(ended.stdout)
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{ended.stderr[-2000:]}")
    return {"seconds": time.perf_counter() - start, "CPU seconds": used, "peak MiB": peak}


def make_video(folder: Path, frames: int) -> Path:
    """Return a video of so many frames."""
    video = folder / f"{frames}.mp4"
    if not video.exists():
        write_video(video, pictures(frames), 30.0, None)
    return video


def spread(folder: Path, arguments: argparse.Namespace) -> None:
    """Measure how work spreads over workers."""
    video_of, (one, each, exact) = partial(make_video, folder), arguments.spread_frames
    sizes = {"draft": (one, NUM_CLIPS, each), "exact": (exact, 2, max(1, exact // 2))}
    rows = measure(folder, video_of, arguments.workers, sizes, BASE_SIDE)
    costs = measure_stages(video_of(one), Settings.of(quality="draft", max_side=BASE_SIDE), folder / "stages")
    text = f"{describe(rows)}\n{describe_model_curve(costs, one)}"
    (arguments.out / "workers.json").write_text(json.dumps({"rows": rows, "costs": costs}, indent=1) + "\n")
    (arguments.out / "workers.md").write_text(text)
    print(text)


def series(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all points."""
    points: list[dict[str, Any]] = []
    video_of = partial(make_video, folder)

    def note(axis: str, value: int, frames: int, figures: dict[str, float]) -> None:
        points.append({"axis": axis, "value": value, "frames": frames, **figures})
        print(points[-1], flush=True)

    def add(axis: str, value: int, frames: int, *options: object) -> None:
        with tempfile.TemporaryDirectory() as out:
            command = ("-m", "vidseg.core.command.main", "segment", video_of(frames), "--out", Path(out) / "r")
            note(axis, value, frames, measured(*command, "--device", "cpu", *options))

    for frames in arguments.frames:
        add("frames", frames, frames, "--quality", "draft", "--max-side", BASE_SIDE)
    for side in arguments.sides:
        add("long side", side, BASE_FRAMES, "--quality", "draft", "--max-side", side)
    for clusters in arguments.clusters:
        options = ("--quality", "exact", "--max-side", BASE_SIDE, "--clusters", clusters)
        add("clusters", clusters, arguments.exact_frames, *options)
    for frames in arguments.host_frames if arguments.host else ():
        script = Path(__file__).with_name("in_host.py")
        note("frames, in ComfyUI", frames, frames, measured(script, arguments.host, video_of(frames), BASE_SIDE))
    return points


def markdown(points: Sequence[dict[str, Any]]) -> str:
    """Return the table; a further frame is one that the row has and the row before it has not."""
    columns = ("against", "value", "frames", "seconds", "CPU seconds", "per further frame", "peak MiB")
    lines = ["| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns))]
    for before, point in zip([None, *points], points, strict=False):
        frames = point["frames"] - before["frames"] if before and before["axis"] == point["axis"] else 0
        each = f"{(point['CPU seconds'] - before['CPU seconds']) / frames:.3f}" if before and frames else ""
        cells = f"{point['seconds']:.1f} | {point['CPU seconds']:.1f} | {each} | {point['peak MiB']:.0f}"
        lines.append(f"| {point['axis']} | {point['value']} | {point['frames']} | {cells} |")
    return "\n".join(lines) + f"\n\n`{' '.join(sys.argv)}`, torch {torch.__version__}, {os.cpu_count()} cores\n"


def plot(points: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw peak memory and time per frame against each axis."""
    axes_names = list(dict.fromkeys(point["axis"] for point in points))
    figure = new_figure((4 * len(axes_names), 5.5))
    if figure is None:
        return
    grid = figure.subplots(2, len(axes_names), squeeze=False)
    for column, name in enumerate(axes_names):
        chosen = [point for point in points if point["axis"] == name]
        values = [point["value"] for point in chosen]
        grid[0][column].plot(values, [point["peak MiB"] for point in chosen], "o-")
        grid[1][column].plot(values, [point["CPU seconds"] / point["frames"] for point in chosen], "o-")
        grid[1][column].set_xlabel(name)
        for row in (0, 1):
            grid[row][column].set_ylim(0, 1.15 * grid[row][column].get_ylim()[1])
    grid[0][0].set_ylabel("peak memory, MiB")
    grid[1][0].set_ylabel("CPU seconds per frame")
    figure.savefig(path, dpi=100)


def numbers(text: str) -> list[int]:
    """Return whole numbers with commas between."""
    return [int(part) for part in text.split(",") if part]


def main() -> None:
    """Measure all points; write table and plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=numbers, default=[60, 300, 1000, 3000])
    parser.add_argument("--sides", type=numbers, default=[128, 256, 448])
    parser.add_argument("--clusters", type=numbers, default=[5, 10, 20])
    parser.add_argument("--exact-frames", type=int, default=14)
    parser.add_argument("--host", type=Path)
    parser.add_argument("--host-frames", type=numbers, default=[60, 1000])
    parser.add_argument("--workers", type=numbers, default=[])
    parser.add_argument("--spread-frames", type=numbers, default=[120, 28, 28], help="of one clip, of each, of exact")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        points = series(Path(folder), arguments)
        if arguments.workers:
            spread(Path(folder), arguments)
    (arguments.out / "scaling.json").write_text(json.dumps(points, indent=1) + "\n")
    (arguments.out / "scaling.md").write_text(markdown(points))
    plot(points, arguments.out / "scaling.png")
    print(markdown(points))


if __name__ == "__main__":
    main()
