"""Measure label maps, with or without ground truth."""

from __future__ import annotations

from comfy_api.latest import io, ui
from torch import Tensor

from .assessment import against_masks, along_correspondences, require_something_to_measure
from .images import as_label_maps
from .schema import Features as FeaturesSocket
from .schema import labels_input, schema
from .wires import Labels


class ScoreRegions(io.ComfyNode):
    """mIoU, mVC8 and mVC16 against masks, and agreement along correspondences without any."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            node_id="ScoreRegions",
            display_name="Score Regions",
            description="Measure a segmentation. With masks: overlap (mIoU) and consistency over 8 and 16 frames "
            "(mVC8, mVC16; right: of the right class as well). Without: how often the same spot keeps its region from "
            "frame to frame, and where regions flip.",
            search_aliases=["vidseg", "evaluate", "miou", "iou", "consistency", "flicker"],
            is_output_node=True,
            inputs=[
                labels_input(),
                io.MultiType.Input(
                    "masks",
                    [io.Mask, io.Image],
                    optional=True,
                    tooltip="Ground truth of every frame, as masks or label images. Grey 255 counts for nothing.",
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
        lines, values = against_masks(labels, as_label_maps(masks), match) if masks is not None else ([], (-1.0,) * 3)
        notes, agreement = along_correspondences(labels, source) if source is not None else ([], -1.0)
        report = "\n".join([*lines, *notes])
        return io.NodeOutput(report, *values, agreement, ui=ui.PreviewText(report))
