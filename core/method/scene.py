"""The scene of one clip in a file: its regions, their names, and cells that stand for them, for other clips."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from ..config.settings import Settings
from ..documents import maybe, parse_document, record, region_pairs, whole
from ..leaves import Leaves
from ..regions.cutting import LEAVES, describe_leaves, restore_leaves
from ..regions.labels import reduce_reference, spread_indices
from ..types import (
    AnchorLabels,
    Features,
    InputError,
    LabelMaps,
    Progress,
    Region,
    list_labels,
    no_progress,
)
from .coarse import CoarseScan, scan_clip
from .context import SceneContext
from .tokens import normalize_tokens

FORMAT = 1
"""Version of the file's layout."""
_KEY = "vidseg.scene"
_HEADER = record({"format": whole(1, 1000), "regions": region_pairs}, leaves=maybe(LEAVES), recent=whole(0, 2**31))


class Scene(NamedTuple):
    """What is known of a scene.

    Attributes:
        tokens: ``(M,C)`` float32, normalized features of cells that stand for the regions.
        labels: ``(M,)`` int64: of regions, or of leaves where there are some.
        regions: the regions.
        leaves: what these are made of, without maps; None where each is one cluster.
        recent: how many tokens at the end are of the window before; they give way to those of the next one.
    """

    tokens: Tensor
    labels: Tensor
    regions: tuple[Region, ...]
    leaves: Leaves | None = None
    recent: int = 0

    def get_ram_usage(self) -> int:
        """Return the size in bytes; hosts call this to decide what to keep in their cache."""
        return sum(t.numel() * t.element_size() for t in (self.tokens, self.labels))

    def to_bytes(self) -> bytes:
        """Return the content of the scene's file (safetensors)."""
        tensors = {"tokens": self.tokens.cpu().contiguous(), "labels": self.labels.cpu().contiguous()}
        record = {"format": FORMAT, "regions": self.regions, "leaves": self.leaves and describe_leaves(self.leaves)}
        record |= {"recent": self.recent} if self.recent else {}
        return serialize(tensors, {_KEY: json.dumps(record)})

    @classmethod
    def load(cls, path: Path) -> Scene:
        """Read a scene from a file of `to_bytes`."""
        try:
            with safe_open(path, "pt") as file:
                header = parse_document(file.metadata()[_KEY], _HEADER)
                tokens, labels = file.get_tensor("tokens"), file.get_tensor("labels")
            regions, version, made_of = header["regions"], header["format"], header.get("leaves")
            leaves = made_of and restore_leaves(torch.empty(0, dtype=torch.uint8), made_of)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"`{path.name}` must be a scene file, but got: {error}. Save the scene again.") from error
        scene = cls(tokens, labels, regions, leaves, header.get("recent", 0))
        problem = _find_fault(scene) if version == FORMAT else f"format {version}, which is newer than this program"
        if problem:
            raise InputError(f"`{path.name}` must be a scene file, but has {problem}. Save the scene again.")
        return scene._replace(tokens=tokens.float(), labels=labels.long())


def _find_fault(scene: Scene) -> str:
    """Return what is wrong with a scene, or nothing."""
    if scene.tokens.ndim != 2 or scene.labels.shape != scene.tokens.shape[:1] or not len(scene.labels):
        return f"tokens of shape {tuple(scene.tokens.shape)} and labels of shape {tuple(scene.labels.shape)}"
    if scene.labels.is_floating_point() or scene.labels.is_complex() or not scene.tokens.is_floating_point():
        return f"tokens of {scene.tokens.dtype} and labels of {scene.labels.dtype}"
    if not bool(scene.tokens.isfinite().all()):
        return "tokens that are not finite"
    if scene.recent >= len(scene.labels):
        return f"{scene.recent} recent tokens of {len(scene.labels)}"
    known = range(len(scene.leaves.owners)) if scene.leaves else list_labels(scene.regions)
    unknown = set(torch.unique(scene.labels).tolist()) - set(known)
    return f"labels without region: {sorted(unknown)}" if unknown else ""


def choose_scene(features: Features, labels: LabelMaps, config: SceneFileConfig | None = None) -> Scene:
    """Choose cells that stand for the regions of ``(T,h,w)`` or ``(T,H,W)`` labels: as many of each, spread out."""
    if len(labels.maps) != features.num_frames:
        raise InputError(
            f"`labels` must have as many frames as `features`, {features.num_frames}, but got {len(labels.maps)}. "
            "Take both of the same clip."
        )
    limit, leaves = (config or SceneFileConfig()).tokens_per_region, labels.leaves
    if leaves:
        limit = max(1, limit * len(labels.regions) // len(leaves.owners))
    maps = leaves.maps if leaves else labels.maps
    cells = torch.stack([reduce_reference(frame, (features.grid.h, features.grid.w)) for frame in maps])
    flat = cells.flatten().long().cpu()
    index = spread_indices(flat, limit)
    tokens = normalize_tokens(features.queries.flatten(0, 1)[index].float().cpu())
    return Scene(tokens, flat[index], labels.regions, _without_maps(leaves))


def _without_maps(leaves: Leaves | None) -> Leaves | None:
    """Return leaves as a scene keeps them."""
    return leaves and leaves._replace(maps=torch.empty(0, dtype=torch.uint8), votes=None)


def label_by_scene(
    scene: Scene, features: Features, settings: Settings, *, progress: Progress = no_progress
) -> tuple[LabelMaps, Scene]:
    """Label a clip by a scene, window by window: each cell takes the label of its nearest known cells (paper 4.1-4.2).

    The scene, of this or another clip by the same model, stays in the scene context; the previous window is added.
    Also returns the scene for the frames that follow: with it, parts of whole windows get the labels of the whole clip.
    """
    channels = int(features.queries.shape[-1])
    if scene.tokens.shape[1] != channels:
        raise InputError(
            f"`scene` must be of a model with {channels} channels, but got {scene.tokens.shape[1]}. Use the model that "
            "the scene was saved with."
        )
    known = SceneContext(scene.tokens, scene.labels, settings.context, num_anchor=len(scene.labels) - scene.recent)
    no_anchor = AnchorLabels(0, torch.empty(0), scene.regions, scene.leaves)  # the scene stands for it
    scan = CoarseScan(no_anchor, settings, known)
    labels = scan_clip(features, scan, progress=progress)
    return labels, _scene_of(scan.context or known, scan.anchor_labels)


def _scene_of(context: SceneContext, found: AnchorLabels) -> Scene:
    """Return what a scan knows after its last window."""
    tokens, labels = context.tokens.cpu(), context.labels.cpu()
    return Scene(tokens, labels, found.regions, _without_maps(found.leaves), len(labels) - context.num_anchor)


@dataclass(frozen=True)
class SceneFileConfig:
    """What of a clip a scene file holds (ours, chosen)."""

    tokens_per_region: int = 256
    """Cells of each region that stand for it, spread over the clip."""
