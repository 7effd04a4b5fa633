"""Processor seconds until the program answers, and peak memory of what works on whole clips.

Usage: python benchmarks/memory.py [--frames 120] [--size 480x854] [--rows NAME;...] [--out FILE]

Each row is a process of its own. Seconds are the least of three starts, after one that compiles the sources. Memory is
what a node holds at most above its input and its output, by the pixels of the clip; what it has freed is given back to
the system at once, and not counted. Nodes and the import of the pack need ComfyUI, in $COMFYUI_PATH or
~/comfy/ComfyUI, and its requirements; without it they are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages import forget_peak, peak, read_size

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "assets" / "demo_model.safetensors"
STARTS = {"vidseg --help": ["--help"], "vidseg --version": ["--version"], "vidseg info MODEL": ["info", str(MODEL)]}
IMPORT = "import of the pack in ComfyUI"
REPEATED = 3
NUM_REGIONS = 20
TINY = (2, 64, 96)
"""Frames, height and width of the clip that warms up."""
MAX_SIDE = 128
"""Longer side of frames for the model: large enough to see them, small enough to wait for."""
Size = tuple[int, int, int]
Job = Callable[[], Any]


def find_host() -> Path | None:
    """Return the folder of ComfyUI, if there is one."""
    path = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
    return path if (path / "main.py").is_file() else None


def import_host() -> None:
    """Import ComfyUI on the CPU."""
    os.chdir(str(find_host()))
    sys.path.insert(0, str(find_host()))
    importlib.import_module("comfy.options")
    importlib.import_module("comfy.cli_args").args.cpu = True


def import_pack() -> float:
    """Return the seconds that the pack takes where the host has loaded all that is its own."""
    import_host()
    nodes = importlib.import_module("nodes")
    asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    start = time.process_time()
    if not asyncio.run(nodes.load_custom_node(str(ROOT), module_parent="custom_nodes")):
        raise SystemExit("ComfyUI could not import the pack")
    return time.process_time() - start


def call(node_id: str, **inputs: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """Execute a node with the defaults of its widgets, as the host does; return its outputs."""
    nodes = importlib.import_module("vidseg.nodes").NODES
    node = next(each for each in nodes if each.define_schema().node_id == node_id)
    sockets = node.define_schema().inputs
    widgets = {each.id: each.default for each in sockets if getattr(each, "default", None) is not None}
    return tuple(node.execute(**{**widgets, **inputs}).args)


def make_labels(size: Size) -> Any:  # noqa: ANN401
    """Return smooth regions that move on by a pixel with each frame, each a leaf."""
    import torch  # noqa: PLC0415, the first process needs none of it
    from vidseg.core.leaves import Leaves, MergeTree  # noqa: PLC0415
    from vidseg.core.types import Region  # noqa: PLC0415
    from vidseg.nodes.host.labels import Labels  # noqa: PLC0415

    frames, height, width = size
    field = torch.randn(1, NUM_REGIONS, 6, 10, generator=torch.Generator().manual_seed(0))
    first = torch.nn.functional.interpolate(field, (height, width), mode="bicubic")[0].argmax(0).byte()
    maps = torch.empty(size, dtype=torch.uint8)
    for number in range(frames):
        maps[number] = first.roll(number, 1)
    labels = range(NUM_REGIONS)
    tree = MergeTree((0,) * NUM_REGIONS, (float("inf"), *(float(NUM_REGIONS - label) for label in labels[1:])))
    regions = tuple(Region(label, f"region {label}") for label in labels)
    return Labels(maps, regions, (height, width), Leaves(maps.clone(), tree, tuple(labels)))


def paint(maps: Any) -> Any:  # noqa: ANN401
    """Return label maps in VidSeg's colors, as an image loader gives them, ``(T,H,W,3)`` float32."""
    import torch  # noqa: PLC0415
    from vidseg.core.regions.palette import PALETTE  # noqa: PLC0415

    painted = torch.empty(*maps.shape, 3)
    for frame, labels in zip(painted, maps, strict=True):
        frame[:] = PALETTE[labels.long()] / 255
    return painted


def load_regions(size: Size) -> Job:
    """Save regions and load them."""
    labels = make_labels(size)
    (folder,) = call("SaveRegions", labels=labels, filename_prefix=f"regions{len(labels.maps)}")
    return lambda: call("LoadRegions", folder=folder)


def score_regions(size: Size) -> Job:
    """Score regions against masks in gray, shifted by a frame."""
    labels = make_labels(size)
    masks = labels.maps.roll(1, 0).float().div_(255)
    return lambda: call("ScoreRegions", labels=labels, masks=masks)


def score_colors(size: Size) -> Job:
    """Score regions against masks in colors."""
    labels = make_labels(size)
    masks = paint(labels.maps)
    return lambda: call("ScoreRegions", labels=labels, masks=masks)


