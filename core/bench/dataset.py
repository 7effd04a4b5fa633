"""What a data set is: clips, the frames and masks of a clip, and how a mask file becomes labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor

from ..files.images import read_image
from ..regions.labels import reduced_reference
from ..types import InputError
from .masks import MASK_READERS


class BenchClip(NamedTuple):
    """One clip of a data set.

    Attributes:
        name: unique in the data set.
        frames: image files in order.
        masks: mask file by number of the labelled frame.
        fps: frames per second, or None where unknown.
        reader: kind of the masks, a key of `MASK_READERS`.
        classes: name of each label.
        size: ``(H, W)`` that frames and masks are brought to, or None for their own.
    """

    name: str
    frames: tuple[Path, ...]
    masks: Mapping[int, Path]
    fps: float | None
    reader: str
    classes: Mapping[int, str]
    size: tuple[int, int] | None = None

    def shortened(self, max_frames: int) -> BenchClip:
        """Return the first ``max_frames`` frames; 0 keeps all.

        Raises:
            InputError: none of them is labelled.
        """
        if not max_frames or max_frames >= len(self.frames):
            return self
        masks = {number: path for number, path in self.masks.items() if number < max_frames}
        if not masks:
            raise InputError(
                f"`--max-frames` must reach the first labelled frame of {self.name}, number {min(self.masks) + 1}, "
                f"but got {max_frames}. Allow more frames."
            )
        return self._replace(frames=self.frames[:max_frames], masks=masks)

    def read_mask(self, number: int) -> Tensor:
        """Return the ground truth of a labelled frame, ``(H,W)`` uint8, 255 = void.

        Raises:
            InputError: the file is not there, damaged, or of another kind.
        """
        labels = MASK_READERS[self.reader](self.masks[number])
        return labels if self.size is None else reduced_reference(labels, self.size)


@dataclass(frozen=True)
class Dataset:
    """A data set and the paper's settings for it.

    Attributes:
        name: what the command line calls it.
        title: what tables call it.
        clips: in the order of their names.
        num_clusters: clusters K (A.3).
        max_side: longer side in pixels at which frames are processed; 0 keeps them.
    """

    name: str
    title: str
    clips: tuple[BenchClip, ...]
    num_clusters: int = 20
    max_side: int = 0

    def selected(self, names: tuple[str, ...]) -> Dataset:
        """Return the data set with the clips called ``names`` alone; no name keeps all.

        Raises:
            InputError: there is no such clip.
        """
        known = {clip.name for clip in self.clips}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InputError(f"`--clips` must name clips of {self.title}, but got {unknown}. Known: {sorted(known)}.")
        return replace(self, clips=tuple(clip for clip in self.clips if clip.name in names)) if names else self

    def shortened(self, max_frames: int) -> Dataset:
        """Return the data set with the first ``max_frames`` frames of each clip; 0 keeps all.

        Raises:
            InputError: none of them is labelled.
        """
        return replace(self, clips=tuple(clip.shortened(max_frames) for clip in self.clips))


class ClipFrames:
    """The frames of a clip as a `FrameSource`; all must have the size of the first."""

    def __init__(self, clip: BenchClip) -> None:
        self._clip = clip
        self.frame_size = clip.size or (int(read_image(clip.frames[0]).shape[0]), int(_width(clip.frames[0])))

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self._clip.frames)

    def read(self, start: int, stop: int) -> Tensor:
        """Return frames ``start`` (included) to ``stop`` (excluded), ``(T,H,W,3)`` float32 in [0, 1].

        Raises:
            InputError: a frame is damaged or has another size than the first.
        """
        return torch.stack([self._frame(path) for path in self._clip.frames[start:stop]])

    def _frame(self, path: Path) -> Tensor:
        frame = torch.from_numpy(read_image(path))
        if self._clip.size is not None and tuple(frame.shape[:2]) != self.frame_size:
            planes = frame.movedim(-1, 0)[None]  # (H,W,3) -> (1,3,H,W)
            resized = F.interpolate(planes, self.frame_size, mode="bicubic", antialias=True, align_corners=False)
            frame = resized[0].movedim(0, -1).clamp(0, 1)
        if tuple(frame.shape[:2]) != self.frame_size:
            height, width = self.frame_size
            raise InputError(
                f"`ROOT` must hold clips whose frames have one size, but {path} is {frame.shape[1]}x{frame.shape[0]} "
                f"and the first frame {width}x{height}. Extract the clip again."
            )
        return frame


def _width(path: Path) -> int:
    """Return the width of an image, pixels."""
    with Image.open(path) as image:
        return int(image.width)
