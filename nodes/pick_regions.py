"""Pick regions by clicking, and the files that the picker in the browser shows."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from ..core.files.disk import write_atomically
from ..core.files.record import list_colors
from ..core.regions.cutting import cut_regions
from ..core.regions.labels import count_pixels, mask_union, reduce_reference, tabulate_regions
from ..core.regions.points import Picks, describe_picks, find_label_under, parse_points, resolve_points
from ..core.types import MAX_LABEL, InputError, LabelMaps, Progress, Region
from .host.frames import convert_frames, reduce_frames, reduce_size
from .host.labels import Labels, require_frames_of
from .host.progress import NodeProgress
from .host.schema import Labels as LabelsSocket
from .host.schema import labels_input, schema


class PickRegions(io.ComfyNode):
    """Choose, name, merge and hide regions by points on frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "regions",
            node_id="PickRegions",
            display_name="Pick Regions",
            description="Click regions on a frame to put them into the mask, in all frames; name, merge and hide them. "
            "What you pick is kept as points, so it also holds when the seed or the clip changes a little. Run once to "
            "see the frames; nothing before this node runs again when you change the picks.",
            search_aliases=["vidseg", "click", "select region", "points editor", "mask", "name regions"],
            is_output_node=True,
            inputs=[
                io.Image.Input("frames", tooltip="The frames that were segmented."),
                labels_input(),
                io.String.Input(
                    "picks",
                    default="",
                    multiline=True,
                    placeholder="0 0.41,0.3 dog\nname 0 0.1,0.1 sky",
                    tooltip="What is picked, as text; the picker writes it for you. A line: frame, x,y as fractions of "
                    "width and height, name. Points of one name are one region. Lines that start with name only name a "
                    "region, those with hide put it out of sight, those with split make two of it.",
                ),
                io.Boolean.Input("invert", default=False, tooltip="Everything but the picked regions."),
                io.Int.Input(
                    "num_regions",
                    default=0,
                    min=0,
                    max=MAX_LABEL,
                    optional=True,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="Number of regions, changed without segmenting again: fewer merge, more only split. 0 "
                    "keeps the regions as they come. Needs labels of the method tree.",
                ),
            ],
            outputs=[
                io.Mask.Output("mask", display_name="mask"),
                LabelsSocket.Output("named", display_name="labels"),
                io.String.Output("report", display_name="report"),
            ],
        )

    @classmethod
    def validate_inputs(cls, picks: str | None = None) -> bool | str:
        """Check the text before the graph runs, unless it is connected."""
        try:
            parse_points(picks or "")
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, **_inputs: object) -> str:
        """Tell the host to run again when the files of the picker are gone."""
        return make_folder_mark()

    @classmethod
    def execute(cls, frames: Tensor, labels: Labels, picks: str, invert: bool, num_regions: int = 0) -> io.NodeOutput:
        """Find the regions under the points and make the mask ``(T,H,W)``."""
        frames = convert_frames(frames)
        require_frames_of(labels, frames)
        progress = NodeProgress(has_text=False)
        given = labels.full(progress)
        full = cut_regions(given, num_regions) if num_regions else given
        found = resolve_points(parse_points(picks), full)
        labels = labels.cut(num_regions, found.splits)
        named = labels.with_names(found.names, found.merges)
        maps = named.full(progress).maps
        counts = count_pixels(maps, progress).sum(0)
        report = describe_picks(found, lambda label: f"{int(counts[label]) / maps.numel():.1%} of the clip")
        mask = mask_union(maps, found.picked, progress)
        shown = make_picker_output(frames, given, picks, found, progress)
        return io.NodeOutput((~mask if invert else mask).float(), named, report, ui=shown)


