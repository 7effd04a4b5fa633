"""The five stages of the method, one node each (paper, figure 2)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..core.backbones.comfy_unet import ComfyBackbone
from ..core.coarse import segment_coarse
from ..core.config import RefinementConfig, changed, preset
from ..core.pipeline import extract_features, make_seeds
from ..core.types import CoarseMaps, Features, InputError, Seeds
from ..core.upsampling import upsample
from .images import as_frames
from .progress import NodeProgress
from .schema import Features as FeaturesSocket
from .schema import Labels as LabelsSocket
from .schema import Seeds as SeedsSocket
from .schema import advanced, conditioning_inputs, model_inputs, sampling_inputs, schema
from .selection import block_numbers
from .wires import Labels, Scan, require_features_of

_DEFAULT = preset("default")
MAX_SEED = 2**32 - 1
_WINDOW_TOOLTIP = (
    "Frames that are labelled together before the memory moves on. Keep the same in K-Means and KNN nodes."
)


class ExtractDiffusionFeatures(io.ComfyNode):
    """Frames -> features (paper 4.1)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        config = _DEFAULT
        return schema(
            node_id="ExtractDiffusionFeatures",
            display_name="Extract Diffusion Features",
            description="Add a little noise to each frame, let the model denoise it, and keep what its self-attention "
            "looks for. Pixels of the same thing get similar features. First of the five VidSeg stages.",
            search_aliases=["vidseg", "video segmentation", "segment", "unet features", "self attention"],
            inputs=[
                *model_inputs(),
                io.Image.Input("frames", tooltip="The frames of the video, as one batch of images in their order."),
                *conditioning_inputs(),
                io.Int.Input("seed", default=config.sampling.seed, min=0, max=MAX_SEED,
                             tooltip="Seed of the noise. The noise of a frame depends on it and the frame's number."),
                io.Int.Input("max_side", default=config.frame.max_side, min=0, max=16384, step=64,
                             tooltip="Reduce frames to this longer side before processing; 0 keeps their size. Smaller is "
                             "faster and coarser. Labels always come back in the size of the frames."),
                advanced(io.String.Input("blocks", default=", ".join(map(str, config.feature.blocks)),
                                         tooltip="Decoder blocks (3 to 11) whose features are averaged.")),
                advanced(io.Int.Input("matching_block", default=config.feature.matching_block, min=3, max=11,
                                      tooltip="Decoder block whose features find the same spot in the next frame.")),
                advanced(io.Int.Input("start_step", default=config.start_step, min=0, max=999,
                                      tooltip="Step at whose noise level denoising starts: the smaller, the more noise.")),
                advanced(io.Int.Input("feature_step", default=config.feature.step, min=0, max=999,
                                      tooltip="Step at which features are read, counted from 0; the last one is best.")),
                *sampling_inputs(config.sampling),
            ],
            outputs=[FeaturesSocket.Output("features", display_name="features")],
        )  # fmt: skip

    @classmethod
    def execute(  # noqa: PLR0913 - one argument per socket
        cls, model: Any, vae: Any, frames: Tensor, seed: int, max_side: int, blocks: str, matching_block: int,  # noqa: ANN401
        start_step: int, feature_step: int, steps: int, guidance_scale: float, positive: Any = None, negative: Any = None,  # noqa: ANN401
    ) -> io.NodeOutput:  # fmt: skip
        """Extract features."""
        backbone = ComfyBackbone(model, vae, positive, negative)
        settings = changed(
            _DEFAULT,
            frame={"max_side": max_side},
            sampling={"seed": seed, "num_steps": steps, "guidance_scale": guidance_scale},
            feature={"step": feature_step, "blocks": block_numbers(blocks), "matching_block": matching_block},
            modulation={"step": start_step},
        )
        features = extract_features(backbone, as_frames(frames), settings, progress=NodeProgress())
        return io.NodeOutput(features)


