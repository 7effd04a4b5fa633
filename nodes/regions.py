"""Name, merge, split and correct regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from comfy_api.latest import io, ui
from torch import Tensor

from ..core.regions.corrections import Painted, correct_labels, parse_corrections
from ..core.regions.instances import InstanceConfig, split_instances
from ..core.regions.labels import name_anchor
from ..core.regions.typed import clean_name
from ..core.types import VOID, AnchorLabels, Features, InputError
from .host.frames import convert_label_map, tell_distorted, tell_stretched
from .host.labels import ALL_REGIONS, Labels, choose_or_all, parse_class_names, parse_names_and_merges
from .host.progress import NodeProgress
from .host.schema import AnchorLabels as AnchorLabelsSocket
from .host.schema import Labels as LabelsSocket
from .host.schema import (
    advanced,
    features_input,
    labels_input,
    part_inputs,
    regions_input,
    require_in_range,
    schema,
    tell_widgets,
)


class NameRegions(io.ComfyNode):
    """Give regions names, and merge some."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "regions",
            node_id="NameRegions",
            display_name="Name Regions",
            description="Give regions names and merge several into one. See Preview Regions for their ids.",
            search_aliases=["vidseg", "merge regions", "rename", "label"],
            inputs=[
                labels_input(),
                io.String.Input(
                    "names",
                    default="",
                    multiline=True,
                    placeholder="person: 3, 7\nsky: 1",
                    tooltip="One line per region: the name, a colon, and the ids (or old names) that become it.",
                ),
            ],
            outputs=[LabelsSocket.Output("named", display_name="labels")],
        )

    @classmethod
    def execute(cls, labels: Labels, names: str) -> io.NodeOutput:
        """Merge and rename."""
        new_names, merges = parse_names_and_merges(names, labels.regions)
        return io.NodeOutput(labels.with_names(new_names, merges))


class AssignRegionsFromMask(io.ComfyNode):
    """Name the clusters of the anchor frame by a label image of it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "regions",
            node_id="AssignRegionsFromMask",
            display_name="Assign Regions from Mask",
            description="Turn nameless regions into classes: each cluster of the anchor frame becomes the class that "
            "most of its cells have in a mask or label image of that frame. Put it between K-Means Init and Scene "
            "Context KNN; with a black-and-white mask, the whole video follows the masked subject.",
            search_aliases=["vidseg", "first frame mask", "propagate mask", "semi-supervised"],
            inputs=[
                AnchorLabelsSocket.Input("anchor_labels", tooltip="From K-Means Init."),
                io.MultiType.Input(
                    "mask",
                    [io.Mask, io.Image],
                    tooltip="Of the anchor frame, in any size. Black and white: background and subject. Gray: the "
                    "gray value is the class, 255 counts as unknown. Flat colors: one class per color.",
                ),
                io.String.Input(
                    "class_names",
                    default="",
                    multiline=True,
                    placeholder="0: background\n1: dog",
                    tooltip="Names of the classes, as number, colon, name. Optional.",
                ),
                advanced(
                    io.Boolean.Input(
                        "ignore_unknown",
                        default=True,
                        tooltip="Pixels of class 255 have no vote; off, 255 is a class like any other.",
                    )
                ),
            ],
            outputs=[AnchorLabelsSocket.Output("assigned", display_name="anchor_labels")],
        )

    @classmethod
    def execute(
        cls, anchor_labels: AnchorLabels, mask: Tensor, class_names: str, ignore_unknown: bool
    ) -> io.NodeOutput:
        """Assign classes."""
        reference = convert_label_map(mask, f"frame {anchor_labels.anchor}")
        ignore = VOID if ignore_unknown else None
        names = parse_class_names(class_names)
        rows, columns = anchor_labels.cluster_map.shape
        told = tell_distorted(reference, (rows, columns))
        named = name_anchor(anchor_labels, reference, ignore=ignore, names=names)
        return io.NodeOutput(named, ui=ui.PreviewText(told) if told else None)


class SplitInstances(io.ComfyNode):
    """Regions -> separate things."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "regions",
            node_id="SplitInstances",
            display_name="Split Instances",
            description="Split regions into their separate things, such as people into person 1 and person 2. Each "
            "keeps its id from frame to frame, also where two of them touch for a while.",
            search_aliases=["vidseg", "instance segmentation", "separate objects", "track ids"],
            inputs=[
                labels_input(),
                regions_input(ALL_REGIONS),
                *part_inputs(InstanceConfig, {"min_share": {"step": 0.0005, "round": 0.0001}, "min_frames": {}}),
            ],
            outputs=[LabelsSocket.Output("instances", display_name="labels")],
        )

    @classmethod
    @tell_widgets
    def execute(cls, labels: Labels, regions: str, min_share: float, min_frames: int) -> io.NodeOutput:
        """Split the regions."""
        require_in_range(cls, min_share=min_share, min_frames=min_frames)
        config = InstanceConfig(min_share, min_frames)
        things = split_instances(labels, choose_or_all(regions, labels), config, progress=NodeProgress())
        return io.NodeOutput(replace(labels, maps=things.maps, regions=things.regions, leaves=None, scan=None))


