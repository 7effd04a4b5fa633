"""Second to fourth stage: regions on the coarse grid (paper 4.1-4.2)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.config.settings import Settings, preset, replace_parts
from ..core.method.coarse import segment_coarse
from ..core.method.pipeline import label_anchor
from ..core.types import AnchorLabels, Features, InputError
from .host.labels import Labels, Scan
from .host.progress import NodeProgress
from .host.schema import AnchorLabels as AnchorLabelsSocket
from .host.schema import Labels as LabelsSocket
from .host.schema import (
    advanced,
    features_input,
    granularity_input,
    read_settings,
    schema,
    seed_input,
    setting_input,
    tell_widgets,
)

_DEFAULT = preset("default")
_SAME = "Keep the same in K-Means and KNN nodes."


class KMeansInit(io.ComfyNode):
    """Features -> anchor labels: clusters of the anchor frame (paper 4.1)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        anchor = io.Int.Input(
            "anchor_frame",
            default=0,
            min=0,
            max=100_000,
            tooltip="Frame that is divided, counted from 0. Choose one that shows everything you care for: what is not "
            "in it gets no region of its own.",
        )
        anchor.setting = "anchor"
        return schema(
            "stages",
            node_id="KMeansInit",
            display_name="K-Means Init",
            description="Divide one frame into regions of similar features. All other frames get these regions. "
            "Second of the five VidSeg stages.",
            search_aliases=["vidseg", "cluster", "kmeans", "segment everything"],
            inputs=[
                features_input(),
                setting_input("num_clusters", "cluster.num_clusters"),
                seed_input("Another seed divides the frame somewhat differently."),
                anchor,
                advanced(setting_input("fit_frames", "cluster.fit_frames")),
                advanced(setting_input("num_restarts", "cluster.num_restarts")),
                advanced(setting_input("window_length", "window.length", _SAME)),
                advanced(granularity_input()),
                advanced(setting_input("method", "cluster.method")),
                advanced(setting_input("num_leaves", "cluster.num_leaves")),
                advanced(setting_input("place", "cluster.place", step=0.05)),
                advanced(setting_input("motion", "cluster.motion", step=0.05)),
            ],
            outputs=[AnchorLabelsSocket.Output("anchor_labels", display_name="anchor_labels")],
        )

    @classmethod
    @tell_widgets
    def execute(cls, features: Features, anchor_frame: int, **widgets: Any) -> io.NodeOutput:
        """Cluster the anchor frame."""
        settings = read_settings(cls, _DEFAULT, widgets)
        return io.NodeOutput(label_anchor(features, settings, anchor=anchor_frame, progress=NodeProgress()))


class SceneContextKNN(io.ComfyNode):
    """Features and anchor labels -> coarse labels, window by window (paper 4.1)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "stages",
            node_id="SceneContextKNN",
            display_name="Scene Context KNN",
            description="Propagate the regions of the anchor frame to all frames: each cell takes the label of the "
            "most similar remembered cells. Third of the five VidSeg stages.",
            search_aliases=["vidseg", "track", "propagate", "temporal consistency", "knn"],
            inputs=[
                features_input(),
                AnchorLabelsSocket.Input("anchor_labels", tooltip="From K-Means Init, made from the same features."),
                setting_input("window_length", "window.length", _SAME),
                advanced(setting_input("num_neighbors", "context.num_neighbors")),
                advanced(setting_input("memory", "context.memory")),
                setting_input("new_regions", "scene.new_regions"),
                setting_input("scene_cuts", "scene.cuts"),
            ],
            outputs=[LabelsSocket.Output("labels", display_name="labels")],
        )

    @classmethod
    @tell_widgets
    def execute(cls, features: Features, anchor_labels: AnchorLabels, **widgets: Any) -> io.NodeOutput:
        """Predict coarse labels without refinement."""
        settings = read_settings(cls, _DEFAULT, widgets, {"cluster.num_clusters": 0})
        return io.NodeOutput(
            _scanned(Scan(features, anchor_labels, settings), replace_parts(settings, refinement={"enabled": False}))
        )


class CorrespondenceRefine(io.ComfyNode):
    """Coarse labels -> refined coarse labels (paper 4.2)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "stages",
            node_id="CorrespondenceRefine",
            display_name="Correspondence Refine",
            description="Follow each cell through the frames of its window and let the majority decide its label, "
            "which removes flicker. The next window then learns from the refined labels. Fourth of the five VidSeg "
            "stages; bypass it to see what it does.",
            search_aliases=["vidseg", "flicker", "temporal consistency", "majority vote"],
            inputs=[
                LabelsSocket.Input("labels", tooltip="From Scene Context KNN."),
                setting_input("spatial_threshold", "refinement.spatial_threshold"),
            ],
            outputs=[LabelsSocket.Output("refined", display_name="labels")],
        )

    @classmethod
    @tell_widgets
    def execute(cls, labels: Labels, **widgets: Any) -> io.NodeOutput:
        """Repeat the scan with refined feedback."""
        if labels.scan is None or not labels.is_coarse:
            raise InputError(
                "`labels` must come from Scene Context KNN, but got labels that were loaded or are in full resolution "
                "already. Put this node right after Scene Context KNN."
            )
        settings = read_settings(cls, labels.scan.settings, widgets)
        return io.NodeOutput(_scanned(labels.scan, settings).named_as(labels))


def _scanned(scan: Scan, settings: Settings) -> Labels:
    """Return coarse labels of all frames, by the settings of a scan with or without refinement."""
    coarse = segment_coarse(scan.features, scan.anchor_labels, settings, memory=scan.memory, progress=NodeProgress())
    return Labels(coarse.maps, coarse.regions, coarse.frame_size, coarse.leaves, scan)
