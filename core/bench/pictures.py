"""Pictures of the best, the median and the worst clip of a method: frame, ground truth, result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..files.images import read_labels
from ..regions.palette import overlay
from .dataset import BenchClip, ClipFrames
from .job import picture_frame

_WIDTH, _BAR, _FONT_SIZE = 420, 26, 16
"""Width of a picture, height of its line of text, and size of the text, pixels."""


def notable(scores: Mapping[str, float]) -> dict[str, str]:
    """Return the clips with the best, median and worst score by what they are, each once; ties by the order given.

    >>> notable({"a": 0.3, "b": 0.9, "c": 0.5})
    {'best': 'b', 'median': 'c', 'worst': 'a'}
    >>> notable({"a": 0.3, "b": 0.9})
    {'best': 'b', 'worst': 'a'}
    """
    ranked = sorted(scores, key=lambda name: -scores[name])
    chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    if len(ranked) < 3:
        del chosen["median"]
    if len(ranked) < 2:
        del chosen["worst"]
    return chosen


def clip_row(clip: BenchClip, result: Path, text: str) -> Image.Image:
    """Return one row: the middle labelled frame, with its ground truth, with the result; void is grey.

    Args:
        clip: the clip.
        result: label map of that frame.
        text: what to write above.
    """
    number = picture_frame(clip)
    frame = ClipFrames(clip).read(number, number + 1)
    maps = [None, clip.read_mask(number), read_labels(result, "out")]
    pictures = [_picture(frame if labels is None else overlay(frame, labels[None], 0.6)) for labels in maps]
    height = pictures[0].height
    row = Image.new("RGB", (3 * _WIDTH, height + _BAR), "white")
    for column, picture in enumerate(pictures):
        row.paste(picture, (column * _WIDTH, _BAR))
    plain = f"{text}; frame {number}: input, ground truth, result".encode("ascii", "replace").decode()
    ImageDraw.Draw(row).text((4, 4), plain, fill="black", font=ImageFont.load_default(_FONT_SIZE))
    return row


def stacked(rows: list[Image.Image]) -> Image.Image:
    """Return rows of one width under each other."""
    picture = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        picture.paste(row, (0, top))
        top += row.height
    return picture


def _picture(frame: Tensor) -> Image.Image:
    """Return a frame ``(1,H,W,3)`` in [0, 1] in the width of a column."""
    pixels = (frame[0] * 255).round().to(torch.uint8).numpy()
    height = round(pixels.shape[0] * _WIDTH / pixels.shape[1])
    return Image.fromarray(np.ascontiguousarray(pixels)).resize((_WIDTH, height), Image.Resampling.LANCZOS)
