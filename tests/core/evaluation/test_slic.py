"""The baseline of 3D supervoxels by scikit-image's SLIC."""

from __future__ import annotations

import pytest
import torch
from vidseg.core.config.settings import Settings, replace_parts
from vidseg.core.evaluation import slic
from vidseg.core.evaluation.slic import segment_by_slic
from vidseg.core.types import InputError

from .test_baselines import Tensors, moving_edge

pytest.importorskip("skimage")
SETTINGS = replace_parts(Settings(), cluster={"num_clusters": 8}, window={"length": 2})


def test_supervoxels_keep_to_edges_and_last_over_windows() -> None:
    frames = moving_edge()
    truth = (frames[..., 2] > 0.5).to(torch.uint8)
    results = list(segment_by_slic(Tensors(frames), SETTINGS))
    assert [list(result.frames) for result in results] == [[0, 1], [2, 3], [4]]
    maps = torch.cat([result.labels.maps for result in results])
    assert (maps.shape, maps.dtype) == (truth.shape, torch.uint8)
    regions = [label for label, _ in results[0].labels.regions]
    assert regions == maps.unique().tolist() == list(range(len(regions)))
    shares = torch.stack([truth[maps == label].float().mean() for label in regions])
    assert float(torch.maximum(shares, 1 - shares).min()) > 0.9
    again = torch.cat([result.labels.maps for result in segment_by_slic(Tensors(frames), SETTINGS)])
    assert torch.equal(again, maps)


def test_names_are_those_of_the_first_frame() -> None:
    frames = moving_edge(2)
    reference = (frames[0, ..., 2] > 0.5).to(torch.uint8) * 9
    (result,) = segment_by_slic(Tensors(frames), SETTINGS, reference=reference)
    assert float((result.labels.maps[0] == reference).float().mean()) > 0.95
    assert [label for label, _ in result.labels.regions] == [0, 9]


def test_small_frames_are_enlarged() -> None:
    small = replace_parts(SETTINGS, frame={"max_side": 64})
    (result,) = segment_by_slic(Tensors(moving_edge(2)), small)
    assert result.labels.maps.shape == (2, 64, 128)
    assert torch.equal(result.labels.maps[..., ::2], result.labels.maps[..., 1::2])  # 64x64 pixels


def test_what_cannot_be_done_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="at least 1 for this baseline"):
        next(segment_by_slic(Tensors(moving_edge(1)), replace_parts(SETTINGS, cluster={"num_clusters": 0})))
    monkeypatch.setattr(slic, "MAX_LABEL", 1)
    with pytest.raises(InputError, match="give at most 2 regions, but got 8, which SLIC made"):
        next(segment_by_slic(Tensors(moving_edge(1)), SETTINGS))
    monkeypatch.setattr(slic, "MAX_VOXELS", 1000)
    with pytest.raises(InputError, match="at most 1000 pixels, but 5 frames of 128x64 are more"):
        next(segment_by_slic(Tensors(moving_edge()), SETTINGS))
