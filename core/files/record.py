"""The record of a run, `segmentation.json`: enough to repeat it, and to tell whether it may be continued."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import torch

from ..backbones.protocol import BackboneInfo
from ..config.settings import Settings
from ..documents import (
    RATE_RANGE,
    DamageError,
    anything,
    flag,
    maybe,
    number,
    parse_document,
    record,
    region_records,
    sequence,
    table,
    text,
    whole,
)
from ..leaves import Leaves
from ..regions.cutting import LEAVES, describe_leaves
from ..regions.palette import PALETTE
from ..types import LabelMaps, Region, SettingError
from .clip import ClipInfo

logger = logging.getLogger(__name__)
PROGRAM = "vidseg"
"""Entry ``program`` of our records: a folder with another record is somebody else's."""
FORMAT = 1
"""Version of the layout of the record."""
FRAME_NAMES = "frame_names"
"""Entry of the names of image files, without ending, in the order of the label maps; null for a video."""
_PACKAGES = ("comfyui-vidseg", "torch", "diffusers", "transformers", "scikit-learn", "numpy", "av", "pillow")
"""Packages whose versions are recorded."""
_LAST_FRAME = 1 << 31
RECORD = record(
    {
        "program": text(),
        "format": whole(1, 1000),
        "finished": flag,
        "frames_done": whole(0, _LAST_FRAME),
        "regions": region_records,
    },
    input=record({}, num_frames=whole(1, _LAST_FRAME)),
    model=maybe(table(anything)),
    anchor_mask=maybe(text()),
    settings=table(anything),
    fps=maybe(number(*RATE_RANGE)),
    frame_times=maybe(sequence(number(0, 1e9))),
    threads=whole(1, 1 << 16),
    frame_names=maybe(sequence(text(1000))),
    leaves=maybe(LEAVES),
)
"""What a record must hold, and what it may."""
_NOT_COMPARED = frozenset({"settings.preset", "input.name", "model.name"})
"""Entries that may differ when a run is continued: names only."""


class RunDescription(NamedTuple):
    """What decides the labels of a run."""

    clip: ClipInfo
    model: BackboneInfo | None  # None where a baseline needs none
    device: str
    dtype: str
    settings: Settings
    baseline: str | None
    anchor_mask: str | None  # SHA-256 of the label image that names the clusters


class RunResult(NamedTuple):
    """What a run has found so far."""

    regions: Sequence[Region]  # every label that may occur
    leaves: Leaves | None  # what they are made of; its maps do not matter
    areas: Sequence[int]  # pixels of labels 0 to 255 in all finished frames
    frames_done: int
    finished: bool  # all frames and the overlay are written


def make_record(run: RunDescription, result: RunResult) -> str:
    """Return the content of `segmentation.json`."""
    content = {
        "program": PROGRAM,
        "format": FORMAT,
        "finished": result.finished,
        "frames_done": result.frames_done,
        **_decisive(run),
        "seed": run.settings.sampling.seed,
        "threads": torch.get_num_threads(),
        "fps": run.clip.fps,
        "frame_times": run.clip.times,
        "versions": list_versions(),
        **list_region_entries(result.regions, result.leaves, result.areas),
    }
    return _dump({**content, FRAME_NAMES: run.clip.frame_names})


def change_regions(earlier: str, labels: LabelMaps, areas: Sequence[int], *, finished: bool) -> str:
    """Return a record with other regions; the maps of ``labels`` do not matter."""
    entries = list_region_entries(labels.regions, labels.leaves, areas)
    return _dump({**parse_document(earlier, table(anything)), **entries, "finished": finished})


def _dump(content: dict[str, Any]) -> str:
    """Return a record as JSON; the names of frames last and in one line, since there are as many as frames."""
    others = {name: value for name, value in content.items() if name != FRAME_NAMES}
    lines = json.dumps(others, indent=1)[:-2]
    return f'{lines},\n "{FRAME_NAMES}": {json.dumps(content.get(FRAME_NAMES))}\n}}\n'


def list_region_entries(
    regions: Sequence[Region], leaves: Leaves | None, areas: Sequence[int] | None = None
) -> dict[str, Any]:
    """Return what a record says of regions: ids, names, colors, numbers of pixels, and the tree of their leaves."""
    colors = list_colors(regions)
    entries: list[dict[str, Any]] = [{"label": label, "name": name, "color": colors[label]} for label, name in regions]
    if areas is not None:
        entries = [{**entry, "area": areas[region.label]} for entry, region in zip(entries, regions, strict=True)]
    return {"regions": entries, "leaves": leaves and describe_leaves(leaves)}


def list_colors(regions: Sequence[Region]) -> dict[int, str]:
    """Return the color of each region as ``#rrggbb``."""
    return {region.label: "#{:02x}{:02x}{:02x}".format(*PALETTE[region.label].tolist()) for region in regions}


def require_same_run(earlier: str, run: RunDescription) -> None:
    """Check that nothing that decides labels differs between a run and the one whose record is ``earlier``.

    Another number of threads adds up numbers in another order: a few pixels may differ, which is said.
    """
    try:
        before = flatten(parse_document(earlier, table(anything)))
    except DamageError as error:
        limit, got = "find a readable segmentation.json", "a damaged one"
        raise SettingError("resume", limit, got, "Start anew with {0}", "overwrite") from error
    threads = torch.get_num_threads()
    if before.get("threads", threads) != threads:
        told = "vidseg: the run used %s threads before and %s now: a few pixels may differ from a run in one go."
        logger.warning(told, before["threads"], threads)
    now = flatten(json.loads(json.dumps(_decisive(run))))
    for name, value in now.items():
        if name not in _NOT_COMPARED and before.get(name) != value:
            got = f"`{name}` of {shorten(value)}, which was {shorten(before.get(name))}"
            remedy = "Use the earlier value, or start anew with {0}"
            raise SettingError("resume", "continue the same run", got, remedy, "overwrite")


def list_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages in use."""
    found = {package: _version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), **{name: text for name, text in found.items() if text is not None}}


def _version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _decisive(run: RunDescription) -> dict[str, Any]:
    """Return the entries of the record that must not change when a run is continued."""
    clip, model = run.clip, run.model
    return {
        "input": {
            "name": clip.name,
            "fingerprint": clip.fingerprint,
            "num_frames": clip.num_frames,
            "height": clip.frame_size[0],
            "width": clip.frame_size[1],
        },
        "model": None if model is None else {**model._asdict(), "device": run.device, "dtype": run.dtype},
        "baseline": run.baseline,
        "anchor_mask": run.anchor_mask,
        "settings": run.settings.to_dict(),
    }


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:  # noqa: ANN401, JSON
    """Return nested dictionaries as one, with names such as ``settings.frame.max_side``."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat.update(flatten(item, f"{prefix}.{name}" if prefix else name))
    return flat


def shorten(value: object) -> str:
    """Return a value as short text; fingerprints are cut."""
    text = str(value)
    return f"{text[:12]}..." if len(text) > 40 else text
