"""Measure label maps, with or without ground truth."""

from __future__ import annotations

from dataclasses import replace

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..core.config.parts import RefinementConfig
from ..core.evaluation.metrics import (
    CONSISTENCY,
    MeanIoU,
    RegionClasses,
    VideoConsistency,
    compute_class_ious,
)
from ..core.method.correspondence import match_cells, within_threshold
from ..core.regions.labels import reduce_reference
from ..core.types import Features, InputError
from .host.frames import read_label_maps
from .host.labels import Labels
from .host.schema import Features as FeaturesSocket
from .host.schema import labels_input, schema


class ScoreRegions(io.ComfyNode):
    """mIoU, mVC8 and mVC16 against masks, and agreement along correspondences without any."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "checks",
            node_id="ScoreRegions",
            display_name="Score Regions",
            description="Measure a segmentation. With masks: overlap (mIoU) and consistency over 8 and 16 frames "
            "(mVC8, mVC16; right: of the right class as well). Without: how often the same spot keeps its region from "
            "frame to frame, and where labels switch.",
            search_aliases=["vidseg", "evaluate", "miou", "iou", "consistency", "flicker"],
            is_output_node=True,
            inputs=[
                labels_input(),
                io.MultiType.Input(
                    "masks",
                    [io.Mask, io.Image],
                    optional=True,
                    tooltip="Ground truth of every frame, as masks or label images. Gray 255 counts for nothing.",
                ),
                FeaturesSocket.Input(
                    "features",
                    optional=True,
                    tooltip="Features of the clip, for labels that do not come with them (loaded ones, or of Segment "
                    "Video).",
                ),
                io.Combo.Input(
                    "match",
                    options=["first frame", "ids"],
                    default="first frame",
                    tooltip="first frame: a region stands for the class that most of its pixels have where it first "
                    "occurs. ids: region ids are class ids already.",
                ),
            ],
            outputs=[
                io.String.Output("report", display_name="report"),
                io.Float.Output("miou", display_name="mIoU"),
                io.Float.Output("mvc8", display_name="mVC8"),
                io.Float.Output("mvc16", display_name="mVC16"),
                io.Float.Output("agreement", display_name="agreement"),
            ],
        )

    @classmethod
    def execute(cls, labels: Labels, match: str, masks: Tensor | None = None, features: object = None) -> io.NodeOutput:
        """Score the labels; a value that cannot be measured is -1."""
        source = features if features is not None else labels.scan.features if labels.scan else None
        require_something_to_measure(labels, masks is not None, source)
        lines, values = ([], (UNMEASURED,) * 3) if masks is None else score_against_masks(labels, masks, match)
        notes, agreement = score_along_correspondences(labels, source) if source is not None else ([], -1.0)
        report = "\n".join([*lines, *notes])
        return io.NodeOutput(report, *values, agreement, ui=ui.PreviewText(report))


UNMEASURED = -1.0
"""Stands for a value that cannot be measured, such as mVC16 of a clip of 10 frames."""
MAX_LISTED = 8
"""Frames and regions listed in a report at most."""


def require_something_to_measure(labels: Labels, has_masks: bool, features: object) -> None:
    """Check that there is something to measure against."""
    if not has_masks and features is None:
        raise InputError(
            "`masks` or `features` must be connected for these labels, but got neither. Connect the features of the "
            "clip to measure consistency, or ground-truth masks."
        )
    if isinstance(features, Features) and features.num_frames != labels.num_frames:
        raise InputError(
            f"`features` must have as many frames as `labels`, {labels.num_frames}, but got {features.num_frames}. "
            "Wire the features of the same clip."
        )


def score_against_masks(labels: Labels, masks: Tensor, match: str) -> tuple[list[str], tuple[float, float, float]]:
    """Return a report and (mIoU, mVC8, mVC16) of ``labels`` against masks or label images, frame by frame."""
    truth = read_label_maps(masks)
    if len(masks) != labels.num_frames:
        raise InputError(
            f"`masks` must have one mask for each of the {labels.num_frames} frames, but got {len(masks)}. "
            "Load masks and video with the same number of frames."
        )
    classes, miou = RegionClasses(), MeanIoU()
    consistency = {name: VideoConsistency(*run) for name, run in CONSISTENCY.items()}
    for frame, mask in zip(replace(labels, leaves=None).full().maps, truth, strict=True):
        real = mask if mask.shape == frame.shape else reduce_reference(mask, (int(frame.shape[0]), int(frame.shape[1])))
        seen = frame
        if match == "first frame":
            classes.look(frame, real)
            seen = classes.apply(frame)
        miou.update(seen, real)
        for each in consistency.values():
            each.add(seen, real)
    shares = {name: each.compute() for name, each in consistency.items()}
    values = {"mIoU": miou.compute(), **{name: UNMEASURED if x is None else x for name, x in shares.items()}}
    lines = [f"{name:<11} {_text(value)}" for name, value in values.items()]
    lines += [f"IoU of class {label}: {iou:.3f}" for label, iou in compute_class_ious(miou.matrix).items()]
    return lines, (values["mIoU"], values["mVC8"], values["mVC16"])


def score_along_correspondences(labels: Labels, features: object) -> tuple[list[str], float]:
    """Return a report and the share of matched cells that keep their region from one frame to the next."""
    if not isinstance(features, Features) or features.num_frames < 2:
        return ["one frame alone: nothing to compare from frame to frame"], UNMEASURED
    maps = labels.on_grid((features.grid.h, features.grid.w)).flatten(1)
    matches = match_cells(features.matching)
    good = within_threshold(matches, features.grid, RefinementConfig.spatial_threshold)
    kept = maps[:-1] == maps[1:].gather(1, matches)
    switches = (good & ~kept).sum(1)
    agreement = float((good & kept).sum() / good.sum().clamp_min(1))
    lines = [f"agreement along correspondences: {agreement:.3f} (the same spot keeps its region from frame to frame)"]
    worst = [int(frame) for frame in switches.argsort(descending=True) if switches[frame] > 0][:MAX_LISTED]
    for frame in worst:
        lost = _list_switching(maps[frame], good[frame] & ~kept[frame], labels)
        lines.append(f"frame {frame} to {frame + 1}: {int(switches[frame])} cells switch, {lost}")
    return lines if worst else [*lines, "no label switches"], agreement


def _list_switching(cells: Tensor, switches: Tensor, labels: Labels) -> str:
    """Return the regions that lose most cells, in words."""
    names = {region.label: region.name for region in labels.regions}
    found, counts = torch.unique(cells[switches], return_counts=True)
    order = counts.argsort(descending=True)[:3]
    return "mostly of " + ", ".join(f"{int(found[i])} ({names.get(int(found[i]), '?')})" for i in order)


def _text(value: float) -> str:
    return "not measured (too few frames)" if value == UNMEASURED else f"{value:.3f}"
