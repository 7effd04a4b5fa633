"""One click on the object in the first frame, and one correction later: IoU over clips, beside label propagation.

    python benchmarks/corrections.py CLIPS --model assets/demo_model.safetensors --out FOLDER

CLIPS holds a folder per clip (`frames/`, `masks/` with object 1, background 0, void 255). Labels are those of the
coarse grid, enlarged bilinearly: no masked modulation. The click is the pixel deepest inside the object. The
correction is a click on the largest error (its deepest pixel) in the worst frame, or the true mask painted there.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from clip_features import LabeledClip, inner_pixel, intersection_over_union, labeled_clip
from torch import Tensor
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.config.settings import preset, replace_parts
from vidseg.core.evaluation.baselines import DIFT
from vidseg.core.method.coarse import segment_coarse
from vidseg.core.method.pipeline import label_anchor
from vidseg.core.regions.corrections import Painted, correct_labels, parse_corrections
from vidseg.core.regions.labels import reduce_reference
from vidseg.core.regions.propagation import PropagationMemory
from vidseg.core.types import AnchorLabels, LabelMaps, Region

ROWS = (
    "scene context, region under the click (K = 20)",
    "label propagation (DIFT) from the clicked thing",
    "one click",
    "one click, one click on the worst frame",
    "one click, one painted mask on the worst frame",
    "scene context from the true mask",
    "label propagation (DIFT) from the true mask",
    "the true mask, propagated as corrections are",
)


def full_size(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Return coarse masks ``(T,h,w)`` bool in full resolution."""
    return F.interpolate(masks[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0] > 0.5


def propagated(clip: LabeledClip, start: Tensor) -> Tensor:
    """Propagate a coarse mask ``(h,w)`` of the first frame as DIFT does; returns ``(T,h,w)`` bool."""
    unit = F.normalize(clip.features.queries, dim=-1)
    soft = [start.reshape(-1, 1).float()]
    memory = PropagationMemory(unit[0], soft[0], clip.features.grid, DIFT)
    for tokens in unit[1:]:
        soft.append(memory.propagate(tokens))
        memory.remember(tokens, soft[-1])
    return torch.stack(soft).reshape(-1, *clip.features.grid) > 0.5


def empty_labels(clip: LabeledClip) -> LabelMaps:
    """Return label maps of nothing but background."""
    size = clip.features.frame_size
    maps = torch.zeros(clip.features.num_frames, *size, dtype=torch.uint8)
    return LabelMaps(maps, (Region(0, "background"),))


def by_lines(clip: LabeledClip, text: str) -> Tensor:
    """Return where `object` lies ``(T,H,W)`` bool after corrections of an empty clip."""
    return correct_labels(clip.features, empty_labels(clip), parse_corrections(text)).labels.maps == 1


def line(action: str, frame: int, place: tuple[float, float], name: str = "object") -> str:
    """Return a line of corrections."""
    return f"{action} {frame} {place[0]:.4f},{place[1]:.4f} {name}"


def scores(clip: LabeledClip, masks: Tensor) -> list[float]:
    """Return the IoU of each labeled frame."""
    pairs = zip(clip.numbers, clip.truth, strict=True)
    return [intersection_over_union(masks[number], truth) for number, truth in pairs]


def scene_context(clip: LabeledClip, cells: Tensor) -> Tensor:
    """Propagate a coarse mask ``(h,w)`` of the first frame by the scene context and refinement, ``(T,H,W)`` bool."""
    anchor_labels = AnchorLabels(0, cells.long(), (Region(0, "background"), Region(1, "object")))
    coarse = segment_coarse(clip.features, anchor_labels, preset("default"))
    return full_size(coarse.maps == 1, clip.features.frame_size)


def worst_frame(clip: LabeledClip, masks: Tensor, first: str) -> tuple[str, int]:
    """Return the lines with one more click, in the frame with the least IoU, and which labeled frame that is."""
    values = scores(clip, masks)
    index = min(range(len(values)), key=values.__getitem__)
    number, truth = clip.numbers[index], clip.truth[index]
    missed, extra = (truth == 1) & ~masks[number], masks[number] & (truth == 0)
    wrong, name = (missed, "object") if missed.sum() >= extra.sum() else (extra, "background")
    return "\n".join([first, line("new", number, inner_pixel(wrong), name)]), index


def measured(clip: LabeledClip) -> dict[str, float]:
    """Return the mean IoU of each row of the table, and the CPU seconds that a click takes."""
    features, truth = clip.features, clip.truth
    grid = (features.grid.h, features.grid.w)
    place = inner_pixel(truth[0] == 1)
    first = line("new", 0, place)
    start = time.process_time()
    clicked = by_lines(clip, first)
    seconds = time.process_time() - start
    clusters = label_anchor(features, preset("default")).cluster_map
    cell = clusters[int(place[1] * grid[0]), int(place[0] * grid[1])]
    true_cells = reduce_reference(truth[0], grid) == 1
    grown_cells = reduce_reference(clicked[0].to(torch.uint8), grid) == 1
    click, index = worst_frame(clip, clicked, first)
    masks = (
        scene_context(clip, clusters == cell),
        full_size(propagated(clip, grown_cells), features.frame_size),
        clicked,
        by_lines(clip, click),
        painted(clip, index, first),
        scene_context(clip, true_cells),
        full_size(propagated(clip, true_cells), features.frame_size),
        painted(clip, 0),
    )
    values = {row: sum(found) / len(found) for row, found in zip(ROWS, (scores(clip, m) for m in masks), strict=True)}
    return {**values, "CPU seconds per 100 frames": 100 * seconds / features.num_frames}


def painted(clip: LabeledClip, index: int, text: str = "") -> Tensor:
    """Return where the object lies ``(T,H,W)`` bool when its true mask is painted in a labeled frame, after lines."""
    mask = Painted(clip.truth[index] == 1, clip.numbers[index], "object")
    points = parse_corrections(text)
    return correct_labels(clip.features, empty_labels(clip), points, painted=mask).labels.maps == 1


def table(results: dict[str, dict[str, float]]) -> str:
    """Return the figures as Markdown, one column per clip and the mean."""
    lines = ["| IoU | " + " | ".join(results) + " | mean |", "| --- " * (len(results) + 2) + "|"]
    for row in next(iter(results.values())):
        values = [figures[row] for figures in results.values()]
        cells = [f"{value:.3f}" for value in (*values, sum(values) / len(values))]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure all clips with one object and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("root", type=Path, metavar="CLIPS")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the table and the features")
    parser.add_argument("--clips", default="", help="names with commas between; default: those called davis_*")
    parser.add_argument("--max-side", type=int, default=448)
    arguments = parser.parse_args()
    settings = replace_parts(preset("default"), frame={"max_side": arguments.max_side})
    names = arguments.clips.split(",") if arguments.clips else sorted(p.name for p in arguments.root.glob("davis_*"))
    backbone = load_diffusers(arguments.model)
    results = {}
    for name in names:
        clip = labeled_clip(arguments.root / name, arguments.out / "features", backbone, settings)
        results[name] = measured(clip)
        print(name, {row: round(value, 3) for row, value in results[name].items()}, flush=True)
    text = table(results)
    (arguments.out / "corrections.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