class KMeansInit(io.ComfyNode):
    """Features -> seeds: clusters of the anchor frame (paper 4.1)."""

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
                FeaturesSocket.Input("features", tooltip="From Extract Diffusion Features."),
                io.Int.Input("num_clusters", default=config.num_clusters, min=1, max=255,
                             tooltip="Number of regions. Few for a subject before a background, 20 for a whole scene."),
                io.Int.Input("seed", default=_DEFAULT.sampling.seed, min=0, max=MAX_SEED,
                             tooltip="Seed of K-means: another seed divides the frame somewhat differently."),
                io.Int.Input("anchor_frame", default=0, min=0, max=100_000,
                             tooltip="Frame that is divided, counted from 0. Choose one that shows everything you care for: "
                             "what is not in it gets no region of its own."),
                advanced(io.Combo.Input("fit_frames", options=["window", "anchor"], default=config.fit_frames,
                                        tooltip="Frames that K-means looks at: all of the anchor's window, or the anchor alone.")),
                advanced(io.Int.Input("num_restarts", default=config.num_restarts, min=1, max=1000,
                                      tooltip="Runs of K-means of which the best is kept.")),
                advanced(io.Int.Input("window_length", default=_DEFAULT.window.length, min=1, max=10_000,
                                      tooltip=_WINDOW_TOOLTIP)),
            ],
            outputs=[SeedsSocket.Output("seeds", display_name="seeds")],
        )  # fmt: skip

    @classmethod
    def execute(  # noqa: PLR0913
        cls, features: Features, num_clusters: int, seed: int, anchor_frame: int, fit_frames: str, num_restarts: int,
        window_length: int,
    ) -> io.NodeOutput:  # fmt: skip
        """Cluster the anchor frame."""
        settings = changed(
            _DEFAULT,
            sampling={"seed": seed},
            cluster={"num_clusters": num_clusters, "fit_frames": fit_frames, "num_restarts": num_restarts},
            window={"length": window_length},
        )
        return io.NodeOutput(make_seeds(features, settings, anchor=anchor_frame))


class SceneContextKNN(io.ComfyNode):
    """Features and seeds -> coarse labels, window by window (paper 4.1)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        config = _DEFAULT.context
        return schema(
            node_id="SceneContextKNN",
            display_name="Scene Context KNN",
            description="Carry the regions of the anchor frame to all frames: each cell takes the label of the most "
            "similar remembered cells. Third of the five VidSeg stages.",
            search_aliases=["vidseg", "track", "propagate", "temporal consistency", "knn"],
            inputs=[
                FeaturesSocket.Input("features", tooltip="From Extract Diffusion Features."),
                SeedsSocket.Input("seeds", tooltip="From K-Means Init, made from the same features."),
                io.Int.Input("window_length", default=_DEFAULT.window.length, min=1, max=10_000, tooltip=_WINDOW_TOOLTIP),
                io.Int.Input("num_neighbors", default=config.num_neighbors, min=1, max=1000,
                             tooltip="Remembered cells that vote on the label of a cell."),
                advanced(io.Combo.Input("memory", options=["previous", "anchor+previous"], default=config.memory,
                                        tooltip="What is remembered: the window before, or that and the anchor frame, which "
                                        "brings back regions that were hidden for a while.")),
            ],
            outputs=[LabelsSocket.Output("labels", display_name="labels")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, features: Features, seeds: Seeds, window_length: int, num_neighbors: int, memory: str
    ) -> io.NodeOutput:
        """Predict coarse labels without refinement."""
        settings = changed(
            _DEFAULT,
            window={"length": window_length},
            context={"num_neighbors": num_neighbors, "memory": memory},
        )
        scan = Scan(features, seeds, settings.window, settings.context)
        return io.NodeOutput(_scanned(scan, RefinementConfig(enabled=False)))


class CorrespondenceRefine(io.ComfyNode):
    """Coarse labels -> refined coarse labels (paper 4.2)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        config = _DEFAULT.refinement
        return schema(
            node_id="CorrespondenceRefine",
            display_name="Correspondence Refine",
            description="Follow each cell through the frames of its window and let the majority decide its label, which "
            "removes flicker. The next window then learns from the refined labels. Fourth of the five VidSeg stages; "
            "bypass it to see what it does.",
            search_aliases=["vidseg", "flicker", "temporal consistency", "majority vote"],
            inputs=[
                LabelsSocket.Input("labels", tooltip="From Scene Context KNN."),
                io.Int.Input("spatial_threshold", default=config.spatial_threshold, min=0, max=1000,
                             tooltip="Cells (of 16 pixels) that something may move by from frame to frame. More for fast motion."),
                advanced(io.Combo.Input("voting", options=["cell", "track"], default=config.voting,
                                        tooltip="cell: all tracks through a cell vote. track: tracks of the window's first "
                                        "frame overwrite their cells (the published code).")),
            ],
            outputs=[LabelsSocket.Output("refined", display_name="labels")],
        )  # fmt: skip

    @classmethod
    def execute(cls, labels: Labels, spatial_threshold: int, voting: str) -> io.NodeOutput:
        """Repeat the scan with refined feedback."""
        if labels.scan is None or not labels.coarse:
            raise InputError(
                "`labels` must come from Scene Context KNN, but got labels that were loaded or are in full resolution "
                "already. Put this node right after Scene Context KNN."
            )
        settings = changed(_DEFAULT, refinement={"spatial_threshold": spatial_threshold, "voting": voting})
        return io.NodeOutput(_scanned(labels.scan, settings.refinement))


