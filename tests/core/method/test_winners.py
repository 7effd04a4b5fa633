"""Pixels of a frame that compete only where their picture is in doubt have the winners of a competition of all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from vidseg.core.config.parts import EnlargingConfig
from vidseg.core.method.guided import GuidedFilter
from vidseg.core.method.patches import Patch
from vidseg.core.method.winners import Answers, find_winners

from .test_guided import random_picture

OWNERS = {5: [0, 1, 2], 8: [3], 200: [4, 5]}


@pytest.mark.parametrize("frame_size", [(131, 245), (64, 96), (50, 120)])
def test_equals_a_competition_of_all_pixels(frame_size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    cells = torch.randint(0, 6, (4, 6), generator=generator)
    shares = [(cells == leaf).float() * 0.6 + 0.1 * torch.rand(cells.shape, generator=generator) for leaf in range(6)]
    shares[0][:, 2:] = 0  # a part of the frame
    guided = GuidedFilter(random_picture(2, (64, 96)) // 8, (4, 6), frame_size, EnlargingConfig(guided_radius=4))

    def answer(enlarge: Callable[[torch.Tensor], list[Patch]]) -> Answers:
        patches = enlarge(torch.stack(shares))
        return [(label, [(leaf, patches[leaf]) for leaf in leaves]) for label, leaves in OWNERS.items()]

    found = find_winners(answer(guided.filter_picture), guided.size, guided.to_frame)
    expected = find_winners(answer(guided.filter), frame_size, None)
    assert len(expected.unique()) > 3
    assert found.shape == frame_size
    assert float((found != expected).float().mean()) < 1e-3  # ties, rounded in another order


def test_nothing_wins_where_nothing_answers() -> None:
    assert not find_winners([], (4, 6), None).any()
