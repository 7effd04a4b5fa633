"""What is compared: the method by preset, the rows of the paper's ablation, the baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..backbones import Backbone
from ..baselines import BaselineResult, color_windows, frame_windows
from ..config import PRESETS, Settings, preset, seen_together
from ..options import with_overrides
from ..pipeline import FrameSource, segment_windows
from ..propagation import propagation_windows
from ..quality import at_quality
from ..types import InputError, Progress
from .dataset import Dataset

Kind = Literal["method", "color", "frame", "propagation"]
_SOFT = ("modulation.blending=none", "modulation.factor=10", "difference.filter_strength=1")
"""Modulation as EmerDiff does it: the ablation's rows without masked modulation (5.4)."""
_ONE_BLOCK = {"sd": ("feature.blocks=7",), "svd": ("feature.blocks=8",)}
"""Features of one block, by kind of model (A.4)."""
_NO_VOTES = ("refinement.enabled=false",)


@dataclass(frozen=True)
class Method:
    """One row of a table.

    Attributes:
        name: of its folder of results, and unique.
        title: what tables call it.
        kind: ``method`` is the paper's, with any settings; the others are baselines.
        base: preset it starts from.
        overrides: what differs, as ``part.field=value``.
        group: ``ours``, ``ablation``, ``extra`` or ``baseline``.
        one_block: without feature aggregation: what differs, by kind of model.
    """

    name: str
    title: str
    kind: Kind
    base: str
    overrides: tuple[str, ...] = ()
    group: str = "ours"
    one_block: Mapping[str, tuple[str, ...]] | None = None

    def settings(
        self,
        dataset: Dataset,
        overrides: Sequence[str],
        model: str = "sd",
        quality: str = "exact",
        num_frames: int = 0,
    ) -> Settings:
        """Return all settings on a data set: preset, quality, the data set's, then ``overrides``, then the row's.

        Args:
            dataset: the data set.
            overrides: those of all rows, as ``part.field=value``.
            model: kind of model, ``sd`` or ``svd``.
            quality: of the rows that are ours; baselines are exact.
            num_frames: that a video model sees together, where the model tells, else 0.

        Raises:
            InputError: an override or the quality is not allowed.
        """
        base = seen_together(preset(self.base, model), num_frames)
        if self.group != "baseline":
            base = at_quality(base, quality)
        block = self.one_block[model] if self.one_block else ()
        common = (f"cluster.num_clusters={dataset.num_clusters}", f"frame.max_side={dataset.max_side}")
        return with_overrides(base, (*common, *overrides, *self.overrides, *block))

    def fits(self, dataset: Dataset) -> bool:
        """Return whether the row can be computed: propagation starts from a mask of each clip's first frame."""
        return self.kind != "propagation" or all(0 in clip.masks for clip in dataset.clips)

    def windows(
        self,
        backbone: Backbone | None,
        source: FrameSource,
        settings: Settings,
        reference: Tensor | None,
        progress: Progress,
    ) -> Iterator[BaselineResult]:
        """Yield frame numbers and label maps of each window; the colour baseline needs no model."""
        if self.kind == "color":
            yield from color_windows(source, settings, reference=reference, progress=progress)
        elif backbone is None:
            raise InputError("`--model` must name a model, since a row needs one. Give a .safetensors file.")
        elif self.kind == "frame":
            yield from frame_windows(backbone, source, settings, reference=reference, progress=progress)
        elif self.kind == "propagation":
            yield from propagation_windows(backbone, source, settings, reference=reference, progress=progress)
        else:
            for result in segment_windows(backbone, source, settings, reference=reference, progress=progress):
                yield BaselineResult(result.frames, result.labels)


BASELINES = (
    Method("emerdiff-frame", "EmerDiff, each frame alone", "frame", "emerdiff", group="baseline"),
    Method("emerdiff-knn", "EmerDiff, autoregressive KNN", "method", "emerdiff", group="baseline"),
    Method("color", "colour and position, K-means", "color", "default", group="baseline"),
    Method("propagation", "first-frame masks by nearest features", "propagation", "default", group="baseline"),
)
"""The paper's comparison, and simpler ones. `propagation` is given the first frame's masks, not only their names."""


@dataclass(frozen=True)
class AblationRow:
    """A row of the paper's Table 2, and the overrides that make it.

    Attributes:
        name: end of its name.
        window: frames in the scene context's window ("batch size").
        modulation: masked modulation.
        aggregation: feature aggregation.
        refinement: correspondence-based refinement.
        overrides: what differs from the preset, but for the blocks.
    """

    name: str
    window: int
    modulation: bool
    aggregation: bool
    refinement: bool
    overrides: tuple[str, ...]


ABLATION = (
    AblationRow("window-1", 1, False, False, False, ("window.length=1", *_NO_VOTES, *_SOFT)),
    AblationRow("window-14", 14, False, False, False, (*_NO_VOTES, *_SOFT)),
    AblationRow("modulation", 14, True, False, False, _NO_VOTES),
    AblationRow("modulation-aggregation", 14, True, True, False, _NO_VOTES),
    AblationRow("modulation-refinement", 14, True, False, True, ()),
)
"""Table 2 without its last row, which is the preset itself."""


def methods_of(presets: Sequence[str], *, ablation: bool, baselines: bool) -> tuple[Method, ...]:
    """Return the rows that were asked for: presets, the ablation of the first preset, baselines.

    Raises:
        InputError: there is no such preset, or one occurs twice.
    """
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
                _title(first, row),
                "method",
                first,
                row.overrides,
                "ablation",
                None if row.aggregation else _ONE_BLOCK,
            )
            for row in ABLATION
        ]
        coarse = ("modulation.enabled=false",)
        rows.append(Method(f"{first}-coarse", f"{first}: no modulation at all", "method", first, coarse, "extra"))
    return (*rows, *(BASELINES if baselines else ()))


def _title(first: str, row: AblationRow) -> str:
    """Return what a row of the ablation is called."""
    parts = {"modulation": row.modulation, "aggregation": row.aggregation, "refinement": row.refinement}
    on = [name for name, is_on in parts.items() if is_on]
    return f"{first}: window {row.window}" + "".join(f", {name}" for name in on)
