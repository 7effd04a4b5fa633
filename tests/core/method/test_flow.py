"""Optical flow: what is shifted by so much, what is hidden, what comes after a cut."""

from __future__ import annotations

import pytest
import torch
from vidseg.core.method import flow as module
from vidseg.core.method.flow import estimate_flow, measure_flow, warp
from vidseg.core.types import Grid

from .moving import as_bytes, rolling_pictures, texture


def shifted(right: float, down: float, size: tuple[int, int] = (64, 96)) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two pictures ``(1,3,h,w)``: in the second everything lies so many pixels farther."""
    whole = texture(size[0] + 40, size[1] + 40).movedim(-1, 0)[None]
    move = torch.tensor([right, down])[None, :, None, None].expand(1, 2, *whole.shape[-2:])
    return whole[..., 20:-20, 20:-20], warp(whole, -move)[..., 20:-20, 20:-20]


@pytest.mark.parametrize(("right", "down"), [(0, 0), (1, 0), (0, -2), (0.5, 0.25), (3, 2), (-7, 4)])
def test_a_shift_is_found_to_a_fraction_of_a_pixel(right: float, down: float) -> None:
    first, second = shifted(right, down)
    found = estimate_flow(first, second)[0, :, 8:-8, 8:-8]
    assert float((found[0] - right).abs().median()) < 0.15
    assert float((found[1] - down).abs().median()) < 0.15


def test_a_picture_without_texture_does_not_move() -> None:
    plain = torch.full((1, 3, 32, 48), 0.5)
    assert float(estimate_flow(plain, plain + 0.05).abs().max()) < 0.01


def test_flow_is_as_another_library_finds_it() -> None:
    registration = pytest.importorskip("skimage.registration")
    first, second = shifted(1.5, -1.0)
    down, right = registration.optical_flow_ilk(*(each[0].mean(0).numpy() for each in (first, second)), radius=5)
    found = estimate_flow(first, second)[0].numpy()
    assert abs(found[0] - right)[8:-8, 8:-8].mean() < 0.2
    assert abs(found[1] - down)[8:-8, 8:-8].mean() < 0.2


def test_both_directions_have_units_of_the_longer_side() -> None:
    pictures = rolling_pictures(4, camera=2)
    flow = measure_flow(pictures, Grid(8, 14))
    assert flow.shape == (4, 2, 2, 32, 56)
    ground = flow[1:-1, :, :, 24:].float().flatten(3).median(-1).values
    torch.testing.assert_close(ground[:, 0], torch.tensor([[-2 / 224, 0.0]]).expand(2, 2), atol=5e-4, rtol=0)
    torch.testing.assert_close(ground[:, 1], torch.tensor([[2 / 224, 0.0]]).expand(2, 2), atol=5e-4, rtol=0)
    assert not flow[-1, 0].any()
    assert not flow[0, 1].any()


def test_the_size_of_the_flow_is_bounded() -> None:
    assert measure_flow(torch.zeros(2, 64, 1024, 3, dtype=torch.uint8), Grid(4, 64)).shape[-2:] == (7, 112)
    assert measure_flow(torch.zeros(1, 16, 512, 3, dtype=torch.uint8), Grid(1, 32)).shape == (1, 2, 2, 4, 112)


def test_across_a_cut_there_is_no_flow() -> None:
    dark, light = as_bytes(texture(64, 96) * 0.3), as_bytes(0.7 + texture(64, 96, seed=4) * 0.3)
    flow = measure_flow(torch.stack([dark, dark, light, light]), Grid(4, 6))
    assert flow[1, 0].isinf().all()
    assert flow[2, 1].isinf().all()
    assert flow[[0, 2], 0].isfinite().all()
    assert flow[[1, 3], 1].isfinite().all()


def test_the_median_is_that_of_nine() -> None:
    maps = torch.randn(2, 2, 9, 12, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(maps, (1, 1, 1, 1), mode="replicate")
    around = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
    assert torch.equal(module._take_median(maps), around.median(-1).values)


def test_frames_too_far_apart_have_no_flow() -> None:
    """Their colors are alike: noise that is drawn anew, a clip of which all but every hundredth frame were dropped."""
    noise = torch.stack([as_bytes(texture(128, 224, seed=seed) * 0.2 + 0.4) for seed in range(3)])
    flow = measure_flow(noise, Grid(8, 14))
    assert flow[:-1, 0].isnan().all()
    assert flow[1:, 1].isnan().all()


def test_flow_does_not_depend_on_how_many_pairs_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = rolling_pictures(6)
    together = measure_flow(pictures, Grid(8, 14))
    monkeypatch.setattr(module, "_TOGETHER", 2)
    torch.testing.assert_close(measure_flow(pictures, Grid(8, 14)), together, atol=1e-5, rtol=0)
    torch.testing.assert_close(measure_flow(pictures[2:5], Grid(8, 14))[1], together[3], atol=1e-5, rtol=0)
