"""The nodes of the pack; imported by the host alone."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .coarse import CorrespondenceRefine, KMeansInit, SceneContextKNN
from .demo_model import LoadDemoModel
from .edit_clips import CropClip, FitMaskToModel, PasteClip
from .files import ExportRegions, LoadRegions, SaveRegions
from .masks import FinishMask, RegionsToMask, RegionsToMasks, RegionsToSEGS, RegionsToTracker
from .model_stages import ExtractDiffusionFeatures, MaskedModulationUpsample
from .pick_regions import PickRegions
from .previews import PreviewFeatures, PreviewRegions
from .regions import AssignRegionsFromMask, CorrectRegions, NameRegions, SplitInstances
from .scenes import ApplyScene, LoadScene, SaveScene
from .scores import ScoreRegions
from .segment_video import SegmentVideo
from .tracks import RegionsToQuadmask, RegionsToTrack, TrackToRegions

__all__ = ["NODES", "VidSegExtension"]

NODES: list[type[io.ComfyNode]] = [
    ExtractDiffusionFeatures,
    KMeansInit,
    SceneContextKNN,
    CorrespondenceRefine,
    MaskedModulationUpsample,
    SegmentVideo,
    NameRegions,
    PickRegions,
    AssignRegionsFromMask,
    CorrectRegions,
    SplitInstances,
    SaveScene,
    LoadScene,
    ApplyScene,
    FinishMask,
    FitMaskToModel,
    CropClip,
    PasteClip,
    RegionsToSEGS,
    RegionsToTracker,
    RegionsToTrack,
    TrackToRegions,
    RegionsToQuadmask,
    ExportRegions,
    RegionsToMask,
    RegionsToMasks,
    PreviewRegions,
    PreviewFeatures,
    SaveRegions,
    LoadRegions,
    ScoreRegions,
    LoadDemoModel,
]


class VidSegExtension(ComfyExtension):
    """What the host asks for the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return all nodes."""
        return NODES
