"""Measure how work spreads over the workers of a Ray cluster on this machine; `scaling.py --workers` calls it.

For many clips and for one clip: a local run, then one run for each number of workers, whose labels must be the same.
Seconds are those of the clock, in parts: until the workers have their models, until all is segmented, and to the end.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from vidseg.core.checkpoints.describe import describe_model
from vidseg.core.command.clips import ClipsRun, make_jobs
from vidseg.core.command.segment import Maker, MakerHere, SegmentOptions, SegmentRun
from vidseg.core.config.settings import Settings
from vidseg.core.engine.cluster import Cluster
from vidseg.core.engine.jobs import tell_plainly
from vidseg.core.engine.line import ClipTask, enlarge_window, label_coarse, read_window
from vidseg.core.engine.model import ModelSpec, Workplace
from vidseg.core.engine.windows import ClipOnRay
from vidseg.core.files.clip import open_clip
from vidseg.core.files.overlay import write_overlay
from vidseg.core.files.package import DEMO_MODEL
from vidseg.core.files.result_folder import ResultFolder
from vidseg.core.method.pipeline import ScanState
from vidseg.core.method.windows import split_spans
from vidseg.core.progress import RunProgress
from vidseg.core.types import no_progress


@dataclass
class Laps:
    """A display that notes when the work began, and when all was segmented."""

    begin: float = field(default_factory=time.perf_counter)
    ready: float = 0.0
    segmented: float = 0.0

    def show(self, _fraction: float, text: str, *, last: bool) -> None:
        """Note the first word after the workers came, and the first of the overlay."""
        del last
        now = time.perf_counter()
        if not self.ready and ("about" in text or "started" in text or ": check" in text):
            self.ready = now
        if not self.segmented and text.startswith("overlay"):
            self.segmented = now

    def close(self) -> None:
        """Nothing to restore."""

    def figures(self) -> dict[str, float]:
        """Return the seconds of the parts; of many clips, whose overlays come between, in two."""
        end = time.perf_counter()
        segmented = self.segmented or end
        return {
            "start": self.ready - self.begin,
            "work": segmented - self.ready,
            "end": end - segmented,
            "seconds": end - self.begin,
        }


def digest(out: Path) -> str:
    """Return a hash of all label maps below a folder."""
    whole = hashlib.sha256()
    for path in sorted(out.rglob("labels/*.png")):
        whole.update(path.read_bytes())
    return whole.hexdigest()


def run_clip(clip: Path, out: Path, settings: Settings, workers: int) -> dict[str, float]:
    """Segment one clip, here if there are no workers."""
    laps, spec = Laps(), ModelSpec(describe_model(DEMO_MODEL), "cpu")
    options = SegmentOptions(clip, out, spec, settings)

    def run(maker: Maker) -> None:
        SegmentRun(options, RunProgress(laps, {"features": 0.9, "upsampling": 0.1}), maker).execute()

    if workers:
        with ClipOnRay(spec, Cluster(workers), clip) as maker:
            run(maker)
            figures = laps.figures()
    else:
        run(MakerHere(Workplace(spec), "method"))
        figures = laps.figures()
    return figures


def run_clips(clips: Sequence[Path], out: Path, settings: Settings, workers: int) -> dict[str, float]:
    """Segment many clips, here if there are no workers."""
    laps, spec = Laps(), ModelSpec(describe_model(DEMO_MODEL), "cpu")
    run = ClipsRun(make_jobs(clips, SegmentOptions(clips[0], out, spec, settings)), tell_plainly)
    run.execute(spec, Cluster(workers) if workers else None, laps)
    return laps.figures()


def measure_stages(clip: Path, settings: Settings, folder: Path) -> dict[str, float]:
    """Return the seconds and the bytes of each stage of a frame, from the second window of a clip."""
    place = Workplace(ModelSpec(describe_model(DEMO_MODEL), "cpu"))
    figures: dict[str, float] = {}

    def timed(name: str, count: int, call: Callable[[], Any]) -> Any:  # noqa: ANN401
        start = time.perf_counter()
        result = call()
        figures[f"{name} s"] = (time.perf_counter() - start) / count
        return result

    with open_clip(clip) as opened:
        task = ClipTask(clip, opened.info, settings, None)
    state: ScanState | None = None
    result = ResultFolder(folder)
    for span in split_spans(task.info.num_frames, settings)[:2]:
        count = len(span.kept)
        _, tokens, rest = timed("features", count, lambda span=span: read_window(place, task, span))
        _, coarse, state = timed(
            "scan", count, lambda span=span, tokens=tokens, state=state: label_coarse(place, task, span, tokens, state)
        )
        _, labels = timed(
            "enlarging",
            count,
            lambda span=span, rest=rest, coarse=coarse: enlarge_window(place, task, span, rest, coarse),
        )

        def write(span: Any = span, labels: Any = labels, state: Any = state) -> None:  # noqa: ANN401
            result.write_label_maps(span.kept.start, labels)
            result.write_bytes("state", state.to_bytes())

        timed("writing", count, write)
        sizes = {"features to the scan": tokens, "features to enlarging": rest, "coarse maps": coarse}
        sizes |= {"scan to the writer": state, "labels to the writer": labels}
        figures |= {f"{name} B": count_bytes(value) / count for name, value in sizes.items()}
    with open_clip(clip) as opened:
        short = opened.info._replace(num_frames=2 * len(span.kept))
        opened.info = short
        timed("overlay", short.num_frames, lambda: write_overlay(result, opened, no_progress))
    return figures


def count_bytes(value: Any) -> int:  # noqa: ANN401
    """Return the bytes of all tensors in a value."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, tuple):
        return sum(map(count_bytes, value))
    return sum(map(count_bytes, vars(value).values())) if hasattr(value, "__dict__") else 0


