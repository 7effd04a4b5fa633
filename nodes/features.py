"""First stage: features of frames (paper 4.1)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..core.backbones.comfy.load import model_kind, open_backbone
from ..core.config.settings import preset
from ..core.method.features import extract_features
from ..core.types import SIDE_MULTIPLE
from .host.frames import convert_frames
from .host.progress import NodeProgress, log_peak
from .host.schema import (
    AUTO,
    advanced,
    clip_vision_input,
    conditioning_inputs,
    frames_input,
    model_inputs,
    sampling_inputs,
    schema,
    seed_input,
    setting_input,
)
from .host.schema import Features as FeaturesSocket
from .host.settings import adapt_to_kind, read_settings, tell_widgets


class ExtractDiffusionFeatures(io.ComfyNode):
    """Frames -> features (paper 4.1)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            node_id="ExtractDiffusionFeatures",
            display_name="Extract Diffusion Features",
            description="Add a little noise to each frame, let the model denoise it, and keep what its self-attention "
            "looks for. Pixels of the same thing get similar features. First of the five VidSeg stages.",
            search_aliases=["vidseg", "video segmentation", "segment", "unet features", "self attention"],
            inputs=[
                *model_inputs(),
                frames_input(),
                *conditioning_inputs(),
                clip_vision_input(),
                seed_input("The noise of a frame depends on it and the frame's number."),
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
        **widgets: Any,
    ) -> io.NodeOutput:
        """Extract features."""
        backbone = open_backbone(model, vae, positive, negative, clip_vision)
        base = adapt_to_kind(preset("default", model_kind(model)), video_frames, layer)
        settings = read_settings(cls, base, widgets)
        features = extract_features(backbone, convert_frames(frames), settings, progress=NodeProgress())
        return io.NodeOutput(features)
