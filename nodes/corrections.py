"""Correct regions on any frame, without running the model again."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io, ui
from torch import Tensor

from ..core.regions.corrections import Painted, correct_labels, parse_corrections
from ..core.types import Features, InputError
from .host.labels import Labels
from .host.progress import NodeProgress
from .host.schema import Labels as LabelsSocket
from .host.schema import features_input, labels_input, schema


class CorrectRegions(io.ComfyNode):
    """Relabel, add, split and merge regions from any frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
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
        painted = None if mask is None else Painted(_one_mask(mask), mask_frame, mask_name.strip() or "painted")
        result = correct_labels(
            features, labels, parse_corrections(corrections), painted=painted, progress=NodeProgress()
        )
        report = "\n".join(f"Not applied: {problem}" for problem in result.problems) or "All corrections were applied."
        fixed = replace(labels, maps=result.labels.maps, regions=result.labels.regions, scan=None)
        return io.NodeOutput(fixed, report, ui=ui.PreviewText(report))


def _one_mask(mask: Tensor) -> Tensor:
    """Return the only mask ``(H,W)`` bool of a MASK ``(1,H,W)``."""
    if mask.ndim == 3 and len(mask) != 1:
        raise InputError(
            f"`mask` must be one mask, that of `mask_frame`, but got {len(mask)}. Pick it with Convert Mask to "
            "Image, ImageFromBatch, Convert Image to Mask."
        )
    return (mask.reshape(mask.shape[-2:]) > 0.5).cpu()