KEY = "vidseg_picker"
"""What the picker looks for in the output of its node, and the folder of its files in the host's temp folder."""
SIDE = 512
"""Longer side of a shown frame, pixels."""
MAX_FRAMES = 120
"""Frames that can be shown at most; of longer clips every second, third ... frame. The browser loads one at a time."""
_MARK = "mark.txt"
"""File beside those of the picker, with a text of its own each time the folder is made."""
_QUALITY = 85
_SAMPLED = 8
"""Every eighth pixel of each axis tells one clip from another: enough to name the files, and much faster than all."""
Levels = np.ndarray[Any, np.dtype[np.uint8]]


def make_picker_output(
    frames: Tensor, labels: LabelMaps, text: str, picks: Picks, progress: Progress
) -> dict[str, list[dict[str, Any]]]:
    """Write the picker's files, of ``labels`` before ``text`` gave ``picks``, and return what the browser gets.

    Where regions are made of leaves the files show these, and the browser cuts regions from them.
    """
    shown = labels.leaves.maps if labels.leaves else labels.maps
    numbers = list(range(0, len(frames), -(-len(frames) // MAX_FRAMES)))
    size = reduce_size(frames.shape[1:3], SIDE)
    maps = [reduce_reference(shown[number], size).cpu().numpy().astype(np.uint8) for number in numbers]
    stem = _digest([*(_levels(frames[number, ::_SAMPLED, ::_SAMPLED]) for number in numbers), *maps])
    folder = _folder()
    for done, (number, labeled) in enumerate(zip(numbers, maps, strict=True), 1):
        _write(
            folder / f"{stem}_{number}.jpg", lambda number=number: _levels(reduce_frames(frames[number][None], SIDE)[0])
        )
        _write(folder / f"{stem}_{number}.png", lambda labeled=labeled: labeled)
        progress("pictures", done, len(numbers))
    found = [
        [point.frame, point.x, point.y, None if label is None else find_label_under(shown, point)]
        for point, label in zip(picks.points, picks.found, strict=True)
    ]
    content = {
        "text": text, "stem": stem, "numFrames": len(frames), "frames": numbers,
        "regions": _list_rows(labels, progress), "found": found, "problems": list(picks.problems),
    }  # fmt: skip
    if labels.leaves:
        maps_of_leaves, tree, owners = labels.leaves[:3]
        leaves = LabelMaps(maps_of_leaves, tuple(Region(leaf, f"region {leaf}") for leaf in range(len(owners))))
        content["leaves"] = {
            "parents": list(tree.parents), "owners": list(owners), "rows": _list_rows(leaves, progress)
        }  # fmt: skip
    return {KEY: [content]}


def _list_rows(labels: LabelMaps, progress: Progress) -> list[dict[str, Any]]:
    """Return what the browser knows of each region."""
    colors = list_colors(labels.regions)
    return [row._asdict() | {"color": colors[row.label]} for row in tabulate_regions(labels, progress)]


def make_folder_mark() -> str:
    """Return a text that stays the same until somebody removes the files of the picker."""
    mark = _folder() / _MARK
    if not mark.exists():
        mark.write_text(uuid.uuid4().hex, encoding="ascii")
    return mark.read_text(encoding="ascii")


def _folder() -> Path:
    """Return the folder of the files, which is there afterwards."""
    folder = Path(folder_paths.get_temp_directory()) / KEY
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _levels(frame: Tensor) -> Levels:
    """Return a frame ``(h,w,3)`` as uint8."""
    return np.ascontiguousarray((frame * 255).round().clamp(0, 255).to(torch.uint8).numpy())


def _digest(arrays: list[Levels]) -> str:
    """Return a name for the content, so that a file is written once and the browser keeps it."""
    digest = hashlib.blake2b(digest_size=10)
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(array)
    return digest.hexdigest()


def _write(path: Path, made: Callable[[], Levels]) -> None:
    """Write a picture, whole or not at all, unless it is there; a label is its own gray level."""
    if not path.exists():
        picture = Image.fromarray(made())
        kind, options = ("JPEG", {"quality": _QUALITY}) if path.suffix == ".jpg" else ("PNG", {"compress_level": 4})
        write_atomically(path, lambda part: picture.save(part, kind, **options), lasting=False)
