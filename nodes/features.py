"""First stage: features of frames (paper 4.1)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..core.backbones.comfy_unet import ComfyBackbone
from ..core.config import changed, preset
from ..core.pipeline import extract_features
from .images import as_frames
from .progress import NodeProgress
from .schema import Features as FeaturesSocket
from .schema import (
    advanced,
    block_input,
    conditioning_inputs,
    frames_input,
    max_side_input,
    model_inputs,
    sampling_inputs,
    schema,
    seed_input,
    step_input,
)
from .selection import block_numbers

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
                seed_input(
                    config.sampling.seed,
                    "Seed of the noise. The noise of a frame depends on it and the frame's number.",
                ),
                max_side_input(config.frame.max_side),
                advanced(
                    io.String.Input(
                        "blocks",
                        default=", ".join(map(str, config.feature.blocks)),
                        tooltip="Decoder blocks (3 to 11) whose features are averaged.",
                    )
                ),
                block_input(
                    "matching_block",
                    config.feature.matching_block,
                    "Decoder block whose features find the same spot in the next frame.",
                ),
                step_input(
                    "start_step",
                    config.start_step,
                    "Step at whose noise level denoising starts: the smaller, the more noise.",
                ),
                step_input(
                    "feature_step",
                    config.feature.step,
                    "Step at which features are read, counted from 0; the last one is best.",
                ),
                *sampling_inputs(config.sampling),
            ],
            outputs=[FeaturesSocket.Output("features", display_name="features")],
        )

    @classmethod
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
    ) -> io.NodeOutput:
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
