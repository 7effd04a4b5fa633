"""Pick regions by clicking on them."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..core.regions.labels import union_mask
from ..core.regions.points import described, parsed_points, resolved
from ..core.regions.table import pixel_counts
from ..core.types import InputError
from .images import as_frames
from .picker_files import folder_mark, picker_output
from .progress import NodeProgress
from .schema import Labels as LabelsSocket
from .schema import labels_input, schema
from .wires import Labels, require_frames_of


class PickRegions(io.ComfyNode):
    """Choose, name, merge and hide regions by points on frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
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
                    "region, lines that start with hide put it out of sight.",
                ),
                io.Boolean.Input("invert", default=False, tooltip="Everything but the picked regions."),
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
            parsed_points(picks or "")
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, **_inputs: object) -> str:
        """Tell the host to run again when the files of the picker are gone."""
        return folder_mark()

    @classmethod
    def execute(cls, frames: Tensor, labels: Labels, picks: str, invert: bool) -> io.NodeOutput:
        """Find the regions under the points and make the mask ``(T,H,W)``."""
        frames = as_frames(frames)
        require_frames_of(labels, frames)
        progress = NodeProgress(has_text=False)
        full = labels.full(progress)
        found = resolved(parsed_points(picks), full)
        named = labels.with_names(found.names, found.merges)
        maps = named.full(progress).maps
        counts = pixel_counts(maps, progress).sum(0)
        report = described(found, lambda label: f"{int(counts[label]) / maps.numel():.1%} of the clip")
        mask = union_mask(maps, found.picked, progress)
        shown = picker_output(frames, full, picks, found, progress)
        return io.NodeOutput((~mask if invert else mask).float(), named, report, ui=shown)
