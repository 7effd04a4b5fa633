"""Last stage: regions in full resolution (paper 4.3)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.backbones.comfy.load import model_kind, open_backbone
from ..core.config.settings import preset, with_quality
from ..core.method.estimate import expect_stage_shares
from ..core.method.upsampling import upsample
from ..core.types import Features
from .host.labels import Labels, require_features_of
from .host.progress import NodeProgress, log_peak
from .host.schema import (
    AUTO,
    advanced,
    conditioning_inputs,
    model_inputs,
    quality_input,
    sampling_inputs,
    schema,
    setting_input,
)
from .host.schema import Features as FeaturesSocket
from .host.schema import Labels as LabelsSocket
from .host.settings import read_settings, tell_widgets


class MaskedModulationUpsample(io.ComfyNode):
    """Coarse labels -> labels in full resolution (paper 4.3)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
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
                setting_input("modulation_factor", "modulation.factor", step=1.0),
                setting_input("filter_strength", "difference.filter_strength", step=0.05),
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
        settings = read_settings(cls, base, {**widgets, "steps": steps}, {"feature.step": steps - 1})
        settings = with_quality(settings, quality)
        shares = {stage: share for stage, share in expect_stage_shares(settings).items() if stage != "features"}
        progress = NodeProgress(shares)  # the features are there already
        progress.start(features.num_frames, features.num_frames)
        full = upsample(backbone, features, labels, settings, progress=progress)
        return io.NodeOutput(Labels(full.maps, full.regions, full.frame_size, labels.scan))
