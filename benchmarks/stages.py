"""Processor seconds and peak memory of every stage beside the model, at the true shapes of SD 2.1, on one thread.

Usage: python benchmarks/stages.py [--before CHECKOUT] [--frames 28] [--size 1080x1920] [--max-side 832] [--out FILE]

No model runs. Its features are made of real frames: patches of the bundled clip, spread over 640 channels by random
weights, with a little noise, so that things look alike from frame to frame as they do to a model. With ``--before``,
the checkout of an earlier commit is measured in the same run, each stage in the same minute, both with the method
kmeans, which both have; the rows of the method tree are of this checkout. `memory.py` has the start. Peak
memory is what a stage adds to what was held before it, and stays empty where the system does not tell.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CHANNELS = 640
WINDOW = 14
MEGABYTE = 1 << 20
JOBS = 10
"""Regions of a frame that are modulated."""


def peak() -> int:
    """Return the most memory that this process has held since `forget_peak`, or since it began, bytes."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def forget_peak() -> int:
    """Set the peak to what is held now, and return it; 0 where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return 0
    return peak()


class Stages:
    """Measures stages: seconds of the processor for a frame, or once, and MiB."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}

    def measure(self, name: str, count: int, call: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Return what a call returns; its seconds are divided by ``count`` frames."""
        held, start = forget_peak(), time.process_time()
        result = call()
        seconds = time.process_time() - start
        self.rows[name] = {"seconds": seconds / count, "MiB": (peak() - held) / MEGABYTE if held else float("nan")}
        return result


def show_again(num_frames: int, size: tuple[int, int]) -> Iterator[Any]:
    """Yield the bundled clip forth and back in another size, ``(H,W,3)`` uint8."""
    import torch  # noqa: PLC0415, the first process needs none of it
    from vidseg.core.files.clip import open_clip  # noqa: PLC0415

    with open_clip(ROOT / "assets" / "demo_clip.mp4") as clip:
        frames = clip.read(0, clip.num_frames).movedim(-1, 1)
    for number in range(num_frames):
        place = number % (2 * len(frames) - 2)
        frame = frames[min(place, 2 * len(frames) - 2 - place)][None]
        large = torch.nn.functional.interpolate(frame, size, mode="bicubic").clamp(0, 1)
        yield (large[0].movedim(0, -1) * 255).round().byte()


def make_features(pictures: Any, frame_size: tuple[int, int]) -> Any:  # noqa: ANN401
    """Return features as of SD 2.1 of pictures ``(T,H,W,3)`` float32 in the size of the model."""
    import torch  # noqa: PLC0415
    import torch.nn.functional as F  # noqa: N812, PLC0415
    from vidseg.core.types import Features, Grid  # noqa: PLC0415

    generator = torch.Generator().manual_seed(0)
    count, height, width = (int(side) for side in pictures.shape[:3])
    grid = Grid(height // 16, width // 16)
    small = F.interpolate(pictures.movedim(-1, 1), (8 * grid.h, 8 * grid.w), mode="area")
    patches = F.unfold(F.pad(small, (4, 4, 4, 4), mode="replicate"), 16, stride=8).transpose(1, 2)
    patches = patches - patches.mean((0, 1))
    weights = torch.randn(patches.shape[2], CHANNELS, generator=generator) / patches.shape[2] ** 0.5
    queries = torch.tanh(2 * patches @ weights)
    queries += 0.05 * torch.randn(queries.shape, generator=generator)
    nothing = torch.zeros(count, 4, height // 8, width // 8)
    levels = (pictures * 255).round().byte()
    return Features(queries, queries, nothing, nothing, grid, frame_size, levels)


def choose_settings(max_side: int, method: str) -> Any:  # noqa: ANN401
    """Return the settings of the quality fast; an earlier commit knows one method alone."""
    from vidseg.core.config.settings import SETTINGS, Settings, replace_parts, with_quality  # noqa: PLC0415

    settings = replace_parts(with_quality(Settings(), "fast"), frame={"max_side": max_side})
    if "cluster.method" not in SETTINGS:
        return settings
    return replace_parts(settings, cluster={"method": method, **({} if method == "tree" else {"place": 0.0})})


def run_stages(arguments: argparse.Namespace, method: str) -> dict[str, dict[str, float]]:
    """Return the rows of the checkout that `vidseg` is imported from."""
    import sklearn.cluster  # noqa: F401, PLC0415, imported on first use else
    import torch  # noqa: PLC0415
    from vidseg.core.files.clip import open_clip  # noqa: PLC0415
    from vidseg.core.files.video import write_video  # noqa: PLC0415

    torch.set_num_threads(1)
    stages, window = Stages(), min(WINDOW, arguments.frames)
    settings = choose_settings(arguments.max_side, method)
    with tempfile.TemporaryDirectory() as place:
        video = Path(place) / "clip.mp4"
        write_video(video, show_again(arguments.frames, arguments.size))
        clip = stages.measure("check the clip", arguments.frames, lambda: open_clip(video))
        with clip:
            sized = stages.measure("read and resize", window, lambda: read_fitted(clip, window, settings))
            labels = label_window(stages, make_features(sized, clip.info.frame_size), settings)
            write_window(stages, Path(place), clip, labels)
        choose_by_difference(stages, sized, clip.info.frame_size, settings)
    rows = stages.rows
    each = ("check the clip", "read and resize", "scene context", "guided filter", "label maps to PNG")
    total = sum(rows[name]["seconds"] for name in (*each, "overlay, drawn and encoded"))
    rows["**a frame, but for K-means**"] = {"seconds": total, "MiB": max(row["MiB"] for row in rows.values())}
    return rows


def read_fitted(clip: Any, window: int, settings: Any) -> Any:  # noqa: ANN401
    """Return the first frames in the size of the model; an earlier commit reads all before it resizes them."""
    from vidseg.core.method import frames  # noqa: PLC0415

    if hasattr(frames, "read_fitted"):
        sized = frames.read_fitted(clip, range(window), settings)[0]
        return frames.to_floats(sized) if hasattr(frames, "to_floats") else sized
    return frames.fit_frames(clip.read(0, window), settings)


def label_window(stages: Stages, features: Any, settings: Any) -> Any:  # noqa: ANN401
    """Measure the stages from features to label maps; return these."""
    from vidseg.core.method.coarse import CoarseScan  # noqa: PLC0415
    from vidseg.core.method.enlarging import enlarge_maps  # noqa: PLC0415
    from vidseg.core.method.pipeline import label_anchor  # noqa: PLC0415
    from vidseg.core.types import LabelMaps  # noqa: PLC0415

    count = features.num_frames
    anchor = stages.measure("K-means, once", 1, lambda: label_anchor(features, settings))
    scan = CoarseScan(anchor, settings)
    stages.measure("scene context, first window", count, lambda: scan.step(features))
    coarse = stages.measure("scene context", count, lambda: scan.step(features))
    if not isinstance(coarse, LabelMaps):
        coarse = LabelMaps(coarse, anchor.regions, features.frame_size)
    return stages.measure("guided filter", count, lambda: enlarge_maps(coarse, features, settings.enlarging))


def choose_by_difference(stages: Stages, sized: Any, frame_size: tuple[int, int], settings: Any) -> None:  # noqa: ANN401
    """Measure what the quality exact does with two decodes of each modulated region of a frame."""
    import torch  # noqa: PLC0415
    from vidseg.core.method.differences import RunningArgmax, score_labels  # noqa: PLC0415
    from vidseg.core.method.enlarging import enlarge_nearest  # noqa: PLC0415

    owners = [torch.full((sized.shape[1] // 16, sized.shape[2] // 16), label) for label in range(JOBS)]
    masks = [torch.zeros(owner.shape, dtype=torch.bool) for owner in owners]
    plus, minus = sized[:1].clone(), sized[1:2].clone()
    for label, mask in enumerate(masks):
        mask[label : label + 4, label : label + 4] = True
    alone = hasattr(RunningArgmax, "maps")  # then the region of a pass that it has to itself is a number

    def choose() -> None:
        best = RunningArgmax(torch.zeros(1, *frame_size, dtype=torch.uint8))
        for label, (mask, owner) in enumerate(zip(masks, owners, strict=True)):
            shared = None if alone else owner[None]
            scores = score_labels(plus, minus, mask[None], frame_size, settings.difference, owners=shared)[0]
            best.update(0, label if alone else enlarge_nearest(owner, frame_size), scores)

    stages.measure("exact: choosing, a region of a frame", JOBS, choose)


def write_window(stages: Stages, place: Path, clip: Any, labels: Any) -> None:  # noqa: ANN401
    """Measure what is written."""
    from vidseg.core.files.result_folder import ResultFolder  # noqa: PLC0415
    from vidseg.core.files.video import write_video  # noqa: PLC0415
    from vidseg.core.regions import palette  # noqa: PLC0415

    folder, count = ResultFolder(place / "result"), len(labels.maps)
    folder.path.mkdir()
    takes_maps = "maps" in inspect.signature(folder.write_label_maps).parameters
    written = labels.maps if takes_maps else labels
    stages.measure("label maps to PNG", count, lambda: folder.write_label_maps(0, written))

    def draw() -> Iterator[Any]:
        if hasattr(palette, "paint_pixels"):
            yield from map(palette.paint_pixels, clip.show(), folder.read_label_maps(count))
            return
        for number, label_map in enumerate(folder.read_label_maps(count)):
            frame = palette.draw_overlay(clip.read(number, number + 1), label_map[None])[0]
            yield (frame * 255).round().byte()

    stages.measure("overlay, drawn", count, lambda: [None for _ in draw()])
    stages.measure("overlay, drawn and encoded", count, lambda: write_video(place / "overlay.mp4", draw()))


def measure_checkout(path: Path, method: str) -> dict[str, dict[str, float]]:
    """Run this script in a process that imports `vidseg` from a checkout; return its rows."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "vidseg").symlink_to(path.resolve())
        environment = {**os.environ, "PYTHONPATH": place, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, *sys.argv[1:], "--inside", method]
        ended = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)  # noqa: S603
        rows: dict[str, dict[str, float]] = json.loads(ended.stdout.splitlines()[-1])
    return rows


