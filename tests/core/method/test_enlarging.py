"""Guided upsampling finds the picture's own edges, and agrees with a guided filter written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from vidseg.core.config.parts import EnlargingConfig
from vidseg.core.method import enlarging as guided
from vidseg.core.method.enlarging import enlarge_bilinear, enlarge_guided
from vidseg.core.types import InputError, LabelMaps, Region


def two_colors(edge: int, h: int = 96, w: int = 128) -> Tensor:
    picture = torch.full((h, w, 3), 60, dtype=torch.uint8)
    picture[:, edge:] = torch.tensor([180, 120, 200], dtype=torch.uint8)
    return picture


@pytest.mark.parametrize("edge", [59, 64, 69])
def test_labels_snap_to_the_edge_of_the_picture(edge: int) -> None:
    cells = (torch.arange(8)[None].expand(6, 8) >= 4).long() * 7 + 2  # the coarse edge is at pixel 64
    maps = enlarge_guided(cells, two_colors(edge), (96, 128), EnlargingConfig(guided_subsample=1))
    truth = torch.where(torch.arange(128) >= edge, 9, 2).to(torch.uint8).expand(96, 128)
    coarse = enlarge_bilinear(LabelMaps(cells[None], (Region(2, "a"), Region(9, "b")), (96, 128))).maps[0]
    errors = [int((found != truth).sum()) for found in (maps, coarse)]
    assert errors[0] <= 96
    assert errors[0] < errors[1] or edge == 64


def test_equals_the_filter_written_out() -> None:
    generator = torch.Generator().manual_seed(2)
    picture = torch.randint(0, 256, (32, 48, 3), generator=generator).to(torch.uint8)
    cells = torch.randint(0, 3, (4, 6), generator=generator)
    config = EnlargingConfig(guided_radius=3, guided_epsilon=1e-2, guided_subsample=1)
    scores = torch.stack([by_hand((cells == label).float(), picture, 3, 1e-2) for label in range(3)])
    top = scores.topk(2, dim=0).values
    clear = top[0] - top[1] > 1e-4
    assert clear.float().mean() > 0.95
    found = enlarge_guided(cells, picture, (32, 48), config)
    assert torch.equal(found[clear], scores.argmax(0).to(torch.uint8)[clear])


def by_hand(mask: Tensor, picture: Tensor, radius: int, epsilon: float) -> Tensor:
    """He et al. 2013, section 3.4, with mirrored borders, one window at a time."""
    target = F.interpolate(mask[None, None], picture.shape[:2], mode="bilinear")[0, 0].double()
    guide = picture.double() / 255

    def windows(image: Tensor) -> Tensor:
        padded = F.pad(image[None, None], (radius,) * 4, mode="reflect")[0, 0]
        return padded.unfold(0, 2 * radius + 1, 1).unfold(1, 2 * radius + 1, 1).flatten(2)

    colors = torch.stack([windows(guide[..., channel]) for channel in range(3)], -1)
    values = windows(target)
    mean, average = colors.mean(2), values.mean(2)
    covariance = torch.einsum("hwnc,hwnd->hwcd", colors, colors) / values.shape[2]
    covariance = covariance - mean[..., :, None] * mean[..., None, :] + epsilon * torch.eye(3)
    cross = torch.einsum("hwnc,hwn->hwc", colors, values) / values.shape[2] - mean * average[..., None]
    slope = torch.linalg.solve(covariance, cross)
    offset = average - (slope * mean).sum(-1)
    smooth = torch.stack([windows(slope[..., channel]).mean(2) for channel in range(3)], -1)
    return (smooth * guide).sum(-1) + windows(offset).mean(2)


def test_the_result_does_not_depend_on_how_many_labels_are_filtered_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    picture = torch.randint(0, 256, (64, 64, 3), generator=generator).to(torch.uint8)
    cells = torch.randint(0, 11, (4, 4), generator=generator)
    results = []
    for count in (1, 4, 64):
        monkeypatch.setattr(guided, "LABELS_AT_A_TIME", count)
        results.append(enlarge_guided(cells, picture, (50, 70), EnlargingConfig()))
    assert all(torch.equal(results[0], other) for other in results[1:])
    assert set(results[0].unique().tolist()) <= set(cells.unique().tolist())


def test_one_label_alone_fills_the_frame_and_wrong_pictures_are_refused() -> None:
    cells = torch.full((4, 4), 5)
    assert enlarge_guided(cells, two_colors(9, 64, 64), (10, 20), EnlargingConfig()).unique().tolist() == [5]
    with pytest.raises(InputError, match="`picture` must have shape"):
        enlarge_guided(cells, torch.zeros(3, 64, 64), (10, 20), EnlargingConfig())
