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
    cells = torch.randint(0, 6, (4, 6), generator=generator)
    shares = [(cells == leaf).float() * 0.6 + 0.1 * torch.rand(cells.shape, generator=generator) for leaf in range(6)]
    shares[0][:, 2:] = 0  # a part of the frame
    guided = GuidedFilter(random_picture(2, (64, 96)) // 8, (4, 6), frame_size, EnlargingConfig(guided_radius=4))

    answers = torch.zeros(6, *frame_size)
    for leaf, (rows, columns, values) in enumerate(map(guided.filter, shares)):
        answers[leaf, rows, columns] = values
    found = find_winners(guided, dict(enumerate(shares)), OWNERS)
    label = torch.stack([answers[some].sum(0) for some in OWNERS.values()]).argmax(0)
    strongest = [answers[some].argmax(0) + some[0] for some in OWNERS.values()]
    expected = torch.stack(strongest).gather(0, label[None])[0]
    assert len(expected.unique()) > 3
    assert found.shape == frame_size
    assert float((found != expected).float().mean()) < 1e-3  # ties, rounded in another order
