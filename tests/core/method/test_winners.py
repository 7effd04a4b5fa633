"""Pixels of a frame that compete only where their picture is in doubt have the winners of a competition of all."""

from __future__ import annotations

import pytest
import torch
from vidseg.core.config.parts import EnlargingConfig
from vidseg.core.method.guided import GuidedFilter
from vidseg.core.method.winners import find_winners

from .test_guided import random_picture

OWNERS = {5: [0, 1, 2], 8: [3], 200: [4, 5]}


@pytest.mark.parametrize("frame_size", [(131, 245), (64, 96), (50, 120)])
def test_equals_a_competition_of_all_pixels(frame_size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    cells = torch.randint(0, 3, (2, 3), generator=generator).repeat_interleave(2, 0).repeat_interleave(2, 1)
    cells = torch.where(torch.rand(cells.shape, generator=generator) < 0.3, cells + 3, cells)
    shares = [(cells == leaf).float() * 0.6 + 0.1 * torch.rand(cells.shape, generator=generator) for leaf in range(6)]
    shares[0][:, 2:] = 0  # a part of the frame
    picture = random_picture(2, (64, 96)) // 8 + torch.arange(96)[:, None].byte()
    guided = GuidedFilter(picture, (4, 6), frame_size, EnlargingConfig(guided_radius=8))
    few = [
        (label, [(leaf, guided.filter_picture(shares[leaf])) for leaf in leaves]) for label, leaves in OWNERS.items()
    ]
    every = [(label, [(leaf, guided.filter(shares[leaf])) for leaf in leaves]) for label, leaves in OWNERS.items()]
    found, expected = find_winners(few, guided.size, guided.to_frame), find_winners(every, frame_size, None)
    assert len(expected.leaves.unique()) > 3
    for one, other in zip(found, expected, strict=True):
        assert one.shape == frame_size
        assert float((one != other).float().mean()) < 1e-3  # ties, rounded in another order
    assert set(found.labels[found.leaves == 4].tolist()) <= {200}


def test_nothing_wins_where_nothing_answers() -> None:
    found = find_winners([], (4, 6), None)
    assert not found.labels.any()
