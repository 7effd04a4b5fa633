"""Nodes that only look at labels: the bar moves, Cancel works, and memory does not grow with the regions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from vidseg.core.regions.palette import PALETTE
from vidseg.core.types import Features, Grid, Region
from vidseg.nodes.host import progress
from vidseg.nodes.host.labels import Labels

from .graphs import call

Job = Callable[[], Any]
NUM_FRAMES, SIZE, NUM_REGIONS = 12, (20, 32), 32


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use folders of its own, and leave no interrupt behind."""
    for kind in ("output", "temp"):
        monkeypatch.setattr(folder_paths, f"get_{kind}_directory", lambda: str(tmp_path))
    yield
    comfy.model_management.interrupt_current_processing(False)


def columns() -> Labels:
    """One region for each column of the frame."""
    maps = torch.arange(NUM_REGIONS, dtype=torch.uint8).expand(NUM_FRAMES, *SIZE).contiguous()
    return Labels(maps, tuple(Region(label, f"region {label}") for label in range(NUM_REGIONS)), SIZE)


def features() -> Features:
    queries = torch.randn(NUM_FRAMES, 24, 8, generator=torch.Generator().manual_seed(1))
    latents = torch.zeros(NUM_FRAMES, 4, 8, 12)
    return Features(queries, queries, latents, latents, Grid(4, 6), (64, 96))


def jobs() -> dict[str, Job]:
    """Return what is to be run, by name."""
    labels, frames, everything = columns(), torch.rand(NUM_FRAMES, *SIZE, 3), f"0-{NUM_REGIONS - 1}"
    coarse = replace(labels, maps=labels.maps.long())
    points = "\n".join(f"0 {(label + 0.5) / NUM_REGIONS:.4f},0.5" for label in range(NUM_REGIONS))
    return {
        "KMeansInit": lambda: call("KMeansInit", features=features(), num_clusters=4, method="kmeans"),
        "KMeansInit, automatic": lambda: call("KMeansInit", features=features(), num_clusters=0, method="kmeans"),
        "FinishMask": lambda: call("FinishMask", mask=(labels.maps > 5).float(), feather=2, smooth_frames=3),
        "SplitInstances": lambda: call("SplitInstances", labels=labels),
        "RegionsToMask": lambda: call("RegionsToMask", labels=labels, regions=everything),
        "RegionsToMasks": lambda: call("RegionsToMasks", labels=coarse),
        "RegionsToSEGS": lambda: call("RegionsToSEGS", labels=labels),
        "RegionsToTracker": lambda: call("RegionsToTracker", labels=labels),
        "ExportRegions": lambda: call("ExportRegions", labels=labels),
        "SaveRegions": lambda: call("SaveRegions", labels=labels),
        "PickRegions": lambda: call("PickRegions", frames=frames, labels=labels, picks=points),
        "PreviewRegions": lambda: call("PreviewRegions", frames=frames, labels=labels, fps=8.0),
    }


@pytest.mark.parametrize("name", jobs())
def test_an_interrupt_before_or_during_a_node_ends_it_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job, shown, stop = jobs()[name], [], []
    original = progress.NodeProgress.__call__

    def watched(self: Any, stage: str, done: int, total: int) -> None:
        shown.append((stage, done, total))
        if [len(shown)] == stop:
            comfy.model_management.interrupt_current_processing()
        original(self, stage, done, total)

    monkeypatch.setattr(progress.NodeProgress, "__call__", watched)
    job()
    assert len(shown) >= NUM_FRAMES
    assert shown[-1][1] == shown[-1][2]
    for moment in (0, 2):
        shown.clear()
        stop[:] = [moment]
        comfy.model_management.interrupt_current_processing(moment == 0)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            job()
        assert len(shown) == max(1, moment)


class Largest(TorchDispatchMode):
    """Knows the size of the largest tensor that was made, bytes."""

    size = 0

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.size = max(self.size, result.nbytes if isinstance(result, Tensor) else 0)
        return result


LONG = (32, 96, 160)
"""Frames, height and width of a clip beside which what is held of a frame is small."""


def long_labels() -> Labels:
    maps = torch.zeros(LONG, dtype=torch.uint8)
    maps[:, :, 80:] = 1
    return Labels(maps, (Region(0, "region 0"), Region(1, "region 1")), LONG[1:])


def score(labels: Labels, masks: Tensor) -> Job:
    return lambda: call("ScoreRegions", labels=labels, masks=masks)


def load(labels: Labels) -> Job:
    folder = call("SaveRegions", labels=labels)
    return lambda: call("LoadRegions", folder=folder)


WHOLE_CLIP: dict[str, tuple[Callable[[Labels, Tensor], Job], int]] = {
    "load": (lambda labels, _colors: load(labels), 2),
    "score": (lambda labels, _colors: score(labels, labels.maps / 255), 2),
    "score, colors": (score, 2),
    "score, coarse": (lambda labels, colors: score(replace(labels, maps=labels.maps[:, ::16, ::16].long()), colors), 2),
    "preview": (lambda labels, colors: lambda: call("PreviewRegions", frames=colors, labels=labels), 12),
}
"""What sees all frames of labels and their colors, and the bytes a pixel of the largest tensor that it may make."""


@pytest.mark.parametrize("name", WHOLE_CLIP)
def test_no_tensor_beside_the_output_holds_the_whole_clip(name: str) -> None:
    make, most = WHOLE_CLIP[name]
    labels = long_labels()
    job = make(labels, PALETTE[labels.maps.long()] / 255)
    with Largest() as largest:
        job()
    assert 0 < largest.size <= most * math.prod(LONG)


@pytest.mark.parametrize("name", ["RegionsToMask", "RegionsToTracker", "PickRegions"])
def test_no_tensor_holds_a_mask_of_each_region_and_frame(name: str) -> None:
    job = jobs()[name]
    with Largest() as largest:
        job()
    clip = columns().maps.numel()
    assert 0 < largest.size <= 12 * clip < NUM_REGIONS * clip  # frames have 12 bytes a pixel