def split_instances(size: Size) -> Job:
    """Split all regions into things."""
    labels = make_labels(size)
    return lambda: call("SplitInstances", labels=labels)


def preview_regions(size: Size) -> Job:
    """Draw the overlay."""
    labels = make_labels(size)
    frames = paint(labels.maps)
    return lambda: call("PreviewRegions", labels=labels, frames=frames)


def extract_features(size: Size) -> Job:
    """Extract the features of the bundled model from small frames, so that what depends on the clip shows."""
    frames = paint(make_labels(size).maps)
    *model, _clip = call("LoadDemoModel")
    wired = dict(zip(("model", "vae", "positive", "negative"), model, strict=True))
    return lambda: call("ExtractDiffusionFeatures", **wired, frames=frames, max_side=MAX_SIDE)


OPERATIONS: dict[str, Callable[[Size], Job]] = {
    "Load Regions": load_regions,
    "Score Regions": score_regions,
    "Score Regions, colored masks": score_colors,
    "Split Instances": split_instances,
    "Preview Regions": preview_regions,
    "Extract Features": extract_features,
}


def weigh(value: Any) -> int:  # noqa: ANN401
    """Return the bytes of the tensors of an output."""
    if hasattr(value, "get_ram_usage"):
        return int(value.get_ram_usage())
    if isinstance(value, (tuple, list)):
        return sum(map(weigh, value))
    return int(getattr(value, "nbytes", 0))


def measure(name: str, size: Size) -> dict[str, float]:
    """Return the bytes a pixel of an operation's output, and of the most that it holds above it and its input."""
    if not forget_peak():
        raise SystemExit("this system does not tell how much memory a process holds: it takes Linux")
    import_host()
    import torch  # noqa: PLC0415

    paths = importlib.import_module("folder_paths")
    pixels = size[0] * size[1] * size[2]
    with tempfile.TemporaryDirectory() as place, torch.inference_mode():
        paths.set_output_directory(place)
        paths.set_temp_directory(place)
        OPERATIONS[name](TINY)()
        job = OPERATIONS[name](size)
        ctypes.CDLL(None).malloc_trim(0)  # what the input was made with would hide what comes
        held = forget_peak()
        made = weigh(job())
        return {"output": made / pixels, "above": (peak() - held - made) / pixels}


def run_inside(name: str, words: list[str]) -> Any:  # noqa: ANN401
    """Return what this script prints of a row in another process."""
    command = [sys.executable, __file__, *words, "--inside", name]
    environment = {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": str(1 << 17),
    }  # a fixed one, else the heap keeps what is freed
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
    if ended.returncode:
        raise SystemExit(f"{name} failed:\n{ended.stderr}")
    return json.loads(ended.stdout.splitlines()[-1])


def time_start(words: list[str]) -> float:
    """Return the seconds of a whole process of the command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "vidseg.core.command.main", *words], check=True, capture_output=True)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run_starts(rows: list[str]) -> list[str]:
    """Return the table of seconds."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    lines = ["| start | processor s |", "| --- | --- |"]
    jobs: dict[str, Callable[[], float]] = {
        name: lambda words=words: time_start(words)  # type: ignore[misc]
        for name, words in STARTS.items()
    }
    if find_host():
        jobs[IMPORT] = lambda: float(run_inside(IMPORT, []))
    for name, job in jobs.items():
        if name in rows:
            job()
            lines.append(f"| {name} | {min(job() for _ in range(REPEATED)):.2f} |")
    return lines


def run_operations(rows: list[str], words: list[str]) -> list[str]:
    """Return the table of bytes."""
    lines = ["| node | output, bytes a pixel | above input and output |", "| --- | --- | --- |"]
    for name in OPERATIONS:
        if name in rows and find_host():
            row = run_inside(name, words)
            lines.append(f"| {name} | {row['output']:.2f} | {row['above']:.2f} |")
    return lines


def main() -> None:
    """Measure, print the tables, and write them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--size", type=read_size, default=(480, 854), metavar="HxW")
    parser.add_argument("--rows", default=";".join([*STARTS, IMPORT, *OPERATIONS]), metavar="NAME;...")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    height, width = arguments.size
    if arguments.inside:
        size = (arguments.frames, height, width)
        print(json.dumps(import_pack() if arguments.inside == IMPORT else measure(arguments.inside, size)))
        return
    rows = arguments.rows.split(";")
    words = ["--frames", str(arguments.frames), "--size", f"{height}x{width}"]
    tables = [run_starts(rows), run_operations(rows, words)]
    text = "\n\n".join("\n".join(lines) for lines in tables if len(lines) > 2)
    text += f"\n\n{arguments.frames} frames of {width}x{height}\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
