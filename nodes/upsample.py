"""Last stage: regions in full resolution (paper 4.3)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.backbones.comfy.load import model_kind, open_backbone
from ..core.config.parts import ATTENTION_BLOCKS
from ..core.config.settings import preset, replace_parts, with_quality
from ..core.method.estimate import expect_stage_shares
from ..core.method.upsampling import upsample
from ..core.types import Features
from .host.labels import Labels, require_features_of
from .host.progress import NodeProgress, log_peak
from .host.schema import (
    AUTO,
    advanced,
    block_input,
    choice_input,
    chosen,
    conditioning_inputs,
    model_inputs,
    quality_input,
    sampling_inputs,
    schema,
    step_input,
)
from .host.schema import Features as FeaturesSocket
from .host.schema import Labels as LabelsSocket
from .host.settings import find_modulated_step, name_widgets

_DEFAULT = preset("default")


class MaskedModulationUpsample(io.ComfyNode):
    """Coarse labels -> labels in full resolution (paper 4.3)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        sampling, modulation, difference = _DEFAULT.sampling, _DEFAULT.modulation, _DEFAULT.difference
        return schema(
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
                io.Float.Input(
                    "modulation_factor",
                    default=modulation.factor,
                    min=0.1,
                    max=1000.0,
                    step=1.0,
                    tooltip="How strongly a region is modulated (lambda of the paper).",
                ),
                io.Float.Input(
                    "filter_strength",
                    default=difference.filter_strength,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Weight of pixels outside a region's coarse cells: smaller keeps closer to the cells, 1 "
                    "turns the filter off.",
                ),
                step_input(
                    "modulation_step",
                    AUTO,
                    "Step at which regions are modulated, counted from 0. Earlier is slower. -1: 22 for Stable "
                    "Diffusion, 17 for Stable Video Diffusion.",
                ),
                block_input(
                    "block",
                    AUTO,
                    ATTENTION_BLOCKS,
                    "Decoder block that is modulated, 3 to 11. -1: 7 for Stable Diffusion, 8 for Stable Video "
                    "Diffusion.",
                ),
                choice_input(
                    "attention",
                    ["cross", "self"],
                    modulation.attention,
                    "Attention layer whose output is modulated; both give the same result.",
                ),
                choice_input(
                    "blending",
                    ["all", "first", "none"],
                    modulation.blending,
                    "Restore the picture outside the region after every step, after the first two, or never.",
                ),
                advanced(
                    io.Boolean.Input(
                        "normalize",
                        default=difference.normalize,
                        tooltip="Scale each region's response to its own maximum, which helps faint regions.",
                    )
                ),
                *sampling_inputs(sampling),
                quality_input(optional=True),
            ],
            outputs=[LabelsSocket.Output("full_labels", display_name="labels")],
        )

    @classmethod
    @log_peak("Masked Modulation Upsample")
    @name_widgets
    def execute(
        cls,
        model: Any,
        vae: Any,
        features: Features,
        labels: Labels,
        modulation_factor: float,
        filter_strength: float,
        modulation_step: int,
        block: int,
        attention: str,
        blending: str,
        normalize: bool,
        steps: int,
        guidance_scale: float,
        positive: Any = None,
        negative: Any = None,
        quality: str = "exact",
    ) -> io.NodeOutput:
        """Modulate and compare."""
        backbone = open_backbone(model, vae, positive, negative, reads_frames=False)
        require_features_of(labels, features)
        base = preset("default", model_kind(model))
        settings = replace_parts(
            base,
            sampling={"num_steps": steps, **chosen(guidance_scale=guidance_scale)},
            feature={"step": steps - 1},
            modulation={
                **chosen(block=block),
                "step": find_modulated_step(base, modulation_step, steps),
                "factor": modulation_factor,
                "attention": attention,
                "blending": blending,
            },
            difference={"filter_strength": filter_strength, "normalize": normalize},
        )
        settings = with_quality(settings, quality)
        shares = {stage: share for stage, share in expect_stage_shares(settings).items() if stage != "features"}
        progress = NodeProgress(shares)  # the features are there already
        progress.start(features.num_frames, features.num_frames)
        full = upsample(backbone, features, labels, settings, progress=progress)
        return io.NodeOutput(Labels(full.maps, full.regions, full.frame_size, labels.scan))
