"""What is compared: the method by preset, the rows of the paper's ablation, the baselines; and jobs of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from ...config.overrides import with_overrides
from ...config.settings import PRESETS, Settings, list_qualities, preset, with_quality, with_window_frames
from ...types import InputError
from ..baselines import Kind
from ..supervoxels import RegionScores
from .dataset import BenchClip, Dataset
from .tally import Tally

_SOFT = ("modulation.blending=none", "modulation.factor=10", "difference.filter_strength=1")
"""Modulation as EmerDiff does it: the ablation's rows without masked modulation (5.4)."""
_ONE_BLOCK = {"sd": ("feature.blocks=7",), "svd": ("feature.blocks=8",)}
"""Features of one block, by kind of model (A.4)."""
YARDSTICK_QUALITY = "fast"
"""Of a row whose model cannot be modulated where the others are."""
_NO_VOTES = ("refinement.enabled=false",)


@dataclass(frozen=True)
class Method:
    """One row of a table.

    Attributes:
        name: of its folder of results, and unique.
        title: what tables call it, and unique; `title_methods` gives the ablation's.
        kind: ``method`` is the paper's, with any settings; the others are baselines.
        base: preset it starts from.
        overrides: what differs, as ``part.field=value``.
        group: ``ours``, ``ablation``, ``extra``, ``yardstick`` or ``baseline``.
        one_block: without feature aggregation: what differs, by kind of model.
        needs_names: whether it is there to compare how clusters are named, or starts from names.
        source: what gives features: ``model``, or ``features`` for a vision model.
    """

    name: str
    title: str
    kind: Kind
    base: str
    overrides: tuple[str, ...] = ()
    group: str = "ours"
    one_block: Mapping[str, tuple[str, ...]] | None = None
    needs_names: bool = False
    source: Literal["model", "features"] = "model"

    def settings(
        self,
        dataset: Dataset,
        overrides: Sequence[str],
        model: str = "sd",
        quality: str = "exact",
        num_frames: int = 0,
    ) -> Settings:
        """Return all settings on a data set: preset, quality, the data set's, then ``overrides``, then the row's.

        ``num_frames`` is what a video model sees together, where the model tells, else 0. Baselines are exact.
        """
        if self.source == "features":
            model, num_frames = "vision", 0
            quality = quality if quality in list_qualities(model) else YARDSTICK_QUALITY
        base = with_window_frames(preset(self.base, model), num_frames)
        if self.group != "baseline":
            base = with_quality(base, quality)
        block = self.one_block.get(model, ()) if self.one_block else ()
        common = (f"cluster.num_clusters={dataset.num_clusters}", f"frame.max_side={dataset.max_side}")
        return with_overrides(base, (*common, *overrides, *self.overrides, *block))

    def find_lack(self, dataset: Dataset, *, nameless: bool = False) -> str:
        """Return what the row cannot be computed without, or nothing."""
        if self.needs_names and nameless:
            return "it needs names"
        if self.kind == "propagation" and not all(0 in clip.masks for clip in dataset.clips):
            return "it needs masks of first frames, and a clip has none"
        if self.kind == "slic" and find_spec("skimage") is None:
            return "it needs scikit-image: pip install 'scikit-image>=0.22'"
        return ""


def make_yardstick(name: str, family: str) -> Method:
    """Return the row of a vision model: the same method on other features."""
    return Method("features", f"features of {family}, {name}", "method", "default", (), "yardstick", source="features")


BASELINES = (
    Method("emerdiff-frame", "EmerDiff, each frame alone", "frame", "emerdiff", group="baseline"),
    Method("emerdiff-knn", "EmerDiff, autoregressive KNN", "method", "emerdiff", group="baseline"),
    Method("color", "color and position, K-means", "color", "default", group="baseline"),
    Method("slic", "color and position, 3D SLIC", "slic", "default", group="baseline"),
    Method(
        "propagation", "label propagation of first-frame masks", "propagation", "default",
        group="baseline", needs_names=True,
    ),
)  # fmt: skip
"""The paper's comparison, and simpler ones. `propagation` is given the first frame's masks, not only their names."""


class AblationRow(NamedTuple):
    """A row of the paper's Table 2, and the overrides that make it.

    Attributes:
        name: end of its name.
        aggregation: whether features of several blocks are averaged.
        overrides: what differs from the preset, but for the blocks.
    """

    name: str
    aggregation: bool
    overrides: tuple[str, ...]