def _scanned(scan: Scan, refinement: RefinementConfig) -> Labels:
    """Return coarse labels of all frames, from a scan with or without refinement."""
    features, seeds = scan.features, scan.seeds
    coarse = segment_coarse(features, seeds, scan.window, scan.context, refinement, progress=NodeProgress())
    return Labels(coarse.maps, coarse.regions, features.frame_size, coarse=True, scan=scan)


class MaskedModulationUpsample(io.ComfyNode):
    """Coarse labels -> labels in full resolution (paper 4.3)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        sampling, modulation, difference = _DEFAULT.sampling, _DEFAULT.modulation, _DEFAULT.difference
        return schema(
            node_id="MaskedModulationUpsample",
            display_name="Masked Modulation Upsample",
            description="Find the pixels of each region: push its cells up and down inside the model and see which "
            "pixels of the picture respond. The slow one: two short samplings per region and frame. Last of the five "
            "VidSeg stages; without it regions have blocky edges.",
            search_aliases=["vidseg", "upscale mask", "refine edges", "modulation"],
            inputs=[
                *model_inputs(),
                FeaturesSocket.Input("features", tooltip="From Extract Diffusion Features, of the same clip as the labels."),
                LabelsSocket.Input("labels", tooltip="Coarse labels, from Correspondence Refine or Scene Context KNN."),
                *conditioning_inputs(),
                io.Float.Input("modulation_factor", default=modulation.factor, min=0.1, max=1000.0, step=1.0,
                               tooltip="How strongly a region is pushed (lambda of the paper)."),
                io.Float.Input("filter_strength", default=difference.filter_strength, min=0.0, max=1.0, step=0.05,
                               tooltip="Weight of pixels outside a region's coarse cells: smaller keeps closer to the cells, "
                               "1 turns the filter off."),
                advanced(io.Int.Input("modulation_step", default=modulation.step, min=0, max=999,
                                      tooltip="Step at which regions are pushed, counted from 0. Earlier is slower.")),
                advanced(io.Int.Input("block", default=modulation.block, min=3, max=11, tooltip="Decoder block that is pushed.")),
                advanced(io.Combo.Input("attention", options=["cross", "self"], default=modulation.attention,
                                        tooltip="Attention layer whose output is pushed; both give the same result.")),
                advanced(io.Combo.Input("blending", options=["all", "first", "none"], default=modulation.blending,
                                        tooltip="Restore the picture outside the region after every step, after the first two, "
                                        "or never.")),
                advanced(io.Boolean.Input("normalise", default=difference.normalise,
                                          tooltip="Scale each region's response to its own maximum, which helps faint regions.")),
                *sampling_inputs(sampling),
            ],
            outputs=[LabelsSocket.Output("full_labels", display_name="labels")],
        )  # fmt: skip

    @classmethod
    def execute(  # noqa: PLR0913
        cls, model: Any, vae: Any, features: Features, labels: Labels, modulation_factor: float, filter_strength: float,  # noqa: ANN401
        modulation_step: int, block: int, attention: str, blending: str, normalise: bool, steps: int, guidance_scale: float,
        positive: Any = None, negative: Any = None,  # noqa: ANN401
    ) -> io.NodeOutput:  # fmt: skip
        """Modulate and compare."""
        backbone = ComfyBackbone(model, vae, positive, negative)
        require_features_of(labels, features)
        settings = changed(
            _DEFAULT,
            sampling={"num_steps": steps, "guidance_scale": guidance_scale},
            feature={"step": steps - 1},
            modulation={"factor": modulation_factor, "step": modulation_step, "block": block, "attention": attention,
                        "blending": blending},
            difference={"filter_strength": filter_strength, "normalise": normalise},
        )  # fmt: skip
        coarse = CoarseMaps(labels.maps, labels.regions)
        maps, regions = upsample(backbone, features, coarse, settings, progress=NodeProgress())
        return io.NodeOutput(Labels(maps, regions, features.frame_size, coarse=False, scan=labels.scan))
