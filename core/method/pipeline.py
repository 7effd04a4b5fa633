"""The order of stages and windows, nothing else (paper, figure 2).

frames -> features -> anchor labels -> coarse maps (scene context, refinement) -> label maps (masked modulation)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from ..backbones.protocol import FeatureSource, require_modulation
from ..config.parts import ContextConfig
from ..config.settings import Settings, require_served
from ..documents import maybe, number, parse_document, record, region_pairs, whole
from ..leaves import TokenScales
from ..regions.cutting import LEAVES, describe_leaves, join_maps, restore_leaves
from ..regions.labels import name_anchor
from ..types import VOID, AnchorLabels, Features, InputError, LabelMaps, Progress, no_progress
from .clustering import cluster_anchor, gather_tokens, name_clusters_by_number
from .coarse import CoarseScan, start_context
from .context import SceneContext
from .features import extract_features, extract_windows
from .frames import FrameSource
from .leaf_growing import grow_leaves
from .tokens import with_flow
from .upsampling import upsample
from .windows import Span, require_kind, split_context_windows, split_spans, spread_frames

_COUNT = whole(0, 1 << 31)
_STATE = record(
    {
        "next_window": _COUNT,
        "anchor": _COUNT,
        "regions": region_pairs,
        "leaves": maybe(LEAVES),
        "place": number(0, sys.float_info.max),
        "motion": number(0, sys.float_info.max),
    }
)


class WindowResult(NamedTuple):
    """What one window gives, by whichever method.

    Attributes:
        frames: numbers of its frames in the clip.
        labels: their label maps, in full resolution.
        coarse: the same on the coarse grid, where the method has one.
        state: the scan after the window, where a run can go on from it.
    """

    frames: range
    labels: LabelMaps
    coarse: LabelMaps | None = None
    state: ScanState | None = None


def label_anchor(
    features: Features,
    settings: Settings,
    reference: Tensor | None = None,
    *,
    anchor: int = 0,
    progress: Progress = no_progress,
) -> AnchorLabels:
    """Divide the anchor frame, and name regions by a reference ``(H,W)`` uint8 if there is one (paper 4.1, 5.1)."""
    config, seed, length = settings.cluster, settings.sampling.seed, settings.window.length
    tokens = gather_tokens(features, config, anchor, length)
    if config.method == "tree":
        familiar = settings.scene.new_similarity
        found = grow_leaves(tokens, features.grid, config, seed, familiar=familiar, progress=progress)
    else:
        found = name_clusters_by_number(cluster_anchor(tokens, features.grid, config, seed, progress=progress))
    found = found._replace(anchor=anchor, scales=tokens.scales)
    if reference is None:
        return found
    ignore = None if settings.variant == "published" else VOID  # void pixels vote on names in the published code
    return name_anchor(found, reference, ignore=ignore, named=config.named)


def segment_windows(
    backbone: FeatureSource,
    source: FrameSource,
    settings: Settings,
    *,
    reference: Tensor | None = None,
    state: ScanState | None = None,
    progress: Progress = no_progress,
) -> Iterator[WindowResult]:
    """Segment a clip window by window, in memory that does not depend on its length; yield the results in order.

    ``reference`` ``(H,W)`` are labels of the first frame that name the clusters. ``state`` of the last finished window
    continues a run; labels equal those of a run in one go. Where windows overlap the later result is the valid one.
    """
    if source.num_frames < 1:
        raise InputError("`source` must hold at least one frame, but got none.")
    require_kind(backbone, settings)
    if settings.modulation.enabled:  # before long work
        require_served(settings, backbone.info.kind, backbone.info.name)
        require_modulation(backbone)
    work = split_spans(source.num_frames, settings)
    state = state or start_from_clip(backbone, source, settings, reference=reference, progress=progress)
    left = work[state.next_window if state else 0 :]
    for span, features in extract_windows(backbone, source, left, settings, progress):
        coarse, state = scan_window(features, span, settings, state, reference=reference, progress=progress)
        labels = upsample(backbone, features, coarse, settings, progress=progress)
        yield WindowResult(span.kept, labels, coarse, state)


def start_from_clip(
    backbone: FeatureSource,
    source: FrameSource,
    settings: Settings,
    *,
    reference: Tensor | None = None,
    progress: Progress = no_progress,
) -> ScanState | None:
    """Return the scan before the first window, where leaves are fitted on frames of the whole clip; else None.

    Those frames are read for it by themselves, as many as a window has, and again in their windows.
    """
    if settings.cluster.fit_frames != "clip":
        return None
    numbers, queries = spread_frames(source.num_frames, settings.window), []
    for done, frame in enumerate(numbers, 1):
        features = extract_features(backbone, source.read(frame, frame + 1), settings, first_frame=frame)
        queries.append(features.queries)
        progress("frames of the whole clip", done, len(numbers))
    seen = features._replace(queries=torch.cat(queries), pictures=None)
    anchor_labels = label_anchor(seen, settings, reference, progress=progress)
    return ScanState(0, anchor_labels, start_context(seen, anchor_labels, settings))


def scan_window(
    features: Features,
    span: Span,
    settings: Settings,
    state: ScanState | None = None,
    *,
    reference: Tensor | None = None,
    progress: Progress = no_progress,
) -> tuple[LabelMaps, ScanState]:
    """Return the coarse maps of the next window, and the scan after it; it needs the queries of ``features`` alone.

    Without a ``state`` the window is the first of the clip, whose anchor frame is divided first.
    """
    if state is None:
        features = with_flow(features) if settings.cluster.motion else features  # once for all that ask for it
        anchor_labels, context, number = label_anchor(features, settings, reference, progress=progress), None, 0
    else:
        anchor_labels, context, number = state.anchor_labels, state.context, state.next_window
    scan = CoarseScan(anchor_labels, settings, context)
    parts = [scan.step(features.window(part.start, part.stop)) for part in split_context_windows(span, settings)]
    if scan.context is None:
        raise RuntimeError("a window was labeled without a scene context")
    return join_maps(parts), ScanState(number + 1, scan.anchor_labels, scan.context)


def segment(
    backbone: FeatureSource,
    source: FrameSource,
    settings: Settings,
    *,
    reference: Tensor | None = None,
    progress: Progress = no_progress,
) -> LabelMaps:
    """Segment a whole clip that fits into memory, ``(T,H,W)`` uint8; see `segment_windows`."""
    maps = leaves = None
    for result in segment_windows(backbone, source, settings, reference=reference, progress=progress):
        last = result.labels
        maps = _put(maps, last.maps, result.frames, source.num_frames)
        if last.leaves:
            leaves = _put(leaves, last.leaves.maps, result.frames, source.num_frames)
    if maps is None:
        raise InputError("`source` must hold at least one frame, but got none.")
    made_of = None if last.leaves is None or leaves is None else last.leaves._replace(maps=leaves)
    return LabelMaps(maps, last.regions, last.frame_size, made_of)


def _put(whole: Tensor | None, maps: Tensor, frames: range, num_frames: int) -> Tensor:
    """Return maps of the whole clip with those of some frames."""
    if whole is None:
        whole = maps.new_zeros((num_frames, *maps.shape[1:]))
    whole[frames.start : frames.stop] = maps
    return whole


class ScanState(NamedTuple):
    """The scan after a window.

    Attributes:
        next_window: index of the first window that is not finished; 0 before the first, where it needs a context.
        anchor_labels: labels of the anchor frame.
        context: scene context for that window.
    """

    next_window: int
    anchor_labels: AnchorLabels
    context: SceneContext

    def to_bytes(self) -> bytes:
        """Return the content of the state's file (safetensors)."""
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.context.to_tensors().items()}
        anchor, cluster_map, regions, leaves, scales, _ = self.anchor_labels
        tensors["cluster_map"] = cluster_map.contiguous()
        if leaves:
            tensors["leaf_map"] = leaves.maps.contiguous()
        header = {
            "next_window": self.next_window,
            "anchor": anchor,
            "regions": regions,
            "leaves": leaves and describe_leaves(leaves),
            **scales._asdict(),
        }
        return serialize(tensors, {"vidseg.state": json.dumps(header)})

    @classmethod
    def load(cls, path: Path, config: ContextConfig, device: torch.device | str = "cpu") -> ScanState:
        """Read a state from a file of `to_bytes`."""
        try:
            with safe_open(path, "pt", str(device)) as file:
                header = parse_document(file.metadata()["vidseg.state"], _STATE)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
            cluster_map, leaf_map = tensors.pop("cluster_map").cpu(), tensors.pop("leaf_map", None)
            made_of = header["leaves"]
            leaves = None if leaf_map is None or made_of is None else restore_leaves(leaf_map.cpu(), made_of)
            context = SceneContext.from_tensors(tensors, config)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"`{path.name}` must be the state of a run, but got: {error}. Start the run anew."
            ) from error
        scales = TokenScales(header["place"], header["motion"])
        anchor_labels = AnchorLabels(header["anchor"], cluster_map, header["regions"], leaves, scales)
        return cls(header["next_window"], anchor_labels, context)
