"""Time one window of the true SD 2.1 size (random weights) stage by stage, and its peak memory on a CUDA device.

Usage: python benchmarks/full_size.py --out FOLDER [--height 448 --width 832 --frames 14 --clusters 20 --dtype float16]

Cost does not depend on what the weights are, only on how many regions a frame holds; the table states that number.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from vidseg.core.backbones.diffusers_unet import load_diffusers
from vidseg.core.coarse import segment_coarse
from vidseg.core.config import changed, preset
from vidseg.core.model_sizes import ModelSizes, UNetSizes, VAESizes
from vidseg.core.pipeline import extract_features, make_seeds
from vidseg.core.random_model import random_model
from vidseg.core.types import CoarseMaps, Region
from vidseg.core.upsampling import upsample

SD21 = ModelSizes(UNetSizes(320, num_head_channels=64, context_dim=1024), VAESizes(ch=128))


def moving_pattern(frames: int, height: int, width: int) -> Tensor:
    """Return smooth frames ``(T,H,W,3)`` that drift to the right."""
    rows, columns = torch.meshgrid(torch.linspace(0, 9, height), torch.linspace(0, 16, width), indexing="ij")
    return torch.stack(
        [
            torch.stack([torch.sin(rows * k + columns - t / 9) / 2 + 0.5 for k in (0.3, 0.7, 1.1)], -1)
            for t in range(frames)
        ]
    )


@contextmanager
def timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Store how long a stage takes, the device's work included."""
    start = time.perf_counter()
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds[name] = round(time.perf_counter() - start, 3)
    print(name, seconds[name], flush=True)


def stripes(frames: int, grid: tuple[int, int], clusters: int) -> CoarseMaps:
    """Return coarse maps in which every frame holds every region."""
    columns = torch.arange(grid[1]) * clusters // grid[1]
    maps = columns.expand(frames, *grid).contiguous()
    return CoarseMaps(maps, tuple(Region(label, f"region {label}") for label in range(clusters)))


def progress_printer() -> Callable[[str, int, int], None]:
    """Return a callback that prints one line every ten seconds."""
    last = [time.perf_counter()]

    def show(stage: str, done: int, total: int) -> None:
        if time.perf_counter() - last[0] > 10:
            last[0] = time.perf_counter()
            print(f"  {stage} {done}/{total}", flush=True)

    return show


def main() -> None:
    """Run every stage once and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True)
    for name, value in (("height", 448), ("width", 832), ("frames", 14), ("clusters", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", default="float16", choices=["float32", "float16", "bfloat16"])
    arguments = parser.parse_args()
    seconds: dict[str, float] = {}
    settings = changed(preset("default"), cluster={"num_clusters": arguments.clusters})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sd21_random.safetensors"
        with timed("write random weights", seconds):
            random_model(path, sizes=SD21)
        with timed("load", seconds):
            backbone = load_diffusers(path, dtype=getattr(torch, arguments.dtype))
    frames = moving_pattern(arguments.frames, arguments.height, arguments.width)
    extract_features(backbone, frames[:1], settings)  # warm-up
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with timed("features", seconds):
        features = extract_features(backbone, frames, settings)
    with timed("K-means", seconds):
        seeds = make_seeds(features, settings)
    with timed("scene context and refinement", seconds):
        segment_coarse(features, seeds, settings.window, settings.context, settings.refinement)
    coarse = stripes(arguments.frames, features.grid, arguments.clusters)
    with timed("masked modulation", seconds):
        upsample(backbone, features, coarse, settings, progress=progress_printer())
    record = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        **vars(arguments),
        "seconds": seconds,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "full_size.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
    print(json.dumps(record, default=str))


if __name__ == "__main__":
    main()
