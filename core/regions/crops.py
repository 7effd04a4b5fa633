"""Cut a box around a mask out of a clip, and put what became of it back, without a change anywhere else.

The box has one size, since a video model wants frames of one size. It stands still, or follows the mask by at most some
pixels from frame to frame; it is the smallest that holds the mask in every frame under that limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ..types import InputError, Progress, no_progress, require_shape
from .export import find_box

_WINDOW = 12
"""Frames to both sides over which the way of a box is smoothed."""


class CropConfig(NamedTuple):
    """How the box is chosen.

    Attributes:
        margin: pixels around the mask that are in the box, too, as far as the frame goes.
        multiple: sides of the box are multiples of this.
        follow: pixels by which the box moves from frame to frame at most; 0: it stands still.
        aspect: width over height that the box is extended to, as far as the frame goes; 0: as it comes.
    """

    margin: int = 32
    multiple: int = 16
    follow: int = 0
    aspect: float = 0.0


@dataclass(frozen=True, eq=False, repr=False)
class Crop:
    """Boxes of one size in the frames of a clip, with the masks in them.

    Attributes:
        corners: ``(T,2)`` int64, x and y of the upper left corners; negative where a side exceeds the frame's.
        size: height and width of the box.
        frame_size: height and width of the frames.
        masks: ``(T,h,w)`` bool, the masks within the boxes.
    """

    corners: Tensor
    size: tuple[int, int]
    frame_size: tuple[int, int]
    masks: Tensor

    def __repr__(self) -> str:
        """Return sizes, not millions of numbers."""
        (height, width), count = self.size, len(self.corners)
        return f"Crop({count} boxes of {width}x{height} in {self.frame_size[1]}x{self.frame_size[0]})"

    def inner(self, frame: int) -> tuple[slice, slice, slice, slice]:
        """Return rows and columns of a frame that the box covers, and the same within the box."""
        x, y = self.corners[frame].tolist()
        rows, above = _overlap(y, self.size[0], self.frame_size[0])
        columns, left = _overlap(x, self.size[1], self.frame_size[1])
        return rows, columns, above, left


def find_crop(masks: Tensor, config: CropConfig) -> Crop:
    """Return the boxes around masks ``(T,H,W)``, of which above a half is inside.

    Raises:
        InputError: no frame has a mask, or a number of ``config`` is out of range.
    """
    sizes = require_shape("masks", masks, "T H W")
    if config.margin < 0 or config.multiple < 1 or config.follow < 0 or config.aspect < 0:
        raise InputError(f"`config` must hold no negative number, and `multiple` at least 1, but got {config}.")
    inside = masks.cpu() > 0.5
    boxes = [find_box(mask) for mask in inside]
    if not any(boxes):
        raise InputError("`masks` must mark a pixel in at least one frame, but all are empty. Choose other regions.")
    size = (sizes["H"], sizes["W"])
    spans = [
        [(box.y, box.y + box.height) if box else None for box in boxes],
        [(box.x, box.x + box.width) if box else None for box in boxes],
    ]
    wide = [
        [span and (max(0, span[0] - config.margin), min(side, span[1] + config.margin)) for span in axis]
        for axis, side in zip(spans, size, strict=True)
    ]
    needed = (_needed(wide[0], config.follow), _needed(wide[1], config.follow))
    height, width = _box_size(needed, size, config)
    ways = [_way(wide[0], height, size[0], config.follow), _way(wide[1], width, size[1], config.follow)]
    crop = Crop(torch.tensor(ways).T.flip(1), (height, width), size, torch.empty(0))
    return Crop(crop.corners, crop.size, size, crop_frames(inside, crop) > 0)


def crop_frames(frames: Tensor, crop: Crop, progress: Progress = no_progress) -> Tensor:
    """Return the boxes ``(T,h,w,...)`` of ``frames`` ``(T,H,W,...)``; beyond the frame its border is repeated."""
    require_frames("frames", frames, crop)
    boxes = torch.empty((len(frames), *crop.size, *frames.shape[3:]), dtype=frames.dtype)
    for number, frame in enumerate(frames):
        x, y = crop.corners[number].tolist()
        rows, columns = (
            torch.arange(start, start + side).clamp(0, limit - 1)
            for start, side, limit in zip((y, x), crop.size, crop.frame_size, strict=True)
        )
        boxes[number] = frame.cpu()[rows][:, columns]
        progress("crops", number + 1, len(frames))
    return boxes


def paste_frames(
    frames: Tensor,
    edited: Tensor,
    crop: Crop,
    masks: Tensor | None = None,
    feather: int = 0,
    progress: Progress = no_progress,
) -> Tensor:
    """Put ``edited`` boxes back into ``frames``, where the mask is.

    Args:
        frames: ``(T,H,W,C)``, the clip that the boxes were cut out of.
        edited: ``(M,h,w,C)``, boxes of the first frames, in any size; those beyond T are dropped, frames beyond M stay.
        crop: where the boxes lie.
        masks: ``(K,h,w)``, what was edited, if not the masks of ``crop``; the last one holds for frames beyond K.
        feather: pixels over which the edit fades in, inside the mask.
        progress: called with stage ``frames``.

    Returns:
        The clip ``(T,H,W,C)``; outside the masks each pixel is what it was, and a pixel that was not edited, too.
    """
    require_frames("frames", frames, crop)
    if edited.ndim != 4 or not len(edited) or edited.shape[-1] < frames.shape[-1]:
        raise InputError(f"`edited` must be images like `frames`, but got {tuple(edited.shape)}. Check the decoder.")
    if feather < 0:
        raise InputError(f"`feather` must not be negative, but got {feather}. Use 0 or more.")
    where = crop.masks if masks is None else _resized_masks(masks, crop)
    result = frames.clone()
    for number in range(min(len(frames), len(edited))):
        rows, columns, above, left = crop.inner(number)
        mask = where[min(number, len(where) - 1)][above, left]
        borders = (rows.start == 0, rows.stop == frames.shape[1], columns.start == 0, columns.stop == frames.shape[2])
        weight = _fade(mask, feather, borders)[..., None].to(frames)
        box = _resized(edited[number, ..., : frames.shape[-1]].to(frames), crop.size)[above, left]
        old = frames[number, rows, columns]
        mixed = old + weight * (box - old)
        result[number, rows, columns] = torch.where(weight >= 1, box, torch.where(weight > 0, mixed, old))
        progress("frames", number + 1, len(frames))
    return result


def require_frames(name: str, frames: Tensor, crop: Crop) -> None:
    """Check that ``frames`` are those that the boxes of ``crop`` belong to, by number and size."""
    expected, actual = (len(crop.corners), *crop.frame_size), tuple(frames.shape[:3])
    if expected != actual:
        raise InputError(
            f"`{name}` must be the {expected[0]} frames of {expected[2]}x{expected[1]} pixels that the boxes were "
            f"found in, but got shape {actual}. Pass the same clip to both."
        )


def _needed(spans: list[tuple[int, int] | None], follow: int) -> int:
    """Return the shortest side that holds the spans of all frames while it moves by ``follow`` at most."""
    starts, stops = _bounds(spans, follow)
    return max(stop - start for start, stop in zip(starts, stops, strict=True))


def _bounds(spans: list[tuple[int, int] | None], follow: int) -> tuple[list[int], list[int]]:
    """Return how far right the start, and how far left the end of a side may be in each frame, for all others."""
    far = 1 << 40
    starts = [far if span is None else span[0] for span in spans]
    stops = [-far if span is None else span[1] for span in spans]
    last = len(spans) - 1
    for order, beside in ((range(1, last + 1), -1), (range(last - 1, -1, -1), 1)):
        for frame in order:
            starts[frame] = min(starts[frame], starts[frame + beside] + follow)
            stops[frame] = max(stops[frame], stops[frame + beside] - follow)
    return starts, stops


def _box_size(needed: tuple[int, int], frame: tuple[int, int], config: CropConfig) -> tuple[int, int]:
    """Return height and width: multiples that hold what is needed, extended to the aspect as far as the frame goes."""
    height, width = needed
    if config.aspect:
        height, width = max(height, round(width / config.aspect)), max(width, round(height * config.aspect))
    sides = []
    for side, least, limit in zip((height, width), needed, frame, strict=True):
        most = max(limit // config.multiple, math.ceil(least / config.multiple))
        sides.append(min(math.ceil(side / config.multiple), most) * config.multiple)
    return sides[0], sides[1]


def _way(spans: list[tuple[int, int] | None], side: int, limit: int, follow: int) -> list[int]:
    """Return the start of a side in each frame: within the frame if it fits, else centered on it."""
    if side >= limit:
        return [-((side - limit) // 2)] * len(spans)
    starts, stops = _bounds([span and (min(span[0], limit - side), max(span[1], side)) for span in spans], follow)
    low = torch.tensor([max(0, stop - side) for stop in stops], dtype=torch.float64)
    high = torch.tensor([min(limit - side, start) for start in starts], dtype=torch.float64)
    middle = ((low + high) / 2)[None, None]
    reach = min(_WINDOW, len(spans) - 1)
    padded = F.pad(middle, (reach, reach), mode="replicate") if reach else middle
    smooth = F.avg_pool1d(padded, 2 * reach + 1, stride=1)[0, 0]
    return [int(start) for start in (smooth.clamp(low, high) + 0.5).floor()]


def _overlap(start: int, side: int, limit: int) -> tuple[slice, slice]:
    """Return the part of a frame's side that a box covers, and the same part of the box."""
    first, last = max(0, start), min(limit, start + side)
    return slice(first, last), slice(first - start, last - start)


