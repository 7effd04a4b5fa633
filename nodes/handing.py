"""Hand regions to other nodes and programs."""

from __future__ import annotations

import json
from pathlib import Path

from comfy_api.latest import io, ui
from torch import Tensor

from ..core.files.result_folder import ResultFolder
from ..core.files.video_writer import write_id_video
from ..core.regions.export import boxes, coco, first_masks, named, segments
from ..core.regions.instances import InstanceConfig, split_instances
from ..core.regions.masks import Finish, finished
from ..core.types import LabelMaps, region_labels
from .files import OUTPUT_PLACE
from .places import free_place
from .progress import NodeProgress
from .schema import Labels as LabelsSocket
from .schema import advanced, labels_input, regions_input, schema
from .selection import chosen_labels
from .wires import Labels

_ALL = "Empty: all regions."
_FINISH = Finish()
_INSTANCES = InstanceConfig()
COCO_FILE, ID_FILE = "coco.json", "ids.mkv"


def _chosen(regions: str, labels: Labels) -> tuple[int, ...]:
    return chosen_labels(regions, labels.regions) if regions.strip() else region_labels(labels.regions)


class SplitInstances(io.ComfyNode):
    """Regions -> separate things."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            node_id="SplitInstances",
            display_name="Split Instances",
            description="Split regions into their separate things, such as people into person 1 and person 2. Each "
            "keeps its id from frame to frame, also where two of them touch for a while.",
            search_aliases=["vidseg", "instance segmentation", "separate objects", "track ids"],
            inputs=[
                labels_input(),
                regions_input(_ALL),
                io.Float.Input(
                    "min_share",
                    default=_INSTANCES.min_share,
                    min=0.0,
                    max=1.0,
                    step=0.0005,
                    round=0.0001,
                    tooltip="Share of the frame that a thing covers at least in some frame; smaller pieces join the "
                    "nearest thing.",
                ),
                io.Int.Input(
                    "min_frames",
                    default=_INSTANCES.min_frames,
                    min=1,
                    max=1000,
                    tooltip="Frames in which a thing is apart from the others at least; what comes apart for fewer is "
                    "one.",
                ),
            ],
            outputs=[LabelsSocket.Output("instances", display_name="labels")],
        )

    @classmethod
    def execute(cls, labels: Labels, regions: str, min_share: float, min_frames: int) -> io.NodeOutput:
        """Split the regions."""
        config = InstanceConfig(min_share, min_frames)
        whole = LabelMaps(labels.maps, labels.regions)
        maps, found = split_instances(whole, _chosen(regions, labels), config, progress=NodeProgress())
        return io.NodeOutput(labels._replace(maps=maps, regions=found, scan=None))


class FinishMask(io.ComfyNode):
    """Mask -> mask fit for inpainting."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            node_id="FinishMask",
            display_name="Finish Mask",
            description="Make masks fit for inpainting and compositing: steady in time, grown, as box or blocks if "
            "wanted, feathered, and whole up to the border of the frame.",
            search_aliases=["vidseg", "grow mask", "feather", "temporal smoothing", "blockify mask"],
            inputs=[
                io.Mask.Input("mask", tooltip="One mask per frame, as from Regions to Mask."),
                io.Int.Input("grow", default=4, min=-1024, max=1024, tooltip="Pixels to add around; negative: remove."),
                io.Int.Input("feather", default=0, min=0, max=1024, tooltip="Pixels over which the edge fades out."),
                io.Int.Input(
                    "smooth_frames",
                    default=_FINISH.smooth_frames,
                    min=1,
                    max=99,
                    step=2,
                    tooltip="Each pixel goes with the majority of this many frames; 1 changes nothing.",
                ),
                io.Combo.Input(
                    "shape",
                    options=["region", "box", "blocks"],
                    default=_FINISH.shape,
                    tooltip="region: as it is. box: the box around it. blocks: all blocks of 16 pixels that it "
                    "touches, which some video models inpaint better.",
                ),
                advanced(
                    io.Int.Input(
                        "border",
                        default=_FINISH.border,
                        min=0,
                        max=64,
                        tooltip="Pixels along the frame's border that repeat their inner neighbour: no line is left.",
                    )
                ),
            ],
            outputs=[io.Mask.Output("finished", display_name="mask")],
        )

    @classmethod
    def execute(
        cls, mask: Tensor, grow: int, feather: int, smooth_frames: int, shape: str, border: int
    ) -> io.NodeOutput:
        """Finish the masks."""
        finish = Finish(smooth_frames, border, grow, feather=feather)
        if shape != "region":
            finish = finish._replace(shape="box" if shape == "box" else "blocks")
        return io.NodeOutput(finished(mask.reshape(-1, *mask.shape[-2:]), finish, NodeProgress()))


