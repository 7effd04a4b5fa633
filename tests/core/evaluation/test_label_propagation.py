from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from vidseg.core.config.settings import Settings, replace_parts
from vidseg.core.evaluation.baselines import DIFT, propagate_anchor
from vidseg.core.method import features as feature_stage
from vidseg.core.regions.growing import reduce_mask
from vidseg.core.regions.propagation import PropagationMemory
from vidseg.core.types import Features, Grid, InputError

SETTINGS = replace_parts(Settings(), window={"length": 2})
GRID = Grid(4, 8)


class Frames:
    """A clip of which only the length is read here."""

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames

    def read(self, start: int, stop: int) -> Tensor:
        return torch.zeros(stop - start, 64, 128, 3)


def edge_tokens(column: int) -> Tensor:
    """Tokens ``(N,2)`` of one kind to the left of a column of cells and of another from there on."""
    right = (torch.arange(GRID.num_tokens) % GRID.w >= column).float()
    return torch.stack([1 - right, right], dim=1) + 0.05


@pytest.fixture
def moving_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of an edge that moves by one cell a frame, from the third column on."""

    def features(_: object, frames: Tensor, __: object, ___: object, first_frame: int, ____: object) -> Features:
        tokens = torch.stack([edge_tokens(2 + first_frame + index) for index in range(len(frames))])
        nothing = torch.zeros(len(frames), 0)
        return Features(tokens, tokens, nothing, nothing, GRID, (64, 128))

    monkeypatch.setattr(feature_stage, "_extract", features)


def reference() -> Tensor:
    labels = torch.full((64, 128), 9, dtype=torch.uint8)
    labels[:, 32:] = 4
    labels[0] = 255
    return labels


def test_labels_follow_the_features_over_windows(moving_edge: None) -> None:
    results = list(propagate_anchor(None, Frames(5), SETTINGS, reference=reference()))  # type: ignore[arg-type]
    assert [list(result.frames) for result in results] == [[0, 1], [2, 3], [4]]
    assert [region.label for region in results[0].labels.regions] == [4, 9]
    maps = torch.cat([result.labels.maps for result in results])
    assert maps.shape == (5, 64, 128)
    for number, label_map in enumerate(maps):
        edge = 16 * (2 + number)
        assert (label_map[:, : edge - 8] == 9).all()
        assert (label_map[:, edge + 8 :] == 4).all()


def test_a_source_beyond_the_radius_does_not_count() -> None:
    shares = torch.eye(2)[(torch.arange(GRID.num_tokens) % GRID.w >= 7).long()]
    near = replace(DIFT, num_neighbors=1, radius=0)
    tokens = torch.nn.functional.normalize(torch.randn(GRID.num_tokens, 8, generator=torch.manual_seed(1)), dim=1)
    memory = PropagationMemory(-tokens, shares, GRID, near)
    memory.remember(tokens.roll(1, 0), shares)  # the most similar cell is one to the right: out of reach
    alone = memory.propagate(tokens)
    assert not torch.equal(alone, shares.roll(-1, 0))
    wide = PropagationMemory(-tokens, shares, GRID, replace(DIFT, num_neighbors=1, radius=8))
    wide.remember(tokens.roll(1, 0), shares)
    assert torch.equal(wide.propagate(tokens), shares.roll(-1, 0))


def test_the_memory_forgets_all_but_the_first_and_the_recent_frames() -> None:
    memory = PropagationMemory(edge_tokens(3), torch.ones(32, 1), GRID, replace(DIFT, num_frames=2))
    for column in range(5):
        memory.remember(edge_tokens(column), torch.ones(32, 1))
    assert len(memory._recent) == 2
    assert torch.equal(memory._recent[0][0], edge_tokens(3))


def test_shares_of_cells_leave_void_out() -> None:
    shares = reduce_mask(reference() == torch.tensor([4, 9])[:, None, None], GRID).T
    assert shares[0].tolist() == [0, 15 / 16]
    assert shares[GRID.w + 5].tolist() == [1, 0]


@pytest.mark.parametrize("labels", [None, torch.full((64, 128), 255, dtype=torch.uint8)])
def test_a_first_frame_without_labels_is_refused(labels: Tensor | None) -> None:
    with pytest.raises(InputError, match="`reference` must label the first frame"):
        list(propagate_anchor(None, Frames(2), SETTINGS, reference=labels))  # type: ignore[arg-type]