ABLATION = (
    AblationRow("window-1", False, ("window.length=1", *_NO_VOTES, *_SOFT)),
    AblationRow("window-14", False, (*_NO_VOTES, *_SOFT)),
    AblationRow("modulation", False, _NO_VOTES),
    AblationRow("modulation-aggregation", True, _NO_VOTES),
    AblationRow("modulation-refinement", False, ()),
)
"""Table 2 without its last row, which is the preset itself."""
EXTRAS = (
    ("coarse", "no modulation at all", "modulation.enabled=false"),
    ("noise-none", "features read without noise", "sampling.noise=none"),
    ("noise-frame", "features read with noise, another for each frame", "sampling.noise=frame"),
    ("noise-shared", "features read with one noise for all frames", "sampling.noise=shared"),
    ("blending-encoded", "blending with the encoded latents", "modulation.blending=encoded"),
)
"""What the ablation compares beyond the paper's: end of a row's name, its title, what differs from the preset."""


class Parts(NamedTuple):
    """What the ablation tells apart: frames of a window ("batch size"), and whether each part of the method is on."""

    window: int
    modulation: bool
    aggregation: bool
    refinement: bool


def list_parts(settings: Settings) -> Parts:
    """Return the parts that run with ``settings``; EmerDiff's modulation without blending counts as none (5.4)."""
    modulation = settings.modulation.enabled and settings.modulation.blending != "none"
    return Parts(settings.window.length, modulation, len(settings.feature.blocks) > 1, settings.refinement.enabled)


def list_methods(presets: Sequence[str], *, ablation: bool, baselines: bool) -> tuple[Method, ...]:
    """Return the rows that were asked for: presets, the ablation of the first preset, baselines."""
    for name in presets:
        preset(name)
    if not presets or len(set(presets)) < len(presets):
        raise InputError(f"`--preset` must name each of {', '.join(PRESETS)} at most once, but got {list(presets)}.")
    rows = [Method(name, f"ours, {name}", "method", name) for name in presets]
    if ablation:
        first = presets[0]
        rows += [
            Method(
                f"{first}-{row.name}",
                f"{first}: {row.name}",
                "method",
                first,
                row.overrides,
                "ablation",
                None if row.aggregation else _ONE_BLOCK,
            )
            for row in ABLATION
        ]
        rows += [
            Method(f"{first}-{name}", f"{first}: {title}", "method", first, (override,), "extra")
            for name, title, override in EXTRAS
        ]
    return (*rows, *((*_name_regions(presets), *BASELINES) if baselines else ()))


def _name_regions(presets: Sequence[str]) -> Iterator[Method]:
    """Yield a row for each preset whose leaves are named one by one: the same with regions that are named as wholes."""
    for name in presets:
        config = preset(name).cluster
        if config.method == "tree" and config.named == "leaves":
            title, overrides = f"ours, {name}: regions named as wholes", ("cluster.named=regions",)
            yield Method(f"{name}-regions", title, "method", name, overrides, "extra", needs_names=True)


def title_methods(methods: Sequence[Method], settings: Sequence[Settings]) -> tuple[Method, ...]:
    """Return the rows, those of the ablation called by the parts that run; no two may have the same parts."""
    rows = {list_parts(settings[0]): methods[0]}
    for method, used in zip(methods, settings, strict=True):
        if method.group == "ablation":
            parts = list_parts(used)
            if parts in rows:
                raise InputError(
                    f"`--ablation` must have rows that differ, but {rows[parts].name} and {method.name} would both be "
                    f"{_title_parts(parts)}. Leave it out, or the quality, preset or setting that turns parts off."
                )
            rows[parts] = replace(method, title=f"{method.base}: {_title_parts(parts)}")
    changed = {method.name: method for method in rows.values()}
    return tuple(changed.get(method.name, method) for method in methods)


def _title_parts(parts: Parts) -> str:
    """Return what a row of the ablation is called."""
    on = [name for name, is_on in parts._asdict().items() if is_on and name != "window"]
    return ", ".join([f"window {parts.window}", *on])


@dataclass(frozen=True)
class Job:
    """One clip by one method, with all settings. It can be sent to another process.

    Attributes:
        method: the row.
        clip: what is segmented.
        settings: all of them.
        nameless: whether no mask names regions before the end; see the package's docstring.
    """

    method: Method
    clip: BenchClip
    settings: Settings
    nameless: bool = False

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.method.name}/{self.clip.name}"


class JobResult(NamedTuple):
    """What a job leaves.

    Attributes:
        record: plain values for the clip's JSON file.
        picture: ``(H,W)`` uint8 label map of the frame that pictures show.
    """

    record: dict[str, Any]
    picture: Tensor


class StoredResult(NamedTuple):
    """What a finished job left on disk: its counts, its time, and the label map of the middle labeled frame.

    A nameless job left the measures of its regions too.
    """

    job: Job
    tally: Tally
    seconds_per_frame: float
    picture: Path
    nameless: RegionScores | None = None
