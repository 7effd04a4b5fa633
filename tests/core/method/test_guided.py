"""The guided filter of parts of a frame equals kornia's of the whole."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kornia.filters import guided_blur
from vidseg.core.config.parts import EnlargingConfig
from vidseg.core.method.guided import BilinearFilter, GuidedFilter, Patch


def spread(patch: Patch, size: tuple[int, int]) -> torch.Tensor:
    whole = torch.zeros(size)
    whole[patch.rows, patch.columns] = patch.values
    return whole


def random_picture(seed: int, size: tuple[int, int]) -> torch.Tensor:
    return torch.randint(0, 256, (*size, 3), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


@pytest.mark.parametrize("subsample", [1, 2, 4])
@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
def test_equals_kornia(subsample: int, size: tuple[int, int]) -> None:
    picture, config = random_picture(1, (64, 96)), EnlargingConfig(guided_radius=8, guided_subsample=subsample)
    cells = torch.randint(0, 5, (4, 6), generator=torch.Generator().manual_seed(2))
    guided = GuidedFilter(picture, (4, 6), size, config)
    guide = picture.movedim(-1, 0)[None].double() / 255
    for label in range(5):
        mask = F.interpolate((cells == label).double()[None, None], (64, 96), mode="bilinear", align_corners=False)
        expected = guided_blur(guide, mask, 17, config.guided_epsilon, subsample=subsample)
        expected = F.interpolate(expected, size, mode="bilinear", align_corners=False)[0, 0].float()
        torch.testing.assert_close(spread(guided.filter(cells == label), size), expected, atol=1e-4, rtol=1e-4)


def test_a_small_mask_is_filtered_where_it_reaches() -> None:
    mask = torch.zeros(16, 24, dtype=torch.bool)
    mask[10, 3] = True
    patch = GuidedFilter(random_picture(3, (256, 384)), (16, 24), (256, 384), EnlargingConfig()).filter(mask)
    assert patch.values.numel() < 256 * 384 / 4
    assert patch.rows.start < 10 * 16
    assert patch.rows.stop > 11 * 16


def test_bilinear_equals_torch() -> None:
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(4)) > 0.6
    expected = F.interpolate(mask.float()[None, None], (33, 50), mode="bilinear", align_corners=False)[0, 0]
    found = spread(BilinearFilter((5, 7), (33, 50)).filter(mask), (33, 50))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
