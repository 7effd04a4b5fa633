"""The whole chain in one node."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..core.backbones.comfy.load import model_kind, open_backbone
from ..core.backbones.protocol import SIDE_MULTIPLE, FeatureBackbone
from ..core.config.settings import PRESETS, Settings, require_served, with_quality
from ..core.config.settings import preset as preset_for
from ..core.files.disk import LabelStore
from ..core.method.estimate import announce, expect_stage_shares
from ..core.method.frames import FrameSource
from ..core.method.pipeline import segment_windows
from ..core.types import LabelMaps
from .host.frames import convert_label_map, find_temporary_folder, open_source, tell_stretched
from .host.labels import Labels
from .host.progress import NodeProgress, log_peak
from .host.schema import Labels as LabelsSocket
from .host.schema import (
    adapt_to_kind,
    advanced,
    clip_vision_input,
    conditioning_inputs,
    frames_input,
    granularity_input,
    model_inputs,
    quality_input,
    read_settings,
    schema,
    seed_input,
    setting_input,
    tell_widgets,
    tiles_input,
)


class SegmentVideo(io.ComfyNode):
    """Frames -> labels in full resolution, with presets."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            "stages",
            node_id="SegmentVideo",
            display_name="Segment Video",
            description="Divide a whole video into regions that keep their identity from frame to frame: no prompt, "
            "no clicks, no segmentation model. The five VidSeg stages in one box.",
            search_aliases=["vidseg", "video segmentation", "segment everything", "panoptic", "rotoscope"],
            inputs=[
                *model_inputs(),
                frames_input(optional=True),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="A video instead of frames, from Load Video: frames are decoded as they are needed and "
                    "labels kept on disk, so that a clip of any length fits into memory.",
                ),
                *conditioning_inputs(),
                io.MultiType.Input(
                    "mask",
                    [io.Mask, io.Image],
                    optional=True,
                    tooltip="A mask or label image of the FIRST frame: regions become its classes. Optional.",
                ),
                clip_vision_input(),
                setting_input("preset", "preset", options=list(PRESETS)),
                setting_input("num_clusters", "cluster.num_clusters"),
                seed_input(""),
                setting_input("max_side", "frame.max_side", step=SIDE_MULTIPLE),
                quality_input(),
                advanced(setting_input("window_length", "window.length", "0 takes the preset's.", automatic=0)),
                advanced(granularity_input()),
                tiles_input(),
                advanced(setting_input("motion", "cluster.motion", step=0.05, optional=True)),
            ],
            outputs=[LabelsSocket.Output("labels", display_name="labels")],
        )

    @classmethod
    @log_peak("Segment Video")
    @tell_widgets
    def execute(
        cls,
        model: Any,
        vae: Any,
        preset: str,
        quality: str,
        window_length: int,
        frames: Tensor | None = None,
        video: Any = None,
        positive: Any = None,
        negative: Any = None,
        clip_vision: Any = None,
        mask: Tensor | None = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        """Segment the clip."""
        backbone = open_backbone(model, vae, positive, negative, clip_vision)
        base = adapt_to_kind(preset_for(preset, model_kind(model)), window_length)
        settings = read_settings(cls, with_quality(base, quality), {**widgets, "window_length": window_length})
        require_served(settings, backbone.info.kind, backbone.info.name)
        reference = None if mask is None else convert_label_map(mask, "the first frame")
        progress = NodeProgress(expect_stage_shares(settings))
        with open_source(frames, video, progress) as (source, size):
            found = _segmented(backbone, source, size, settings, reference, progress)
        told = "" if reference is None else tell_stretched(reference, size)
        labels = Labels(found.maps, found.regions, size, found.leaves)
        return io.NodeOutput(labels, ui=ui.PreviewText(told) if told else None)


def _segmented(
    backbone: FeatureBackbone,
    source: FrameSource,
    size: tuple[int, int],
    settings: Settings,
    reference: Tensor | None,
    progress: NodeProgress,
) -> LabelMaps:
    """Segment window by window; labels go to a temporary file that is mapped, not held."""
    announce(progress, backbone, settings, size, source.num_frames)
    progress.start(source.num_frames, settings.video.frames or settings.window.length)
    with ExitStack() as files:
        make = partial(LabelStore, find_temporary_folder(), source.num_frames, size)
        store, leaf_store = files.enter_context(make()), None
        for window in segment_windows(backbone, source, settings, reference=reference, progress=progress):
            labels = window.labels
            store.write(window.frames.start, labels.maps)
            if labels.leaves:
                leaf_store = leaf_store or files.enter_context(make())
                leaf_store.write(window.frames.start, labels.leaves.maps)
            progress.window_done(window.frames.stop)
        leaves = labels.leaves and leaf_store and labels.leaves._replace(maps=leaf_store.maps())
        return LabelMaps(store.maps(), labels.regions, size, leaves)
