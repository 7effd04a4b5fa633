"""Quality against cost: every quality on clips with ground truth, scored, and compared with ``exact`` pixel by pixel.

Usage: python benchmarks/dial.py CLIPS --out DIR [--max-frames 8] [--max-side 448] [--clusters 20] [--clips NAME,...]
       [--candidates]

``--candidates`` adds rows of single changes from which the qualities were put together.
CLIPS holds CLIP/{frames,masks} as for `vidseg bench folders`; the first frame's mask names the clusters. DIR gets
dial.json (finished pairs of clip and quality are not run again), dial.md and dial.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from counting import CountingBackbone, clock
from plots import new_figure
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.config.settings import QUALITIES, preset, replace_parts, with_quality
from vidseg.core.evaluation.bench.dataset import BenchClip, ClipFrames
from vidseg.core.evaluation.bench.layouts import open_folders
from vidseg.core.evaluation.bench.tally import Tally, compute_scores, tally_clip
from vidseg.core.files.record import list_versions
from vidseg.core.method.pipeline import segment
from vidseg.core.types import InputError

MODEL = Path(__file__).parents[1] / "assets" / "demo_model.safetensors"
CANDIDATES: dict[str, dict[str, dict[str, Any]]] = {
    "one modulated step": {"modulation": {"steps": "first"}},
    "shared passes": {"modulation": {"shared": True}},
    "no guidance": {"sampling": {"guidance_scale": 1.0}},
    "coarse, bilinear": {"modulation": {"enabled": False}},
}
"""Single changes of ``exact``."""
COLUMNS = ("mIoU", "mVC8 right", "boundary F", "same as exact", "UNet/frame", "decodes/frame", "seconds/frame")


def measured(
    clip: BenchClip, quality: str, backbone: CountingBackbone, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Segment a clip at a quality or with a candidate; keep its labels in DIR/labels and return its figures."""
    parts = {"cluster": {"num_clusters": arguments.clusters}, "frame": {"max_side": arguments.max_side}}
    plain = replace_parts(preset("default"), **parts)
    settings = replace_parts(plain, **CANDIDATES[quality]) if quality in CANDIDATES else with_quality(plain, quality)
    backbone.reset()
    start = clock()
    labels = segment(backbone, ClipFrames(clip), settings, reference=clip.read_mask(0)).maps
    seconds = clock() - start
    torch.save(labels, labels_file(arguments, clip, quality))
    exact = torch.load(labels_file(arguments, clip, "exact"))
    numbers = sorted(clip.masks)
    truth = torch.stack([clip.read_mask(number) for number in numbers])
    count = len(labels)
    return {
        "tally": tally_clip(labels[numbers], truth, numbers, clip.classes, clip.fps).to_json(),
        "same as exact": float((labels == exact).float().mean()),
        "UNet/frame": backbone.calls["UNet"] / count,
        "decodes/frame": backbone.calls["decode"] / count,
        "seconds/frame": seconds / count,
    }


def labels_file(arguments: argparse.Namespace, clip: BenchClip, quality: str) -> Path:
    """Return where labels are kept for the comparison."""
    folder: Path = arguments.out / "labels"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{clip.name}_{quality}.pt"


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the means over clips: mIoU, mVC8 right and boundary F of each clip, then the costs."""
    scores = [compute_scores([Tally.from_json(row["tally"])]) for row in rows]
    columns: dict[str, list[float | None]] = {
        "mIoU": [score.miou for score in scores],
        "mVC8 right": [score.consistency["mVC8 right"] for score in scores],
        "boundary F": [score.boundary for score in scores],
        **{name: [row[name] for row in rows] for name in COLUMNS[3:]},
    }
    known = {name: [value for value in values if value is not None] for name, values in columns.items()}
    return {name: sum(values) / len(values) for name, values in known.items() if values}


def markdown(means: dict[str, dict[str, float]], clips: int) -> str:
    """Return the table of means over clips."""
    lines = ["| quality | " + " | ".join(COLUMNS) + " |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for quality, row in means.items():
        lines.append(
            f"| {quality} | " + " | ".join(f"{row[name]:.3f}" if name in row else "" for name in COLUMNS) + " |"
        )
    remark = f"Means over {clips} clips; {torch.get_num_threads()} threads; {list_versions()}; `{' '.join(sys.argv)}`"
    return "\n".join(lines) + f"\n\n{remark}\n"


def plot(means: dict[str, dict[str, float]], path: Path) -> None:
    """Draw scores against seconds per frame."""
    figure = new_figure((9, 3.2))
    if figure is None:
        return
    names = [name for name in COLUMNS[:3] if all(name in row for row in means.values())]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        places = [(row["seconds/frame"], row[name]) for row in means.values()]
        axes.plot(*zip(*places, strict=True), "o-")
        for quality, place in zip(means, places, strict=True):
            axes.annotate(quality, place, textcoords="offset points", xytext=(2, 5), fontsize=8, rotation=40)
        axes.margins(x=0.15)
        axes.set(xscale="log", xlabel="seconds per frame", ylabel=name, ylim=(0, 1))
    figure.savefig(path, dpi=100)


def main() -> None:
    """Run what is missing; write table and plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("root", type=Path, metavar="CLIPS")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", default="")
    for name, value in (("max-frames", 8), ("max-side", 448), ("clusters", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--candidates", action="store_true")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    names = tuple(name for name in arguments.clips.split(",") if name)
    try:
        clips = open_folders(arguments.root).select(names).shorten(arguments.max_frames).clips
    except InputError as error:
        parser.error(str(error))
    backbone = CountingBackbone(load_diffusers(arguments.model, device=arguments.device))
    store = arguments.out / "dial.json"
    options = {name: str(getattr(arguments, name)) for name in ("max_frames", "max_side", "clusters", "model")}
    stored: dict[str, Any] = json.loads(store.read_text()) if store.is_file() else {"options": options, "clips": {}}
    if stored["options"] != options:
        parser.error(f"--out holds results of {stored['options']}; choose another folder")
    results: dict[str, dict[str, Any]] = stored["clips"]
    arguments.out.mkdir(parents=True, exist_ok=True)
    qualities = (*QUALITIES, *(CANDIDATES if arguments.candidates else ()))
    for clip in clips:
        for quality in qualities:
            if quality not in results.setdefault(clip.name, {}):
                results[clip.name][quality] = measured(clip, quality, backbone, arguments)
                store.write_text(json.dumps(stored) + "\n")
                print(clip.name, quality, {k: v for k, v in results[clip.name][quality].items() if k != "tally"})
    means = {quality: summary([results[clip.name][quality] for clip in clips]) for quality in qualities}
    (arguments.out / "dial.md").write_text(markdown(means, len(clips)))
    plot({quality: means[quality] for quality in QUALITIES}, arguments.out / "dial.png")
    print(markdown(means, len(clips)))


if __name__ == "__main__":
    main()
