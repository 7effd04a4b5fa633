"""Second to fourth stage: regions on the coarse grid (paper 4.1-4.2)."""

from __future__ import annotations

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
    choice_input,
    features_input,
    granularity_input,
    num_clusters_input,
    schema,
    seed_input,
    window_length_input,
)
from .host.settings import name_widgets

_DEFAULT = preset("default")
_WINDOW_REMARK = ". Keep the same in K-Means and KNN nodes."


class KMeansInit(io.ComfyNode):
    """Features -> anchor labels: clusters of the anchor frame (paper 4.1)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        config = _DEFAULT.cluster
        return schema(
            node_id="KMeansInit",
            display_name="K-Means Init",
            description="Divide one frame into regions of similar features. All other frames get these regions. "
            "Second of the five VidSeg stages.",
            search_aliases=["vidseg", "cluster", "kmeans", "segment everything"],
            inputs=[
                features_input(),
                num_clusters_input(config.num_clusters),
                seed_input(
                    _DEFAULT.sampling.seed, "Seed of K-means: another seed divides the frame somewhat differently."
                ),
                io.Int.Input(
                    "anchor_frame",
                    default=0,
                    min=0,
                    max=100_000,
                    tooltip="Frame that is divided, counted from 0. Choose one that shows everything you care for: "
                    "what is not in it gets no region of its own.",
                ),
                choice_input(
                    "fit_frames",
                    ["window", "anchor"],
                    config.fit_frames,
                    "Frames that K-means looks at: all of the anchor's window, or the anchor alone.",
                ),
                advanced(
                    io.Int.Input(
                        "num_restarts",
                        default=config.num_restarts,
                        min=1,
                        max=1000,
                        tooltip="Runs of K-means of which the best is kept.",
                    )
                ),
                advanced(window_length_input(_DEFAULT.window.length, _WINDOW_REMARK)),
                granularity_input(config.granularity),
            ],
            outputs=[AnchorLabelsSocket.Output("anchor_labels", display_name="anchor_labels")],
        )

    @classmethod
    @name_widgets
    def execute(
        cls,
        features: Features,
        num_clusters: int,
        seed: int,
        anchor_frame: int,
        fit_frames: str,
        num_restarts: int,
        window_length: int,
        granularity: float,
    ) -> io.NodeOutput:
        """Cluster the anchor frame."""
        settings = replace_parts(
            _DEFAULT,
            sampling={"seed": seed},
            cluster={
                "num_clusters": num_clusters,
                "fit_frames": fit_frames,
                "num_restarts": num_restarts,
                "granularity": granularity,
            },
            window={"length": window_length},
        )
        return io.NodeOutput(label_anchor(features, settings, anchor=anchor_frame, progress=NodeProgress()))


class SceneContextKNN(io.ComfyNode):
    """Features and anchor labels -> coarse labels, window by window (paper 4.1)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        config = _DEFAULT.context
        return schema(
            node_id="SceneContextKNN",
            display_name="Scene Context KNN",
            description="Propagate the regions of the anchor frame to all frames: each cell takes the label of the "
            "most similar remembered cells. Third of the five VidSeg stages.",
            search_aliases=["vidseg", "track", "propagate", "temporal consistency", "knn"],
            inputs=[
                features_input(),
                AnchorLabelsSocket.Input("anchor_labels", tooltip="From K-Means Init, made from the same features."),
                window_length_input(_DEFAULT.window.length, _WINDOW_REMARK),
                io.Int.Input(
                    "num_neighbors",
                    default=config.num_neighbors,
                    min=1,
                    max=1000,
                    tooltip="Remembered cells that vote on the label of a cell.",
                ),
                choice_input(
                    "memory",
                    ["previous", "anchor+previous"],
                    config.memory,
                    "What is remembered: the window before, or that and the anchor frame, which brings back regions "
                    "that were hidden for a while.",
                ),
                io.Boolean.Input(
                    "new_regions",
                    default=_DEFAULT.scene.new_regions,
                    tooltip="Things that enter later, and resemble nothing known, become regions called new 7 and "
                    "the like.",
                ),
                io.Boolean.Input(
                    "scene_cuts",
                    default=_DEFAULT.scene.cuts,
                    tooltip="At a cut the frame is divided anew; what looks like a known region keeps its name.",
                ),
            ],
            outputs=[LabelsSocket.Output("labels", display_name="labels")],
        )

    @classmethod
    @name_widgets
    def execute(
        cls,
        features: Features,
        anchor_labels: AnchorLabels,
        window_length: int,
        num_neighbors: int,
        memory: str,
        new_regions: bool,
        scene_cuts: bool,
    ) -> io.NodeOutput:
        """Predict coarse labels without refinement."""
        settings = replace_parts(
            _DEFAULT,
            cluster={"num_clusters": 0},
            window={"length": window_length},
            context={"num_neighbors": num_neighbors, "memory": memory},
            scene={"new_regions": new_regions, "cuts": scene_cuts},
        )
        return io.NodeOutput(
            _scanned(Scan(features, anchor_labels, settings), replace_parts(settings, refinement={"enabled": False}))
        )


class CorrespondenceRefine(io.ComfyNode):
    """Coarse labels -> refined coarse labels (paper 4.2)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        config = _DEFAULT.refinement
        return schema(
            node_id="CorrespondenceRefine",
            display_name="Correspondence Refine",
            description="Follow each cell through the frames of its window and let the majority decide its label, "
            "which removes flicker. The next window then learns from the refined labels. Fourth of the five VidSeg "
            "stages; bypass it to see what it does.",
            search_aliases=["vidseg", "flicker", "temporal consistency", "majority vote"],
            inputs=[
                LabelsSocket.Input("labels", tooltip="From Scene Context KNN."),
                io.Int.Input(
                    "spatial_threshold",
                    default=config.spatial_threshold,
                    min=0,
                    max=1000,
                    tooltip="Cells (of 16 pixels) that something may move by from frame to frame. More for fast "
                    "motion.",
                ),
                choice_input(
                    "voting",
                    ["cell", "track"],
                    config.voting,
                    "cell: all tracks through a cell vote. track: tracks of the window's first frame overwrite their "
                    "cells (the published code).",
                ),
            ],
            outputs=[LabelsSocket.Output("refined", display_name="labels")],
        )

    @classmethod
    @name_widgets
    def execute(cls, labels: Labels, spatial_threshold: int, voting: str) -> io.NodeOutput:
        """Repeat the scan with refined feedback."""
        if labels.scan is None or not labels.is_coarse:
            raise InputError(
                "`labels` must come from Scene Context KNN, but got labels that were loaded or are in full resolution "
                "already. Put this node right after Scene Context KNN."
            )
        settings = replace_parts(
            labels.scan.settings, refinement={"spatial_threshold": spatial_threshold, "voting": voting}
        )
        return io.NodeOutput(_scanned(labels.scan, settings).named_as(labels))


def _scanned(scan: Scan, settings: Settings) -> Labels:
    """Return coarse labels of all frames, by the settings of a scan with or without refinement."""
    coarse = segment_coarse(scan.features, scan.anchor_labels, settings, progress=NodeProgress())
    return Labels(coarse.maps, coarse.regions, coarse.frame_size, scan)
