"""Pictures for people: legends, tags, reduced previews."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...core.regions.labels import find_inner_point
from ...core.regions.palette import draw_legend
from ...core.types import Features, Region

_MARGIN = 8
"""Pixels between a preview and its legend."""
_OUTLINE = 2
"""Pixels of the dark line around a tag."""
_MOST_COLUMNS, _SHEET_ASPECT = 8, 1.7
"""Columns of the legend beside a preview, and width to height of the room in a node that it should fill."""
_TAGGED_SHARE = 1 / 1000
"""Part of the picture that a region must cover to get a tag."""


def draw_tags(frames: Tensor, maps: Tensor, regions: tuple[Region, ...]) -> Tensor:
    """Write the id and name of each region on ``frames`` ``(T,H,W,3)``, inside the region if there is room."""
    font = ImageFont.load_default(max(10, frames.shape[1] // 24))
    tagged = []
    for frame, labels in zip(frames, maps, strict=True):
        image = Image.fromarray((frame * 255).round().clamp(0, 255).to(torch.uint8).numpy())
        for label, name in regions:
            inside = labels == label
            if int(inside.sum()) >= max(1, _TAGGED_SHARE * inside.numel()):
                x, y = find_inner_point(inside)
                text = str(label) if name in (f"region {label}", f"label {label}") else f"{label} {name}"
                _write(image, (x * image.width, y * image.height), (text, str(label)), font)
        tagged.append(torch.from_numpy(np.array(image)).float() / 255)
    return torch.stack(tagged)


def _write(image: Image.Image, spot: tuple[float, float], texts: tuple[str, ...], font: Any) -> None:
    """Write the first of ``texts`` that ``image`` is wide enough for, or the last, centered on ``spot`` if it fits."""
    draw = ImageDraw.Draw(image)
    style: dict[str, Any] = {"font": font, "stroke_width": _OUTLINE, "anchor": "mm"}
    boxes = [(text, draw.textbbox((0, 0), text, **style)) for text in texts]
    text, (left, top, right, bottom) = next(
        (pair for pair in boxes if pair[1][2] - pair[1][0] <= image.width), boxes[-1]
    )
    x = max(-left, min(spot[0], image.width - right))
    y = max(-top, min(spot[1], image.height - bottom))
    draw.text((x, y), text, fill="white", stroke_fill="black", **style)


def draw_beside_legend(frames: Tensor, regions: tuple[Region, ...]) -> Tensor:
    """Return ``frames`` ``(T,H,W,3)`` with the legend of ``regions`` at their right, on white.

    It has as many columns as show the frames largest in a node.
    """
    frame_height, frame_width = frames.shape[1:3]
    tables = [draw_legend(regions, -(-len(regions) // columns)) for columns in range(1, _MOST_COLUMNS + 1)]
    sizes = [max(frame_width + table.shape[1], _SHEET_ASPECT * max(frame_height, table.shape[0])) for table in tables]
    picture = tables[sizes.index(min(sizes))].float() / 255
    height = max(frames.shape[1], picture.shape[0])
    panel = torch.ones(height, picture.shape[1] + _MARGIN, 3)
    panel[: picture.shape[0], _MARGIN:] = picture
    sheet = torch.ones(len(frames), height, frames.shape[2] + panel.shape[1], 3)
    sheet[:, : frames.shape[1], : frames.shape[2]] = frames
    sheet[:, :, frames.shape[2] :] = panel
    return sheet


def reduce_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Return height and width with the longer one at most ``longest`` pixels."""
    scale = min(1.0, longest / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def reduce_frames(frames: Tensor, longest: int) -> Tensor:
    """Return ``frames`` ``(T,H,W,3)`` with the longer side at most ``longest`` pixels."""
    old = (int(frames.shape[1]), int(frames.shape[2]))
    size = reduce_size(old, longest)
    if size == old:
        return frames
    planes = F.interpolate(frames.movedim(-1, 1), size, mode="bilinear", antialias=True, align_corners=False)
    return planes.movedim(1, -1).clamp(0, 1)


def project_to_colors(features: Features) -> Tensor:
    """Return the three main directions of the features as RGB ``(T,h,w,3)`` in [0, 1], the same for all frames."""
    tokens = features.queries.float().flatten(0, 1)
    centered = tokens - tokens.mean(0)
    _, vectors = torch.linalg.eigh(centered.T @ centered)
    colors = centered @ vectors[:, -3:].flip(-1)
    low, high = colors.quantile(torch.tensor([0.01, 0.99]), dim=0) if len(colors) < 2**24 else colors.aminmax(dim=0)
    scaled = ((colors - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    return scaled.reshape(features.num_frames, *features.grid, 3)
