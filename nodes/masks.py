"""Regions as masks, and masks made fit for other nodes."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..core.regions.export import find_boxes, join_names, make_segs, take_masks
from ..core.regions.labels import mask_labels, mask_union
from ..core.regions.masks import Finish, finish_masks
from ..core.types import Region
from .host.labels import ALL_REGIONS, Labels, choose_labels, choose_or_all
from .host.progress import NodeProgress
from .host.schema import advanced, labels_input, part_inputs, regions_input, require_in_range, schema, tell_widgets


class RegionsToMask(io.ComfyNode):
    """One mask of some regions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "masks",
            node_id="RegionsToMask",
            display_name="Regions to Mask",
            description="Make one mask per frame of the regions that you name, for inpainting, compositing and the "
            "like.",
            search_aliases=["vidseg", "mask", "select region", "matte"],
            inputs=[
                labels_input(),
                regions_input("Preview Regions shows them."),
                io.Boolean.Input("invert", default=False, tooltip="Everything but these regions."),
            ],
            outputs=[io.Mask.Output("mask", display_name="mask")],
        )

    @classmethod
    def execute(cls, labels: Labels, regions: str, invert: bool) -> io.NodeOutput:
        """Make the mask ``(T,H,W)``."""
        chosen = choose_labels(regions, labels.regions)
        progress = NodeProgress()
        mask = mask_union(labels.full(progress).maps, chosen, progress)
        return io.NodeOutput((~mask if invert else mask).float())


class RegionsToMasks(io.ComfyNode):
    """A mask batch of each region, as a list."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "masks",
            node_id="RegionsToMasks",
            display_name="Regions to Masks (list)",
            description="Make one mask batch per region, as a list: nodes after it run once for each region.",
            search_aliases=["vidseg", "mask list", "split regions"],
            inputs=[labels_input(), regions_input("Preview Regions shows them. Empty: all regions.")],
            outputs=[
                io.Mask.Output("masks", display_name="masks", is_output_list=True),
                io.String.Output("names", display_name="names", is_output_list=True),
            ],
        )

    @classmethod
    def execute(cls, labels: Labels, regions: str) -> io.NodeOutput:
        """Make the masks, each ``(T,H,W)``, and the regions' names."""
        known: tuple[Region, ...] = labels.regions
        chosen = choose_labels(regions, known) if regions.strip() else tuple(region.label for region in known)
        names = {region.label: region.name for region in known}
        masks = mask_labels(labels.full(NodeProgress()).maps, chosen).float()
        return io.NodeOutput(list(masks), [names[label] for label in chosen])


class FinishMask(io.ComfyNode):
    """Mask -> mask fit for inpainting."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "masks",
            node_id="FinishMask",
            display_name="Finish Mask",
            description="Make masks fit for inpainting and compositing: steady in time, grown, as box or blocks if "
            "wanted, feathered, and whole up to the border of the frame.",
            search_aliases=["vidseg", "grow mask", "feather", "temporal smoothing", "blockify mask"],
            inputs=[
                io.Mask.Input("mask", tooltip="One mask per frame, as from Regions to Mask."),
                *part_inputs(
                    Finish,
                    {"grow": {"default": 4}, "feather": {}, "smooth_frames": {"step": 2}, "shape": {}},
                ),
                *map(advanced, part_inputs(Finish, {"border": {}})),
            ],
            outputs=[io.Mask.Output("finished", display_name="mask")],
        )

    @classmethod
    @tell_widgets
    def execute(
        cls, mask: Tensor, grow: int, feather: int, smooth_frames: int, shape: Any, border: int
    ) -> io.NodeOutput:
        """Finish the masks."""
        finish = Finish(smooth_frames, border, grow, shape, feather=feather)
        return io.NodeOutput(finish_masks(mask.reshape(-1, *mask.shape[-2:]), finish, NodeProgress()))


class RegionsToSEGS(io.ComfyNode):
    """Labels -> the Impact Pack's segments."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "masks",
            node_id="RegionsToSEGS",
            display_name="Regions to SEGS",
            description="Give regions to the nodes of the Impact Pack: one segment per region with its name, and a "
            "mask for each frame.",
            search_aliases=["vidseg", "impact pack", "segs", "detailer"],
            inputs=[
                labels_input(),
                regions_input(ALL_REGIONS),
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
        require_in_range(cls, crop_factor=crop_factor)
        progress = NodeProgress()
        return io.NodeOutput(make_segs(labels.full(progress), choose_or_all(regions, labels), crop_factor, progress))


class RegionsToTracker(io.ComfyNode):
    """Labels -> what the host's SAM 3 nodes start from."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "masks",
            node_id="RegionsToTracker",
            display_name="Regions to Tracker",
            description="Give regions to another tracker: a mask of each in the first frame, which SAM 3's tracker "
            "takes as initial masks, and boxes in all frames, which its detector takes.",
            search_aliases=["vidseg", "sam3", "initial mask", "bounding box", "bbox"],
            inputs=[
                labels_input(),
                regions_input(ALL_REGIONS),
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
        full, chosen = labels.full(progress), choose_or_all(regions, labels)
        masks, missing = take_masks(full, chosen, frame)
        found = [[box._asdict() for box in each] for each in find_boxes(full, chosen, progress)]
        return io.NodeOutput(
            masks, found, join_names(labels.regions, [label for label in chosen if label not in missing])
        )
