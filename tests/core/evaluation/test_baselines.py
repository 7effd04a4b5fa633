from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from vidseg.core.config.settings import Settings, replace_parts
from vidseg.core.evaluation import baselines
from vidseg.core.evaluation.baselines import (
    make_color_features,
    number_by_occurrence,
    segment_by_color,
    segment_each_frame,
)
from vidseg.core.method import features as feature_stage
from vidseg.core.method.enlarging import enlarge_bilinear
from vidseg.core.method.frames import to_floats
from vidseg.core.method.tokens import normalize_tokens
from vidseg.core.types import Features, Grid, InputError, LabelMaps

SETTINGS = replace_parts(Settings(), cluster={"num_clusters": 2}, window={"length": 2})


class Tensors:
    """Frames that lie in memory."""

    def __init__(self, frames: Tensor) -> None:
        self.frames = frames

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    def read(self, start: int, stop: int) -> Tensor:
        return self.frames[start:stop]


def moving_edge(count: int = 5) -> Tensor:
    """Red on the left and blue on the right of an edge that moves by one cell a frame, ``(T,64,128,3)``."""
    frames = torch.zeros(count, 64, 128, 3)
    for number in range(count):
        frames[number, :, : 16 * (number + 2), 0] = 1
        frames[number, :, 16 * (number + 2) :, 2] = 1
    return frames


def test_tokens_are_color_position_and_a_constant_that_normalizing_keeps() -> None:
    features = make_color_features(moving_edge(2), SETTINGS)
    assert features.grid == Grid(4, 8)
    assert features.frame_size == (64, 128)
    assert features.queries.shape == (2, 32, 6)
    assert torch.equal(normalize_tokens(features.queries), features.queries)
    assert features.queries[0, 0].tolist() == pytest.approx([1, 0, 0, 0.0625, 0.03125, 1])
    assert features.queries[0, 31].tolist() == pytest.approx([0, 0, 1, 0.4375, 0.46875, 1])


def test_color_follows_an_edge_over_windows() -> None:
    frames = moving_edge()
    truth = (frames[..., 2] > 0.5).long()
    reference = truth[0].to(torch.uint8) * 9
    calls: list[Any] = []
    results = list(
        segment_by_color(Tensors(frames), SETTINGS, reference=reference, progress=lambda *call: calls.append(call))
    )
    assert [list(result.frames) for result in results] == [[0, 1], [2, 3], [4]]
    maps = torch.cat([result.labels.maps for result in results])
    assert maps.dtype == torch.uint8
    assert maps.shape == (5, 64, 128)
    assert torch.equal(maps, truth.to(torch.uint8) * 9)
    assert [region.label for region in results[0].labels.regions] == [0, 9]
    assert calls[-1] == ("features", 1, 1)


def test_color_is_deterministic() -> None:
    noise = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    first, second = ([r.labels.maps for r in segment_by_color(Tensors(noise), SETTINGS)] for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_no_frames_are_refused() -> None:
    with pytest.raises(InputError, match="at least one frame"):
        next(segment_by_color(Tensors(torch.zeros(0, 64, 64, 3)), SETTINGS))


def test_more_clusters_than_tokens_are_refused() -> None:
    many = replace_parts(SETTINGS, cluster={"num_clusters": 40})
    with pytest.raises(InputError, match="at most the number of tokens, 32"):
        next(segment_by_color(Tensors(torch.rand(2, 64, 64, 3)), many))


def test_numbering_does_not_depend_on_names() -> None:
    maps = torch.randint(0, 6, (5, 7), generator=torch.Generator().manual_seed(1))
    renamed = torch.tensor([4, 2, 5, 0, 1, 3])[maps]
    assert torch.equal(number_by_occurrence(maps), number_by_occurrence(renamed))


@pytest.fixture
def color_as_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let colors stand for diffusion features."""

    def extract(_backbone: object, sized: Tensor, _size: object, settings: Settings, *_: object) -> Features:
        return make_color_features(to_floats(sized), settings)

    def upsample(_b: object, features: Features, coarse: LabelMaps, *_: object, **__: object) -> LabelMaps:
        return enlarge_bilinear(coarse)

    monkeypatch.setattr(feature_stage, "_extract", extract)
    monkeypatch.setattr(baselines, "upsample", upsample)


@pytest.mark.usefixtures("color_as_model")
@pytest.mark.parametrize("length", [1, 2, 14])
def test_each_frame_alone_does_not_depend_on_windows(length: int) -> None:
    frames = moving_edge()
    truth = (frames[..., 2] > 0.5).to(torch.uint8)
    settings = replace_parts(SETTINGS, window={"length": length})
    backbone: Any = None
    plain = list(segment_each_frame(backbone, Tensors(frames), settings))
    named = list(segment_each_frame(backbone, Tensors(frames), settings, reference=truth[0] * 7 + 1))
    assert torch.equal(torch.cat([result.labels.maps for result in plain]), truth)
    assert torch.equal(torch.cat([result.labels.maps for result in named]), truth * 7 + 1)
    assert [region.name for region in plain[0].labels.regions] == ["region 0", "region 1"]


@pytest.mark.usefixtures("color_as_model")
def test_each_frame_alone_forgets_the_others() -> None:
    frames = moving_edge()
    swapped = frames.clone()
    swapped[1] = frames[1].flip(1)
    backbone: Any = None
    one = torch.cat([r.labels.maps for r in segment_each_frame(backbone, Tensors(frames), SETTINGS)])
    other = torch.cat([r.labels.maps for r in segment_each_frame(backbone, Tensors(swapped), SETTINGS)])
    assert torch.equal(one[[0, 2, 3, 4]], other[[0, 2, 3, 4]])
    assert not torch.equal(one[1], other[1])
