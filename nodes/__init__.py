"""The nodes of the pack; imported by the host alone."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .coarse import CorrespondenceRefine, KMeansInit, SceneContextKNN
from .corrections import CorrectRegions
from .features import ExtractDiffusionFeatures
from .files import LoadRegions, SaveRegions
from .fine import MaskedModulationUpsample
from .handing import (
    ExportRegions,
    FinishMask,
    RegionsToSEGS,
    RegionsToTracker,
    SplitInstances,
)
from .picking import PickRegions
from .previews import PreviewFeatures, PreviewRegions
from .regions import AssignRegionsFromMask, NameRegions, RegionsToMask, RegionsToMasks
from .scenes import ApplyScene, LoadScene, SaveScene
from .scores import ScoreRegions
from .whole import LoadDemoModel, SegmentVideo

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
    RegionsToSEGS,
    RegionsToTracker,
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
