"""The whole chain in one node, and the bundled model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..core.backbones.comfy_unet import ComfyBackbone
from ..core.config import PRESETS, changed, preset
from ..core.frames import check_frames
from ..core.pipeline import segment
from ..core.video import open_clip
from .images import as_frames, one_label_map
from .narrow_model import load_narrow_model
from .progress import NodeProgress
from .schema import Labels as LabelsSocket
from .schema import (
    advanced,
    conditioning_inputs,
    frames_input,
    max_side_input,
    model_inputs,
    num_clusters_input,
    schema,
    seed_input,
    window_length_input,
)
from .wires import Labels

_DEFAULT = preset("default")
ASSETS = Path(__file__).resolve().parent.parent / "assets"
DEMO_MODEL, DEMO_CLIP = ASSETS / "demo_model.safetensors", ASSETS / "demo_clip.mp4"


class HeldFrames:
    """`FrameSource` over frames in memory."""

    def __init__(self, frames: Tensor) -> None:
        """Hold ``frames`` ``(T,H,W,3)``."""
        self._frames = frames

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self._frames)

    def read(self, start: int, stop: int) -> Tensor:
        """Return frames ``start`` (included) to ``stop`` (excluded)."""
        return self._frames[start:stop]


class SegmentVideo(io.ComfyNode):
    """Frames -> labels in full resolution, with presets."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        config = _DEFAULT
        return schema(
            node_id="SegmentVideo",
            display_name="Segment Video",
            description="Divide a whole video into regions that keep their identity from frame to frame: no prompt, "
            "no clicks, no segmentation model. The five VidSeg stages in one box.",
            search_aliases=["vidseg", "video segmentation", "segment everything", "panoptic", "rotoscope"],
            inputs=[
                *model_inputs(),
                frames_input(),
                *conditioning_inputs(),
                io.MultiType.Input(
                    "mask",
                    [io.Mask, io.Image],
                    optional=True,
                    tooltip="A mask or label image of the FIRST frame: regions become its classes. Optional.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default=config.preset,
                    tooltip="default: what measures best. paper: as the paper writes it. reference: as its published "
                    "code does it, faults included. emerdiff: each frame alone.",
                ),
                num_clusters_input(config.cluster.num_clusters),
                seed_input(config.sampling.seed, "Seed of noise and K-means."),
                max_side_input(config.frame.max_side),
                io.Boolean.Input(
                    "fine_edges",
                    default=True,
                    tooltip="Find the pixels of each region (slow). Off: blocky edges, in a small part of the time.",
                ),
                advanced(window_length_input(0, "; 0 takes the preset's.", least=0)),
            ],
            outputs=[LabelsSocket.Output("labels", display_name="labels")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        frames: Tensor,
        preset: str,
        num_clusters: int,
        seed: int,
        max_side: int,
        fine_edges: bool,
        window_length: int,
        positive: Any = None,
        negative: Any = None,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        """Segment the clip."""
        backbone = ComfyBackbone(model, vae, positive, negative)
        frames = as_frames(frames)
        check_frames(frames)
        base = PRESETS[preset]
        settings = changed(
            base,
            cluster={"num_clusters": num_clusters},
            sampling={"seed": seed},
            frame={"max_side": max_side},
            modulation={"enabled": fine_edges and base.modulation.enabled},
            window={"length": window_length or base.window.length},
        )
        reference = None if mask is None else one_label_map(mask, "the first frame")
        maps, regions = segment(backbone, HeldFrames(frames), settings, reference=reference, progress=NodeProgress())
        return io.NodeOutput(Labels(maps, regions, (frames.shape[1], frames.shape[2]), coarse=False))


class LoadDemoModel(io.ComfyNode):
    """The bundled narrow checkpoint."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return schema(
            node_id="LoadDemoModel",
            display_name="Load Demo Model",
            description="A very small Stable Diffusion that comes with VidSeg, so that every example runs without a "
            "download, on a CPU too; and a short clip to try it on. A real checkpoint segments far better.",
            search_aliases=["vidseg", "checkpoint", "tiny model", "example model"],
            inputs=[],
            outputs=[
                io.Model.Output("model", display_name="model"),
                io.Vae.Output("vae", display_name="vae"),
                io.Conditioning.Output("positive", display_name="positive"),
                io.Conditioning.Output("negative", display_name="negative"),
                io.Image.Output("frames", display_name="frames"),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """Load the model and the clip."""
        loaded = load_narrow_model(DEMO_MODEL)
        with open_clip(DEMO_CLIP) as clip:
            return io.NodeOutput(*loaded, clip.read(0, clip.num_frames))
