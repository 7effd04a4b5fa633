"""Name, choose and mask regions."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..core.regions.labels import region_masks, seeds_from_reference, union_mask
from ..core.types import VOID, Region, Seeds
from .images import one_label_map
from .progress import NodeProgress
from .schema import Labels as LabelsSocket
from .schema import Seeds as SeedsSocket
from .schema import advanced, labels_input, regions_input, schema
from .selection import chosen_labels, names_and_merges, parsed_class_names
from .wires import Labels


class NameRegions(io.ComfyNode):
    """Give regions names, and merge some."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
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
        new_names, merges = names_and_merges(names, labels.regions)
        return io.NodeOutput(labels.with_names(new_names, merges))


class AssignRegionsFromMask(io.ComfyNode):
    """Name the clusters of the anchor frame by a label image of it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            node_id="AssignRegionsFromMask",
            display_name="Assign Regions from Mask",
            description="Turn nameless regions into classes: each cluster of the anchor frame becomes the class that "
            "most of its cells have in a mask or label image of that frame. Put it between K-Means Init and Scene "
            "Context KNN; with a black-and-white mask, the whole video follows the masked subject.",
            search_aliases=["vidseg", "first frame mask", "propagate mask", "semi-supervised"],
            inputs=[
                SeedsSocket.Input("seeds", tooltip="From K-Means Init."),
                io.MultiType.Input(
                    "mask",
                    [io.Mask, io.Image],
                    tooltip="Of the anchor frame, in any size. Black and white: background and subject. Grey: the "
                    "grey value is the class, 255 counts as unknown. Flat colours: one class per colour.",
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
            outputs=[SeedsSocket.Output("assigned", display_name="seeds")],
        )

    @classmethod
    def execute(cls, seeds: Seeds, mask: Tensor, class_names: str, ignore_unknown: bool) -> io.NodeOutput:
        """Assign classes."""
        reference = one_label_map(mask, f"frame {seeds.anchor}")
        ignore = VOID if ignore_unknown else None
        names = parsed_class_names(class_names)
        return io.NodeOutput(
            seeds_from_reference(seeds.cluster_map, reference, seeds.anchor, ignore=ignore, names=names)
        )


class RegionsToMask(io.ComfyNode):
    """One mask of some regions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
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
        chosen = chosen_labels(regions, labels.regions)
        progress = NodeProgress()
        mask = union_mask(labels.full(progress).maps, chosen, progress)
        return io.NodeOutput((~mask if invert else mask).float())


class RegionsToMasks(io.ComfyNode):
    """A mask batch of each region, as a list."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
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
        chosen = chosen_labels(regions, known) if regions.strip() else tuple(region.label for region in known)
        names = {region.label: region.name for region in known}
        masks = region_masks(labels.full(NodeProgress()).maps, chosen).float()
        return io.NodeOutput(list(masks), [names[label] for label in chosen])
