"""Colors of a decoded video frame, as ComfyUI's Get Video Components computes them from version 0.33 on.

Compressed video is converted in floating point, so that its colors are not rounded to 256 levels first; what is stored
as RGB of 8 bits is read as it is.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

_EIGHT_BITS = frozenset({"yuvj420p", "yuvj422p", "yuvj444p", "rgb24", "rgba", "pal8"})
"""Pixel formats that ComfyUI reads as 8 bits."""
_ALIGNMENT = 32
"""The converter is exact up to the last column only where the width is a multiple of this."""


def read_colors(frame: VideoFrame) -> NDArray[np.float32]:
    """Return the colors ``(H,W,3)`` float32 in [0, 1] of a frame as it is stored, not turned; alpha is dropped."""
    has_alpha = frame.format.name == "pal8" or any(part.is_alpha for part in frame.format.components)
    if frame.format.name in _EIGHT_BITS:
        levels = frame.to_ndarray(format="rgba" if has_alpha else "rgb24")
        return levels[..., :3].astype(np.float32) / np.float32(255)
    wide = frame if frame.width % _ALIGNMENT == 0 else _padded(frame)
    colors = wide.to_ndarray(format="gbrapf32le" if has_alpha else "gbrpf32le")
    inside = np.asarray(colors[: frame.height, : frame.width, :3], np.float32)
    return np.clip(inside, 0, 1, out=inside)


def read_levels(frame: VideoFrame) -> NDArray[np.uint8]:
    """Return the colors ``(H,W,3)`` of a frame as it is stored in 8 bits, for people to look at: quicker by far."""
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def _padded(frame: VideoFrame) -> VideoFrame:
    """Return a frame whose sides are multiples of `_ALIGNMENT`, its border repeated."""
    width, height = (-(-side // _ALIGNMENT) * _ALIGNMENT for side in (frame.width, frame.height))
    borders = f"left=0:right={width - frame.width}:top=0:bottom={height - frame.height}:mode=smear"
    graph: Any = av.filter.Graph()
    time_base = frame.time_base or Fraction(1, 1000)  # streams without times have none
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=time_base)
    steps: list[Any] = [
        source,
        graph.add("pad", f"{width}:{height}:0:0"),
        graph.add("fillborders", borders),
        graph.add("buffersink"),
    ]
    for one, other in pairwise(steps):
        one.link_to(other)
    graph.configure()
    source.push(frame)
    padded: VideoFrame = steps[-1].pull()
    return padded
