"""Labels, speed and memory of the four qualities on a GPU, in one command of at most nine minutes.

Usage: python benchmarks/gpu.py --model FILE [--frames 14] [--sizes 448x832,1080x1920] [--device cuda] [--dtype fp16]
       [--published CHECKOUT CLIP] [--minutes 9] [--out FILE]

For each size of the frames, whose longer side is reduced to 832 for the model, and each quality: frames a second of the
second run, the most memory that torch allocated, and the share of pixels whose label is that of the CPU in float32.
The CPU labels a few frames of the first size alone, since it is slow. With ``--published``, a checkout of the paper's
code and a clip as `paper_code.py` takes them, that program runs beside ours. What would begin after ``--minutes`` is
left out and named. With ``--device cpu`` the same program runs in small, and the parity is 1.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from stages import read_size, show_again
from torch import Tensor
from vidseg.core.api import load_model
from vidseg.core.command.options import DTYPES
from vidseg.core.config.settings import QUALITIES, Settings
from vidseg.core.files.package import DEMO_MODEL
from vidseg.core.method.frames import HeldFrames
from vidseg.core.method.pipeline import segment

COMPARED = 2
"""Frames that the CPU labels, too."""


def synchronize(device: str) -> None:
    """Wait for a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(backbone: object, frames: Tensor, settings: Settings, device: str) -> tuple[float, float]:
    """Return frames a second of a run after another one, and the most GiB that torch allocated in it."""
    segment(backbone, HeldFrames(frames[:1]), settings)  # type: ignore[arg-type]  # warms up
    synchronize(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    segment(backbone, HeldFrames(frames), settings)  # type: ignore[arg-type]
    synchronize(device)
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
    return len(frames) / seconds, peak


def run_published(paths: Sequence[Path], model: Path, device: str, frames: int) -> str:
    """Run the paper's code beside ours, and return the table of `paper_code.py` with the seconds it took."""
    script = Path(__file__).with_name("paper_code.py")
    with tempfile.TemporaryDirectory() as out:
        words = [str(script), *map(str, paths), "--model", str(model), "--out", f"{out}/r", "--device", device]
        command = [sys.executable, *words, "--max-frames", str(frames), "--max-side", "832"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return ended.stdout if ended.returncode == 0 else f"the paper's code failed:\n{ended.stderr[-2000:]}"


def make_rows(arguments: argparse.Namespace, left: list[str]) -> list[list[str]]:
    """Return the rows of the table; what there was no time for is named in ``left``."""
    end = time.monotonic() + 60 * arguments.minutes
    model = load_model(arguments.model, device=arguments.device, dtype=getattr(torch, DTYPES[arguments.dtype]))
    other = model if arguments.device == "cpu" else load_model(arguments.model, device="cpu")
    rows = []
    for size in arguments.sizes:
        frames = torch.stack(list(show_again(arguments.frames, size)))
        for quality in reversed(QUALITIES):  # the quickest first
            name = f"{quality} at {size[1]}x{size[0]}"
            if time.monotonic() > end:
                left.append(name)
                continue
            settings = Settings.of(quality=quality, max_side=arguments.max_side, num_clusters=arguments.clusters)
            speed, memory = timed(model, frames, settings, arguments.device)
            parity = ""
            if size == arguments.sizes[0] and time.monotonic() < end:
                ours, theirs = (
                    segment(each, HeldFrames(frames[:COMPARED]), settings).maps.cpu() for each in (model, other)
                )
                parity = f"{float((ours == theirs).float().mean()):.4f}"
            rows.append([quality, f"{size[1]}x{size[0]}", f"{speed:.3f}", f"{memory:.2f}", parity])
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Measure, print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, default=DEMO_MODEL)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="fp16" if torch.cuda.is_available() else "fp32", choices=list(DTYPES))
    parser.add_argument("--frames", type=int, default=14)
    parser.add_argument("--clusters", type=int, default=20)
    parser.add_argument("--max-side", type=int, default=832)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--published", type=Path, nargs=2, metavar=("CHECKOUT", "CLIP"))
    parser.add_argument("--out", type=Path)
    sizes = [read_size("448x832"), read_size("1080x1920")]
    parser.add_argument("--sizes", type=lambda text: [read_size(one) for one in text.split(",")], default=sizes)
    arguments = parser.parse_args()
    left: list[str] = []
    lines = [["quality", "frames", "frames a second", "peak GiB", "same as the CPU"], ["---"] * 5]
    lines += make_rows(arguments, left)
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if arguments.published:
        text += "\n\n" + run_published(arguments.published, arguments.model, arguments.device, arguments.frames)
    machine = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor()
    text += f"\n\n{arguments.model.name}, {arguments.dtype}, {arguments.frames} frames, {machine}, torch "
    text += f"{torch.__version__}\n" + (f"no time was left for {', '.join(left)}\n" if left else "")
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
