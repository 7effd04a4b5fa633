"""Things that enter later: mIoU with and without new regions, on clips where something enters and on others.

    python benchmarks/unseen.py CLIPS --model assets/demo_model.safetensors --out FOLDER

The clips where something enters are made from the openly licensed ones of `tests/quality`: the camera goes to and fro,
and the main thing of one clip slides into another from its fifth frame on. Labels are those of the coarse grid by the
`paper` preset, enlarged bilinearly, without masked modulation. Regions of the first frame are named by its labels, as
in the paper; a new region stands for the class that most of its pixels have in the frame where it first occurs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from clip_features import LabeledClip, labeled_clip
from PIL import Image
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.config.settings import preset, replace_parts
from vidseg.core.evaluation.metrics import compute_mean_iou, count_confusion, match_regions
from vidseg.core.method.coarse import segment_coarse
from vidseg.core.method.enlarging import enlarge_bilinear
from vidseg.core.method.pipeline import label_anchor
from vidseg.core.types import list_labels

QUALITY = Path(__file__).parents[1] / "tests" / "quality" / "clips"
ENTERING = {
    "pagoda + coffee": ("pagoda", "coffee", (2, 3), 0.55),
    "coffee + astronaut": ("coffee", "astronaut", (1,), 0.6),
    "astronaut + coffee": ("astronaut", "coffee", (1, 2, 3, 4), 0.5),
    "pagoda + astronaut": ("pagoda", "astronaut", (1,), 0.6),
}
"""Name of a made clip: where, what enters from which clip, its labels there, and its scale."""
NEW_CLASS = 9
ORDER = (0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0, 1, 2, 3)
FIRST, SPEED, START, BOTTOM = 4, 0.07, 0.8, 8
"""Frame in which the thing enters, its speed in frame widths, how much of it is hidden at first, pixels below it."""


def pictures(clip: str, kind: str) -> list[np.ndarray]:
    """Return the frames or masks of a clip of `tests/quality`."""
    mode = "RGB" if kind == "frames" else "P"
    paths = sorted((QUALITY / clip / kind).iterdir())
    return [np.array(Image.open(path).convert(mode) if mode == "RGB" else Image.open(path)) for path in paths]


def make_clip(name: str, folder: Path) -> Path:
    """Write a clip where something enters; return its folder."""
    place, source, labels, scale = ENTERING[name]
    target = folder / name.replace(" + ", "_")
    for kind in ("frames", "masks"):
        (target / kind).mkdir(parents=True, exist_ok=True)
    inside = np.isin(pictures(source, "masks")[0], labels)
    rows, columns = np.nonzero(inside)
    crop = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = (int(side * scale) for side in inside[crop].shape)
    thing = Image.fromarray(pictures(source, "frames")[0][crop]).resize((width, height), Image.Resampling.BICUBIC)
    cover = Image.fromarray(inside[crop].astype(np.uint8) * 255).resize((width, height), Image.Resampling.BICUBIC)
    cover = cover.point(lambda value: 255 if value > 127 else 0)
    frames, masks = pictures(place, "frames"), pictures(place, "masks")
    for number, index in enumerate(ORDER):
        frame, mask = Image.fromarray(frames[index]), Image.fromarray(masks[index])
        if number >= FIRST:
            left = int(-width * START + (number - FIRST) * frame.width * SPEED)
            corner = (left, frame.height - height - BOTTOM)
            frame.paste(thing, corner, cover)
            mask.paste(NEW_CLASS, (*corner, corner[0] + width, corner[1] + height), cover)
        frame.save(target / "frames" / f"{number:05d}.png")
        mask.save(target / "masks" / f"{number:05d}.png")
    return target


def miou(clip: LabeledClip, new_regions: bool) -> tuple[float, int]:
    """Return mIoU and the number of new regions of the `paper` preset with or without `new_regions`."""
    settings, features = replace_parts(preset("paper"), scene={"new_regions": new_regions}), clip.features
    anchor_labels = label_anchor(features, settings, clip.truth[0])
    coarse = segment_coarse(features, anchor_labels, settings)
    maps = enlarge_bilinear(coarse).maps[clip.numbers]
    known = set(list_labels(anchor_labels.regions))
    return compute_mean_iou(count_confusion(match_regions(maps, clip.truth, known), clip.truth)), len(
        coarse.regions
    ) - len(known)


def main() -> None:
    """Measure all clips and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("root", type=Path, metavar="CLIPS")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the table, the made clips and the features")
    parser.add_argument("--max-side", type=int, default=448)
    arguments = parser.parse_args()
    settings = replace_parts(preset("paper"), frame={"max_side": arguments.max_side})
    backbone = load_diffusers(arguments.model)
    folders = {name: make_clip(name, arguments.out / "clips") for name in ENTERING}
    others = [*sorted(QUALITY.iterdir()), *sorted(arguments.root.iterdir())]
    folders |= {folder.name: folder for folder in others if (folder / "frames").is_dir()}
    lines = ["| clip | paper | with new regions | difference | new regions |", "| --- " * 5 + "|"]
    for name, folder in folders.items():
        clip = labeled_clip(folder, arguments.out / "features", backbone, settings)
        (before, _), (after, count) = (miou(clip, on) for on in (False, True))
        lines.append(f"| {name} | {before:.3f} | {after:.3f} | {after - before:+.3f} | {count} |")
        print(lines[-1], flush=True)
    (arguments.out / "unseen.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
