"""Kept attention weights give what attention gives, and are only those of the frame in work."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from vidseg.core.backbones import attention_weights as module
from vidseg.core.backbones.attention_weights import AttentionWeights

HEADS, TOKENS, CHANNELS, FRAMES = 2, 6, 8, 3


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


QUERY, KEY = (random(2, FRAMES, TOKENS, CHANNELS, seed=seed) for seed in (1, 2))


def recorded(frame: int) -> tuple[Tensor, Tensor]:
    return QUERY[:, frame], KEY[:, frame]


def expected(frame: int, value: Tensor) -> Tensor:
    """Attention written out for each half of guidance, element and head."""
    result = torch.empty_like(value)
    elements, width = len(value) // 2, CHANNELS // HEADS
    for row in range(len(value)):
        for head in range(HEADS):
            part = slice(head * width, (head + 1) * width)
            query, key = (tensor[row // elements, frame][:, part] for tensor in (QUERY, KEY))
            result[row, :, part] = F.softmax(query @ key.T / width**0.5, dim=1) @ value[row][:, part]
    return result


def test_several_elements_of_a_frame_get_what_attention_gives() -> None:
    weights = AttentionWeights()
    for frame, count, seed in ((0, 2, 3), (0, 3, 4), (2, 2, 5), (0, 2, 6)):
        value = random(2 * count, TOKENS, CHANNELS, seed=seed)
        mixed = weights.mixed(7, torch.full((count,), frame), value, HEADS, recorded)
        assert mixed is not None
        torch.testing.assert_close(mixed, expected(frame, value), rtol=1e-5, atol=1e-6)


def test_weights_are_computed_once_for_a_frame_and_layer() -> None:
    weights, asked = AttentionWeights(), []

    def counted(frame: int) -> tuple[Tensor, Tensor]:
        asked.append(frame)
        return recorded(frame)

    for frame, layer in ((0, 7), (0, 7), (0, 8), (0, 8), (1, 7), (0, 7)):
        weights.mixed(layer, torch.full((2,), frame), random(4, TOKENS, CHANNELS, seed=3), HEADS, counted)
    assert asked == [0, 0, 1, 0]


@pytest.mark.parametrize("case", ["frames differ", "half precision", "large"])
def test_attention_is_left_to_others(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    frames = torch.tensor([0, 1]) if case == "frames differ" else torch.zeros(2, dtype=torch.long)
    value = random(4, TOKENS, CHANNELS, seed=3)
    if case == "half precision":
        value = value.half()
    if case == "large":
        monkeypatch.setattr(module, "MAX_BYTES", 2 * HEADS * TOKENS**2 * 4 - 1)
    assert AttentionWeights().mixed(7, frames, value, HEADS, recorded) is None
