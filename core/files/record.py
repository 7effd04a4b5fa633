"""The record of a run, `segmentation.json`: enough to repeat it, and to tell whether it may be continued."""

from __future__ import annotations

import json
import platform
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from ..backbones.protocol import BackboneInfo
from ..config.settings import Settings
from ..types import InputError, Region
from .clip import ClipInfo

FORMAT = 1
"""Version of the layout of the record."""
FRAME_NAMES = "frame_names"
"""Entry of the names of image files, without ending, in the order of the label maps; null for a video."""
_PACKAGES = ("comfyui-vidseg", "torch", "diffusers", "transformers", "scikit-learn", "numpy", "av", "pillow")
"""Packages whose versions are recorded."""
_NOT_COMPARED = frozenset({"settings.preset", "input.name", "model.name"})
"""Entries that may differ when a run is continued: names only."""


class RunDescription(NamedTuple):
    """What decides the labels of a run.

    Attributes:
        clip: the frames.
        model: the diffusion model; None where a baseline needs none.
        device: device of the model.
        dtype: its floating-point type.
        settings: all settings.
        baseline: ``color``, ``frame`` or None.
        anchor_mask: SHA-256 of the label image that names the clusters, or None.
    """

    clip: ClipInfo
    model: BackboneInfo | None
    device: str
    dtype: str
    settings: Settings
    baseline: str | None
    anchor_mask: str | None


class AreaList(Sequence[Mapping[int, int]]):
    """Number of pixels of each label that occurs, frame by frame, packed: a long clip has many frames."""

    def __init__(self) -> None:
        self._ends: array[int] = array("Q")
        self._values: array[int] = array("I")

    def extend(self, start: int, areas: Iterable[Mapping[int, int]]) -> None:
        """Put the areas of frames from number ``start`` on in the place of those that are there."""
        del self._ends[start:]
        del self._values[self._ends[-1] if self._ends else 0 :]
        for area in areas:
            for label, count in sorted(area.items()):
                self._values.extend((label, count))
            self._ends.append(len(self._values))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401, a number or a slice
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        values = self._values[self._ends[number - 1] if number else 0 : self._ends[number]]
        return dict(zip(values[::2], values[1::2], strict=True))


class RunResult(NamedTuple):
    """What a run has found so far.

    Attributes:
        regions: every label that may occur.
        areas: for each finished frame the number of pixels of each label that occurs.
        colors: ``#rrggbb`` by label.
        finished: whether all frames and the overlay are written.
    """

    regions: Sequence[Region]
    areas: Sequence[Mapping[int, int]]
    colors: Mapping[int, str]
    finished: bool


def write_record_lines(run: RunDescription, result: RunResult) -> Iterator[str]:
    """Yield the content of `segmentation.json` piece by piece; its length grows with the clip."""
    totals: Counter[int] = Counter()
    for area in result.areas:
        totals.update(area)
    record = {
        "program": "vidseg",
        "format": FORMAT,
        "finished": result.finished,
        "frames_done": len(result.areas),
        **_decisive(run),
        "seed": run.settings.sampling.seed,
        "fps": run.clip.fps,
        "frame_times": run.clip.times,
        "versions": list_versions(),
        "regions": [
            {"label": r.label, "name": r.name, "color": result.colors[r.label], "area": totals[r.label]}
            for r in result.regions
        ],
    }
    yield json.dumps(record, indent=1).removesuffix("\n}") + f',\n "{FRAME_NAMES}": {json.dumps(run.clip.frame_names)}'
    yield ',\n "areas": ['
    for number, area in enumerate(result.areas):
        yield ("," if number else "") + "\n  " + json.dumps(dict(sorted(area.items())))
    yield "\n ]\n}\n"


def require_same_run(earlier: str, run: RunDescription) -> None:
    """Check that a run may continue the one whose record is ``earlier``.

    Raises:
        InputError: the record is no record, or something that decides labels differs; the message names it.
    """
    try:
        before = flatten(json.loads(earlier))
    except ValueError as error:
        raise InputError(
            "`--resume` must find a readable segmentation.json, but it is damaged. Start anew with --overwrite."
        ) from error
    now = flatten(json.loads(json.dumps(_decisive(run))))
    for name, value in now.items():
        if name not in _NOT_COMPARED and before.get(name) != value:
            raise InputError(
                f"`--resume` must continue the same run, but `{name}` is {shorten(value)} and was "
                f"{shorten(before.get(name))}. Use the earlier value, or start anew with --overwrite."
            )


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