def _resized_masks(masks: Tensor, crop: Crop) -> Tensor:
    """Return masks ``(K,h,w)`` bool in the size of the boxes."""
    require_shape("masks", masks, "K h w")
    return torch.stack([_resized((mask > 0.5).float()[..., None], crop.size)[..., 0] > 0.5 for mask in masks.cpu()])


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a picture ``(h,w,C)`` in ``size``; as it is where it has that size."""
    if tuple(picture.shape[:2]) == size:
        return picture
    planes = F.interpolate(picture.movedim(-1, 0)[None], size, mode="bicubic", antialias=True, align_corners=False)
    return planes[0].movedim(0, -1).clamp(0, 1)


def _fade(mask: Tensor, feather: int, at_border: tuple[bool, ...]) -> Tensor:
    """Return weights ``(h,w)`` float32: 0 outside the mask ``(h,w)`` bool, rising inside it to 1 over ``feather``.

    The box's sides (top, bottom, left, right) are edges of the mask, but for those at the frame's border.
    """
    around = F.pad(mask[None, None].float(), (1, 1, 1, 1), mode="replicate")[0, 0] > 0
    for line, is_border in zip((around[0], around[-1], around[:, 0], around[:, -1]), at_border, strict=True):
        line.logical_and_(torch.tensor(is_border))
    if not feather or bool(around.all()):
        return mask.float()
    depth = torch.from_numpy(distance_transform_edt(around.numpy())).float()  # 1 on the first pixel inside
    return (depth[1:-1, 1:-1] / (feather + 1)).clamp(0, 1)