def make_table(columns: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the table: for each stage the seconds and MiB of each column, and the share of the first two."""
    names = list(dict.fromkeys(name for rows in columns.values() for name in rows))
    titles = ["stage", *(f"{title}, {unit}" for title in columns for unit in ("s", "MiB"))]
    before = columns.get("before")
    lines = [[*titles, "kmeans / before"] if before else titles]
    lines.append(["---"] * len(lines[0]))
    for name in names:
        cells = [name]
        for rows in columns.values():
            row = rows.get(name)
            memory = "" if row is None or row["MiB"] != row["MiB"] else f"{row['MiB']:.0f}"
            cells += ["" if row is None else f"{row['seconds']:.3f}", memory]
        if before:
            cells.append(f"{columns['kmeans'][name]['seconds'] / before[name]['seconds']:.2f}")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read_size(text: str) -> tuple[int, int]:
    """Return a size ``HxW``."""
    height, width = map(int, text.split("x"))
    return height, width


def main() -> None:
    """Measure, print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--before", type=Path, help="checkout of an earlier commit")
    parser.add_argument("--frames", type=int, default=28)
    parser.add_argument("--size", type=read_size, default=(1080, 1920), metavar="HxW")
    parser.add_argument("--max-side", type=int, default=832)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--inside", choices=["kmeans", "tree"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(run_stages(arguments, arguments.inside)))
        return
    columns = {"before": measure_checkout(arguments.before, "kmeans")} if arguments.before else {}
    columns |= {method: measure_checkout(ROOT, method) for method in ("kmeans", "tree")}
    height, width = arguments.size
    text = f"{make_table(columns)}\n\n{width}x{height}, longer side for the model {arguments.max_side}, one thread\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
