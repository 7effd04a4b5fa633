"""Features and ground truth of clips, for the benchmarks without masked modulation; features are kept in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from vidseg.core.backbones.protocol import Backbone
from vidseg.core.config.settings import Settings
from vidseg.core.files.clip import open_clip
from vidseg.core.files.label_images import read_label_values
from vidseg.core.method.features import extract_features
from vidseg.core.types import Features, Grid

CHUNK = 14
"""Frames whose features are computed together."""


class LabeledClip(NamedTuple):
    """Features of all frames, and masks ``(L,H,W)`` of the frames ``numbers``."""

    features: Features
    truth: Tensor
    numbers: list[int]


def labeled_clip(folder: Path, cache: Path, backbone: Backbone, settings: Settings) -> LabeledClip:
    """Read a clip (`frames/`, `masks/`); features come from ``cache`` if they are there."""
    frames = sorted((folder / "frames").iterdir())
    numbers = [index for index, frame in enumerate(frames) if (folder / "masks" / f"{frame.stem}.png").is_file()]
    masks = [read_label_values(folder / "masks" / f"{frames[index].stem}.png", "masks") for index in numbers]
    path = cache / f"{folder.name}.pt"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        parts = []
        with open_clip(folder) as clip:
            for start in range(0, clip.num_frames, CHUNK):
                shown = clip.read(start, min(start + CHUNK, clip.num_frames))
                parts.append(extract_features(backbone, shown, settings, first_frame=start))
        stored = {
            "q": torch.cat([part.queries for part in parts]),
            "m": torch.cat([part.matching for part in parts]),
            "grid": tuple(parts[0].grid),
            "size": parts[0].frame_size,
        }
        torch.save(stored, path)
    stored = torch.load(path)
    nothing = torch.empty(len(stored["q"]), 0)
    features = Features(stored["q"], stored["m"], nothing, nothing, Grid(*stored["grid"]), tuple(stored["size"]))
    return LabeledClip(features, torch.stack(masks), numbers)


def inner_pixel(mask: Tensor) -> tuple[float, float]:
    """Return x, y in [0, 1] of the pixel of ``mask`` ``(H,W)`` that lies deepest inside it, also at the border."""
    from scipy.ndimage import distance_transform_edt  # noqa: PLC0415

    depth = distance_transform_edt(torch.nn.functional.pad(mask, (1,) * 4).numpy())[1:-1, 1:-1]
    row, column = divmod(int(depth.argmax()), mask.shape[1])
    return (column + 0.5) / mask.shape[1], (row + 0.5) / mask.shape[0]


def intersection_over_union(prediction: Tensor, truth: Tensor) -> float:
    """Return the IoU of a mask ``(H,W)`` with label 1 of ``truth``; void (255) does not count; 1 if both are empty."""
    inside, wanted = prediction & (truth != 255), truth == 1
    union = int((inside | wanted).sum())
    return int((inside & wanted).sum()) / union if union else 1.0