def expect_seconds(costs: dict[str, float], frames: int, workers: int, bandwidth: float) -> float:
    """Return the seconds for a clip by the model: the slowest of what is done side by side, then the overlay.

    Workers share features, scan and enlarging; the scan alone is one after the other; one writer gets labels and states
    through a network of ``bandwidth`` bytes a second.
    """
    together = costs["features s"] + costs["scan s"] + costs["enlarging s"]
    received = costs["labels to the writer B"] + costs["scan to the writer B"]
    frame = max(together / workers, costs["scan s"], costs["writing s"], received / bandwidth)
    return frames * (frame + costs["overlay s"])


def measure(
    folder: Path,
    video_of: Callable[[int], Path],
    workers: Sequence[int],
    sizes: dict[str, tuple[int, int, int]],
    side: int,
) -> list[dict[str, Any]]:
    """Return a row for each quality, kind of work and number of workers.

    ``sizes`` are, by quality, the frames of the one clip, the number of many clips, and the frames of each.
    """
    rows: list[dict[str, Any]] = []
    for quality, (frames, num_clips, each) in sizes.items():
        settings = Settings.of(quality=quality, max_side=side)
        clips = []
        for number in range(num_clips):
            clips.append(folder / f"{quality}{number}.mp4")
            shutil.copy(video_of(each), clips[-1])
        works = {
            "one clip": (frames, lambda out, n, s=settings, f=frames: run_clip(video_of(f), out, s, n)),
            "clips": (num_clips * each, lambda out, n, s=settings, c=clips: run_clips(c, out, s, n)),
        }
        for name, (count, run) in works.items():
            expected = ""
            for number in (0, *workers):
                out = folder / f"{quality}-{name}-{number}"
                figures = run(out, number)
                expected = expected or digest(out)
                rows.append(
                    {"quality": quality, "work of": name, "workers": number, "frames": count, **figures}
                    | {"labels": "same" if digest(out) == expected else "OTHERS"}
                )
                print(rows[-1], flush=True)
    return rows


def describe(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table; efficiency is against one worker, without the start of workers."""
    columns = ("quality", "work of", "frames", "workers", "start", "segmenting", "end", "all", "efficiency", "labels")
    lines = ["| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns))]
    alone: dict[tuple[str, str], float] = {}
    for row in rows:
        key, took = (row["quality"], row["work of"]), row["work"] + row["end"]
        if row["workers"] == 1:
            alone[key] = took
        share = f"{alone[key] / took / row['workers']:.2f}" if row["workers"] and key in alone else ""
        times = " | ".join(f"{row[name]:.1f}" for name in ("start", "work", "end", "seconds"))
        who = row["workers"] or "none: local"
        lines.append(f"| {key[0]} | {key[1]} | {row['frames']} | {who} | {times} | {share} | {row['labels']} |")
    return "\n".join(lines) + "\n"


def describe_model_curve(costs: dict[str, float], frames: int, bandwidth: float = 1.25e9) -> str:
    """Return what the model says of up to 64 workers, and the costs that it is made of."""
    parts = [f"{name} {value * 1e3:.1f} ms" for name, value in costs.items() if name.endswith(" s")]
    sizes = [f"{name.removesuffix(' B')} {value / 1e3:.0f} kB" for name, value in costs.items() if name.endswith(" B")]
    lines = [f"A frame: {', '.join(parts)}; {', '.join(sizes)}.".replace(" s ", " "), ""]
    lines += ["| workers | seconds (model) | efficiency (model) |", "| --- | --- | --- |"]
    alone = expect_seconds(costs, frames, 1, bandwidth)
    for workers in (1, 2, 4, 8, 16, 32, 64):
        seconds = expect_seconds(costs, frames, workers, bandwidth)
        lines.append(f"| {workers} | {seconds:.1f} | {alone / seconds / workers:.2f} |")
    return "\n".join(lines) + "\n"
