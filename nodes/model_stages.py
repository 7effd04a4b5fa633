"""First and last stage, which run the model: features of frames (paper 4.1), and full resolution (paper 4.3)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..core.backbones.comfy.load import model_kind, open_backbone
from ..core.backbones.protocol import SIDE_MULTIPLE
from ..core.config.settings import preset, require_served, with_quality
from ..core.method.estimate import expect_stage_shares
from ..core.method.features import extract_features
from ..core.method.upsampling import upsample
from ..core.types import Features
from .host.frames import convert_frames
from .host.labels import Labels, require_features_of
from .host.progress import NodeProgress, log_peak
from .host.schema import (
    AUTO,
    AUTO_CHOICE,
    adapt_to_kind,
    advanced,
    clip_vision_input,
    conditioning_inputs,
    frames_input,
    model_inputs,
    quality_input,
    read_settings,
    sampling_inputs,
    schema,
    seed_input,
    setting_input,
    tell_widgets,
    tiles_input,
)
from .host.schema import Features as FeaturesSocket
from .host.schema import Labels as LabelsSocket

LAYERS = "Empty takes the model's own."
"""What an empty widget of layers stands for."""


FIRST_FRAME = (
    "Number of the first of these frames in the clip, for a part of it: it then gets the noise that it has in the "
    "whole clip. In a loop, wire the frame at which the part begins."
)
"""What `first_frame` is for."""


class ExtractDiffusionFeatures(io.ComfyNode):
    """Frames -> features (paper 4.1)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "stages",
            node_id="ExtractDiffusionFeatures",
            display_name="Extract Diffusion Features",
            description="Show each frame to the model, and keep what its self-attention looks for. Pixels of the same "
            "thing get similar features. First of the five VidSeg stages.",
            search_aliases=["vidseg", "video segmentation", "segment", "unet features", "self attention"],
            inputs=[
                *model_inputs(),
                frames_input(),
                *conditioning_inputs(),
                clip_vision_input(),
                seed_input("Noise depends on it and the frame's number."),
                setting_input("max_side", "frame.max_side", step=SIDE_MULTIPLE),
                advanced(setting_input("blocks", "feature.blocks")),
                advanced(setting_input("matching_block", "feature.matching_block")),
                advanced(setting_input("start_step", "modulation.step", automatic=AUTO)),
                advanced(setting_input("feature_step", "feature.step")),
                *sampling_inputs(),
                advanced(
                    setting_input(
                        "video_frames",
                        "video.frames",
                        "Set window_length of K-Means Init and Scene Context KNN to the same.",
                        base=preset("default", "svd"),
                        optional=True,
                    )
                ),
                advanced(
                    setting_input(
                        "layer",
                        "video.query_layer",
                        "Preview Features shows why. Stable Video Diffusion only.",
                        optional=True,
                    )
                ),
                advanced(
                    io.Int.Input("first_frame", default=0, min=0, max=10_000_000, optional=True, tooltip=FIRST_FRAME)
                ),
                *(
                    advanced(setting_input(name, f"feature.{name}", LAYERS, automatic="", optional=True))
                    for name in ("layers", "matching_layers")
                ),
                advanced(setting_input("noise", "sampling.noise", automatic=AUTO_CHOICE, optional=True)),
                tiles_input(),
            ],
            outputs=[FeaturesSocket.Output("features", display_name="features")],
        )

    @classmethod
    @log_peak("Extract Diffusion Features")
    @tell_widgets
    def execute(
        cls,
        model: Any,
        vae: Any,
        frames: Tensor,
        positive: Any = None,
        negative: Any = None,
        clip_vision: Any = None,
        video_frames: int = 0,
        layer: str = "spatial",
        first_frame: int = 0,
        **widgets: Any,
    ) -> io.NodeOutput:
        """Extract features."""
        backbone = open_backbone(model, vae, positive, negative, clip_vision)
        base = adapt_to_kind(preset("default", model_kind(model)), video_frames, layer)
        settings = read_settings(cls, base, widgets)
        frames = convert_frames(frames)
        features = extract_features(backbone, frames, settings, first_frame=first_frame, progress=NodeProgress())
        return io.NodeOutput(features)


class MaskedModulationUpsample(io.ComfyNode):
    """Coarse labels -> labels in full resolution (paper 4.3)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "stages",
            node_id="MaskedModulationUpsample",
            display_name="Masked Modulation Upsample",
            description="Find the pixels of each region: modulate its cells up and down inside the model and see which "
            "pixels of the picture respond. The slow one: two short samplings per region and frame. Last of the five "
            "VidSeg stages; without it regions have blocky edges.",
            search_aliases=["vidseg", "upscale mask", "refine edges", "modulation"],
            inputs=[
                *model_inputs(),
                FeaturesSocket.Input(
                    "features", tooltip="From Extract Diffusion Features, of the same clip as the labels."
                ),
                LabelsSocket.Input("labels", tooltip="Coarse labels, from Correspondence Refine or Scene Context KNN."),
                *conditioning_inputs(),
                advanced(setting_input("modulation_factor", "modulation.factor", step=1.0)),
                advanced(setting_input("filter_strength", "difference.filter_strength", step=0.05)),
                advanced(setting_input("modulation_step", "modulation.step", automatic=AUTO)),
                advanced(setting_input("block", "modulation.block", automatic=AUTO)),
                advanced(setting_input("blending", "modulation.blending")),
                advanced(setting_input("normalize", "difference.normalize")),
                *sampling_inputs(),
                quality_input(optional=True),
            ],
            outputs=[LabelsSocket.Output("full_labels", display_name="labels")],
        )

    @classmethod
    @log_peak("Masked Modulation Upsample")
    @tell_widgets
    def execute(
        cls,
        model: Any,
        vae: Any,
        features: Features,
        labels: Labels,
        steps: int,
        positive: Any = None,
        negative: Any = None,
        quality: str = "exact",
        **widgets: Any,
    ) -> io.NodeOutput:
        """Modulate and compare."""
        backbone = open_backbone(model, vae, positive, negative, reads_frames=False)
        require_features_of(labels, features)
        base = preset("default", model_kind(model))
        last = {} if base.feature.layers else {"feature.step": steps - 1}
        settings = read_settings(cls, base, {**widgets, "steps": steps}, last)
        settings = with_quality(settings, quality)
        require_served(settings, backbone.info.kind, backbone.info.name)
        shares = {stage: share for stage, share in expect_stage_shares(settings).items() if stage != "features"}
        progress = NodeProgress(shares)  # the features are there already
        progress.start(features.num_frames, features.num_frames)
        full = upsample(backbone, features, labels, settings, progress=progress)
        return io.NodeOutput(Labels(full.maps, full.regions, full.frame_size, full.leaves, labels.scan))
