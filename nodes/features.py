"""First stage: features of frames (paper 4.1)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..core.backbones.comfy.load import model_kind, open_backbone
from ..core.config.parts import FEATURE_BLOCKS
from ..core.config.settings import preset, replace_parts
from ..core.method.features import extract_features
from .host.frames import convert_frames
from .host.progress import NodeProgress, log_peak
from .host.schema import (
    AUTO,
    advanced,
    block_input,
    choice_input,
    chosen,
    clip_vision_input,
    conditioning_inputs,
    frames_input,
    max_side_input,
    model_inputs,
    sampling_inputs,
    schema,
    seed_input,
    step_input,
)
from .host.schema import Features as FeaturesSocket
from .host.settings import adapt_to_kind, find_modulated_step, name_widgets
from .host.text import parse_blocks

_DEFAULT = preset("default")


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
                frames_input(),
                *conditioning_inputs(),
                clip_vision_input(),
                seed_input(
                    config.sampling.seed,
                    "Seed of the noise. The noise of a frame depends on it and the frame's number.",
                ),
                max_side_input(config.frame.max_side),
                advanced(
                    io.String.Input(
                        "blocks",
                        default=", ".join(map(str, config.feature.blocks)),
                        tooltip="Decoder blocks whose features are averaged, of 6, 7 and 8: only these fit the coarse "
                        "grid.",
                    )
                ),
                block_input(
                    "matching_block",
                    config.feature.matching_block,
                    FEATURE_BLOCKS,
                    "Decoder block, 6 to 8, whose features find the same spot in the next frame.",
                ),
                step_input(
                    "start_step",
                    AUTO,
                    "Step at whose noise level denoising starts: the smaller, the more noise. -1: 22 for Stable "
                    "Diffusion, 17 for Stable Video Diffusion.",
                ),
                step_input(
                    "feature_step",
                    config.feature.step,
                    "Step at which features are read, counted from 0; the last one is best.",
                ),
                *sampling_inputs(config.sampling),
                advanced(
                    io.Int.Input(
                        "video_frames",
                        default=preset("default", "svd").video.frames,
                        min=1,
                        max=1000,
                        optional=True,
                        tooltip="Stable Video Diffusion only: frames that it sees together, 14; for SVD-XT 25. Set "
                        "window_length of K-Means Init and Scene Context KNN to the same.",
                    )
                ),
                choice_input(
                    "layer",
                    ["spatial", "temporal"],
                    "spatial",
                    "Stable Video Diffusion only: spatial attention makes good features. temporal shows in Preview "
                    "Features why the other does not: it changes from frame to frame.",
                    optional=True,
                ),
            ],
            outputs=[FeaturesSocket.Output("features", display_name="features")],
        )

    @classmethod
    @log_peak("Extract Diffusion Features")
    @name_widgets
    def execute(
        cls,
        model: Any,
        vae: Any,
        frames: Tensor,
        seed: int,
        max_side: int,
        blocks: str,
        matching_block: int,
        start_step: int,
        feature_step: int,
        steps: int,
        guidance_scale: float,
        positive: Any = None,
        negative: Any = None,
        clip_vision: Any = None,
        video_frames: int = 0,
        layer: str = "spatial",
    ) -> io.NodeOutput:
        """Extract features."""
        backbone = open_backbone(model, vae, positive, negative, clip_vision)
        base = adapt_to_kind(preset("default", model_kind(model)), video_frames, layer)
        settings = replace_parts(
            base,
            frame={"max_side": max_side},
            sampling={"seed": seed, "num_steps": steps, **chosen(guidance_scale=guidance_scale)},
            feature={"step": feature_step, "blocks": parse_blocks(blocks), "matching_block": matching_block},
            modulation={"step": find_modulated_step(base, start_step, steps)},
        )
        features = extract_features(backbone, convert_frames(frames), settings, progress=NodeProgress())
        return io.NodeOutput(features)
