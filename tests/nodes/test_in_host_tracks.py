"""Regions as SAM 3's tracks and back, by the host's own nodes that read and make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from torch import Tensor
from vidseg.core.files.clip import open_clip
from vidseg.core.types import InputError
from vidseg.nodes.host.labels import Labels

from ..core.regions.test_tracks import scene as moving_things
from .graphs import call
from .test_in_host_edit_clips import host_node


def scene(width: int) -> Labels:
    maps = moving_things(width)
    return Labels(maps.maps, maps.regions)


@pytest.mark.parametrize("width", [64, 60, 58, 53])
@pytest.mark.parametrize("regions", ["left", "right, left", "0-9"])
def test_the_host_s_track_to_mask_equals_regions_to_mask_to_the_bit(width: int, regions: str) -> None:
    node, labels = host_node("nodes_sam3", "SAM3_TrackToMask"), scene(width)
    track, names = call("RegionsToTrack", labels=labels, regions=regions)
    assert torch.equal(node.execute(track, "").args[0], call("RegionsToMask", labels=labels, regions=regions))
    second = node.execute(track, "1").args[0] if "," in regions else None
    if second is not None:
        assert names == "right, left"
        assert torch.equal(second, call("RegionsToMask", labels=labels, regions="left"))


@pytest.mark.parametrize("width", [64, 58, 53])
def test_scail_paints_our_regions_in_order(width: int) -> None:
    node, labels = host_node("nodes_scail", "SCAIL2ColoredMask"), scene(width)
    track, _ = call("RegionsToTrack", labels=labels, regions="right, left")
    colored = node.execute(track, "", "none", False).args[0]
    for label, color in ((3, (0.0, 0.0, 1.0)), (2, (1.0, 0.0, 0.0)), (0, (0.0, 0.0, 0.0))):
        assert bool((colored[labels.maps == label] == torch.tensor(color)).all())


def test_nodes_take_a_track_back_with_names_over_labels() -> None:
    labels = scene(64)
    track, names = call("RegionsToTrack", labels=labels, regions="left, right")
    back = call("TrackToRegions", track_data=track, names=names)
    assert [region.name for region in back.regions] == ["background", "left", "right"]
    assert torch.equal(back.maps > 0, labels.maps > 0)
    over = call("TrackToRegions", track_data=track, names=names, labels=scene(64))
    assert torch.equal(over.maps > 0, labels.maps > 0)
    assert [region.name for region in over.regions] == ["ground", "left", "left", "right", "right", "absent"]


def test_masks_packed_by_the_host_are_read() -> None:
    host_node("nodes_sam3", "SAM3_TrackToMask")
    from comfy.ldm.sam3.tracker import pack_masks, unpack_masks  # noqa: PLC0415

    masks = torch.rand(2, 3, 10, 16, generator=torch.Generator().manual_seed(0)) > 0.6
    track = {"packed_masks": pack_masks(masks.float()), "n_frames": 2, "scores": [], "orig_size": (10, 16)}
    back = call("TrackToRegions", track_data=track)
    assert torch.equal(back.maps, torch.where(masks.any(1), 1 + masks.int().argmax(1), 0).byte())
    ours = call("RegionsToTrack", labels=back, regions="1-3")[0]["packed_masks"]
    assert torch.equal(unpack_masks(ours).sum(1) > 0, masks.any(1))


def test_the_host_s_preview_paints_our_regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node, labels = host_node("nodes_sam3", "SAM3_TrackPreview"), scene(64)
    labels.maps[:, -1] = labels.maps[:, 0] = 0
    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(tmp_path))
    track, _ = call("RegionsToTrack", labels=labels, regions="left, right")
    node.execute(track, torch.zeros(4, 30, 64, 3), 1.0, 8.0)
    (path,) = tmp_path.iterdir()
    with open_clip(path) as clip:
        shown = clip.read(0, clip.num_frames)
    assert shown.shape == (4, 30, 64, 3)
    painted = shown.amax(-1) > 0.2
    assert float((painted == (labels.maps > 0)).float().mean()) > 0.95


def test_void_reads_the_four_values() -> None:
    node, labels = host_node("nodes_void", "VOIDQuadmaskPreprocess"), scene(64)
    labels.maps[:, 15:20, 3:12] = 3  # touches the object
    grown: dict[str, Any] = {"grow_object": 2, "grow_affected": 2}
    mask: Tensor = call("RegionsToQuadmask", labels=labels, remove="left", affected="right", **grown)
    quad = node.execute(mask, 0).args[0] * 255
    assert quad.round().unique().tolist() == [0, 128, 192, 255]
    assert bool((quad[0, 5:13, 3:12] == 255).all())
    assert (round(float(quad[0, 15, 5])), round(float(quad[0, 18, 5])), float(quad[0, 29, 0])) == (192, 128, 0)
    alone = call("RegionsToQuadmask", labels=labels, remove="left", grow_object=0)
    assert torch.equal(alone, 1 - call("RegionsToMask", labels=labels, regions="left"))


def test_faults_are_named() -> None:
    with pytest.raises(InputError, match="`remove` must name"):
        call("RegionsToQuadmask", labels=scene(64))
    track, _ = call("RegionsToTrack", labels=scene(64), regions="left")
    with pytest.raises(InputError, match=r"of the same clip .* 4 frames of 53x30, but got 4 of 64x30"):
        call("TrackToRegions", track_data=track, labels=scene(53))
