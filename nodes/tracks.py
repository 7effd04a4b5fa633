"""Regions and the host's own nodes for tracked objects: SAM 3, SCAIL-2, VOID."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..core.regions.export import join_names
from ..core.regions.tracks import make_quadmask, pack_track, unpack_track
from ..core.types import list_labels
from .host.labels import ALL_REGIONS, Labels, choose_in_order, choose_labels
from .host.progress import NodeProgress
from .host.schema import Labels as LabelsSocket
from .host.schema import TrackData, labels_input, regions_input, schema


class RegionsToTrack(io.ComfyNode):
    """Labels -> what the host's SAM 3 nodes give."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "masks",
            node_id="RegionsToTrack",
            display_name="Regions to Track",
            description="Give regions as SAM3_TRACK_DATA, as if SAM 3 had tracked them, without a SAM model: for SAM3 "
            "Track Preview, SAM3 Track to Mask, Create SCAIL-2 Colored Mask and others.",
            search_aliases=["vidseg", "sam3", "track data", "scail", "character replacement"],
            inputs=[labels_input(), regions_input(f"Objects are in this order. {ALL_REGIONS}")],
            outputs=[
                TrackData.Output("track_data", display_name="track_data"),
                io.String.Output("names", display_name="names"),
            ],
        )

    @classmethod
    def execute(cls, labels: Labels, regions: str) -> io.NodeOutput:
        """Pack the masks."""
        progress = NodeProgress()
        chosen = choose_in_order(regions, labels.regions) if regions.strip() else list_labels(labels.regions)
        track = pack_track(labels.full(progress), chosen, progress)
        return io.NodeOutput(track, join_names(labels.regions, chosen))


class TrackToRegions(io.ComfyNode):
    """What the host's SAM 3 nodes give -> labels."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "masks",
            node_id="TrackToRegions",
            display_name="Track to Regions",
            description="Make regions of what SAM 3 tracked, alone or drawn over regions of the whole scene, so that "
            "SAM's instances and the regions around them live in one label map.",
            search_aliases=["vidseg", "sam3", "track data", "instances"],
            inputs=[
                TrackData.Input("track_data", tooltip="From Run SAM3 Video Track, or Regions to Track."),
                io.String.Input(
                    "names",
                    default="",
                    multiline=True,
                    placeholder="person, dog",
                    tooltip="Names of the objects in their order, separated by commas or lines. Empty: object 0, "
                    "object 1 and so on.",
                ),
                LabelsSocket.Input(
                    "labels",
                    optional=True,
                    tooltip="Regions of the same clip that the objects are drawn over. Not connected: the rest is "
                    "background.",
                ),
            ],
            outputs=[LabelsSocket.Output("tracked", display_name="labels")],
        )

    @classmethod
    def execute(cls, track_data: Mapping[str, Any], names: str, labels: Labels | None = None) -> io.NodeOutput:
        """Unpack the masks."""
        progress = NodeProgress()
        given = [name for name in map(str.strip, re.split(r"[,;\n]", names)) if name]
        found = unpack_track(track_data, given, labels.full(progress) if labels else None, progress)
        return io.NodeOutput(Labels(found.maps, found.regions, found.frame_size))


class RegionsToQuadmask(io.ComfyNode):
    """Labels -> VOID's mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        grow = {"min": -1024, "max": 1024}
        return schema(
            "masks",
            node_id="RegionsToQuadmask",
            display_name="Regions to Quadmask (VOID)",
            description="Make the mask that VOID removes a thing by: the thing itself, and what it acts on, such as "
            "its shadow, its reflection, and what it holds.",
            search_aliases=["vidseg", "void", "object removal", "video inpainting", "quad mask"],
            inputs=[
                labels_input(),
                io.String.Input(
                    "remove", default="", placeholder="person", tooltip="Names or ids of what is to go, with commas."
                ),
                io.String.Input(
                    "affected",
                    default="",
                    placeholder="shadow, 7",
                    tooltip="Names or ids of what changes when it is gone, with commas. Empty: nothing.",
                ),
                io.Int.Input("grow_object", default=4, **grow, tooltip="Pixels to add around the object."),
                io.Int.Input("grow_affected", default=8, **grow, tooltip="Pixels to add around what it affects."),
            ],
            outputs=[io.Mask.Output("quadmask", display_name="quadmask")],
        )

    @classmethod
    def execute(
        cls,
        labels: Labels,
        remove: str,
        affected: str,
        grow_object: int,
        grow_affected: int,
    ) -> io.NodeOutput:
        """Make the mask."""
        progress = NodeProgress()
        away = choose_labels(remove, labels.regions, "remove")
        touched = choose_labels(affected, labels.regions, "affected") if affected.strip() else ()
        full = labels.full(progress)
        return io.NodeOutput(make_quadmask(full, away, touched, grow_object, grow_affected, progress))
