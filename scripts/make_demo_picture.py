"""Write the README's moving picture from a result of `vidseg demo`: the clip, its regions, and an edit.

Usage: vidseg demo && python scripts/make_demo_picture.py vidseg-demo
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from vidseg.core.files.clip import open_clip
from vidseg.core.files.package import DEMO_CLIP
from vidseg.core.regions.palette import draw_overlay

TARGET = Path(__file__).resolve().parents[1] / "assets" / "demo.webp"
FPS, GAP, QUALITY = 8, 6, 70
EDITS = {(0.95, 0.15): (1.12, 0.82, 0.72), (0.75, 0.75): (0.55, 0.75, 1.5), (0.25, 0.95): (0.55, 0.75, 1.5)}
"""Points of the first frame, x,y as fractions, and the factors of red, green and blue for the regions there."""
Pixels = NDArray[np.float32]


def edited(frame: Pixels, labels: NDArray[np.uint8], factors: dict[int, tuple[float, float, float]]) -> Pixels:
    """Return a frame ``(H,W,3)`` with the colors of some regions changed."""
    result = frame.copy()
    for label, factor in factors.items():
        inside = labels == label
        result[inside] = np.clip(frame[inside] * np.array(factor, np.float32), 0, 1)
    return result


def main(folder: Path) -> None:
    """Write the picture."""
    with open_clip(DEMO_CLIP) as clip:
        frames = clip.read(0, clip.num_frames)
    maps = [np.asarray(Image.open(folder / "labels" / f"{number:05d}.png")) for number in range(len(frames))]
    height, width = maps[0].shape
    factors = {int(maps[0][int(y * height), int(x * width)]): factor for (x, y), factor in EDITS.items()}
    pictures = []
    for number, labels in enumerate(maps):
        one = frames[number : number + 1]
        painted = draw_overlay(one, torch.from_numpy(labels.copy())[None], 0.55)[0].numpy()
        parts = (one[0].numpy(), painted, edited(one[0].numpy(), labels, factors))
        gap = np.ones((height, GAP, 3), np.float32)
        row = np.concatenate([parts[0], gap, parts[1], gap, parts[2]], axis=1)
        pictures.append(Image.fromarray((row * 255).round().astype(np.uint8)))
    first, *others = pictures
    first.save(TARGET, save_all=True, append_images=others, duration=1000 // FPS, loop=0, quality=QUALITY, method=6)
    print(TARGET, first.size, TARGET.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