class RegionsToSEGS(io.ComfyNode):
    """Labels -> the Impact Pack's segments."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            node_id="RegionsToSEGS",
            display_name="Regions to SEGS",
            description="Give regions to the nodes of the Impact Pack: one segment per region with its name, and a "
            "mask for each frame.",
            search_aliases=["vidseg", "impact pack", "segs", "detailer"],
            inputs=[
                labels_input(),
                regions_input(_ALL),
                io.Float.Input(
                    "crop_factor",
                    default=1.5,
                    min=1.0,
                    max=10.0,
                    step=0.1,
                    tooltip="Size of what is cropped around a region, by the size of its box.",
                ),
            ],
            outputs=[io.Custom("SEGS").Output("segs", display_name="segs")],
        )

    @classmethod
    def execute(cls, labels: Labels, regions: str, crop_factor: float) -> io.NodeOutput:
        """Make the segments."""
        progress = NodeProgress()
        return io.NodeOutput(segments(labels.full(progress), _chosen(regions, labels), crop_factor, progress))


class RegionsToTracker(io.ComfyNode):
    """Labels -> what the host's SAM 3 nodes start from."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            node_id="RegionsToTracker",
            display_name="Regions to Tracker",
            description="Give regions to another tracker: a mask of each in the first frame, which SAM 3's tracker "
            "takes as initial masks, and boxes in all frames, which its detector takes.",
            search_aliases=["vidseg", "sam3", "initial mask", "bounding box", "bbox"],
            inputs=[
                labels_input(),
                regions_input(_ALL),
                io.Int.Input(
                    "frame", default=0, min=0, max=1_000_000, tooltip="Frame of the masks; the tracker starts there."
                ),
            ],
            outputs=[
                io.Mask.Output("initial_mask", display_name="initial_mask"),
                io.Custom("BOUNDING_BOX").Output("bboxes", display_name="bboxes"),
                io.String.Output("names", display_name="names"),
            ],
        )

    @classmethod
    def execute(cls, labels: Labels, regions: str, frame: int) -> io.NodeOutput:
        """Make masks and boxes; regions that the frame lacks are left out of the masks."""
        progress = NodeProgress()
        full, chosen = labels.full(progress), _chosen(regions, labels)
        masks, missing = first_masks(full, chosen, frame)
        found = [[box._asdict() for box in each] for each in boxes(full, chosen, progress)]
        return io.NodeOutput(masks, found, named(labels.regions, [label for label in chosen if label not in missing]))


class ExportRegions(io.ComfyNode):
    """Labels -> files for editors and data tools."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            node_id="ExportRegions",
            display_name="Export Regions",
            description="Write regions for other programs: palette PNGs, a lossless grey video whose values are the "
            "regions' ids, and a COCO file with names and run lengths.",
            search_aliases=["vidseg", "coco", "rle", "id matte", "cryptomatte", "export masks"],
            is_output_node=True,
            inputs=[
                labels_input(),
                io.String.Input(
                    "filename_prefix",
                    default="vidseg/export",
                    tooltip="Folder and start of the name below ComfyUI's output folder.",
                ),
                io.Float.Input("fps", default=24.0, min=0.1, max=240.0, step=0.01, tooltip="Frames per second."),
            ],
            outputs=[io.String.Output("folder", display_name="folder")],
        )

    @classmethod
    def execute(cls, labels: Labels, filename_prefix: str, fps: float) -> io.NodeOutput:
        """Write the folder."""
        path, saved = free_place(filename_prefix, "export")
        folder, progress = ResultFolder(path, OUTPUT_PLACE), NodeProgress()
        full = labels.full(progress)
        folder.prepare(full.maps.numel())
        folder.write_label_maps(0, full.maps, progress)
        folder.write_file(ID_FILE, lambda path: write_id_video(path, full.maps, fps, progress))
        folder.write_file(COCO_FILE, lambda path: _write_json(path, coco(full, progress=progress)))
        return io.NodeOutput(saved, ui=ui.PreviewText(f"{COCO_FILE}, {ID_FILE} and PNGs in output/{saved}"))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")