class CorrectRegions(io.ComfyNode):
    """Relabel, add, split and merge regions from any frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "regions",
            node_id="CorrectRegions",
            display_name="Correct Regions",
            description="Correct regions on any frame: this spot is road from here on, this is a new thing, these two "
            "are one, this one is two. The correction is propagated through the clip by the features, without running "
            "the model again.",
            search_aliases=["vidseg", "fix mask", "relabel", "new object", "split region", "keyframe mask"],
            inputs=[
                labels_input(),
                features_input(),
                io.String.Input(
                    "corrections",
                    default="",
                    multiline=True,
                    placeholder="50 0.40,0.62 road\nnew 30 0.21,0.35 ball",
                    tooltip="One line per point: an action, the frame (from 0 on), x,y as fractions of width and "
                    "height, a name. Actions: is (or none), new, not, box, split, merge; see the help.",
                ),
                io.Mask.Input("mask", optional=True, tooltip="A new region painted on one frame; see mask_frame."),
                io.Int.Input(
                    "mask_frame", default=0, min=0, max=1_000_000, tooltip="Frame that the mask was painted on."
                ),
                io.String.Input("mask_name", default="painted", tooltip="Name of the painted region."),
            ],
            outputs=[
                LabelsSocket.Output("corrected", display_name="labels"),
                io.String.Output("report", display_name="report"),
            ],
        )

    @classmethod
    def validate_inputs(cls, corrections: str | None = None) -> bool | str:
        """Check the text before the graph runs, unless it is connected."""
        try:
            parse_corrections(corrections or "")
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        labels: Labels,
        features: Features,
        corrections: str,
        mask_frame: int,
        mask_name: str,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        """Apply the corrections."""
        painted = None if mask is None else Painted(_one_mask(mask), mask_frame, clean_name(mask_name) or "painted")
        result = correct_labels(
            features, labels, parse_corrections(corrections), painted=painted, progress=NodeProgress()
        )
        report = _report(corrections, painted, labels, result.problems)
        fixed = replace(labels, maps=result.labels.maps, regions=result.labels.regions, leaves=None, scan=None)
        return io.NodeOutput(fixed, report, ui=ui.PreviewText(report))


NOTHING_ASKED = "Nothing was asked: corrections is empty, and no mask is connected. The regions are as they came."


def _report(corrections: str, painted: Painted | None, labels: Labels, problems: Sequence[str]) -> str:
    """Return what became of the corrections, in words."""
    if painted is None and not corrections.strip():
        return NOTHING_ASKED
    lines = [f"Not applied: {problem}" for problem in problems] or ["All corrections were applied."]
    stretched = tell_stretched(painted.mask, labels.frame_size) if painted else ""
    return "\n".join([*lines, *filter(None, [stretched])])


def _one_mask(mask: Tensor) -> Tensor:
    """Return the only mask ``(H,W)`` bool of a MASK ``(1,H,W)``."""
    if mask.ndim == 3 and len(mask) != 1:
        raise InputError(
            f"`mask` must be one mask, that of `mask_frame`, but got {len(mask)}. Pick it with Convert Mask to "
            "Image, ImageFromBatch, Convert Image to Mask."
        )
    return (mask.reshape(mask.shape[-2:]) > 0.5).cpu()
