"""The guided filter of parts of a frame equals kornia's of the whole."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kornia.filters import guided_blur
from vidseg.core.config.parts import EnlargingConfig
from vidseg.core.method import patches as method_patches
from vidseg.core.method.guided import BilinearFilter, GuidedFilter
from vidseg.core.method.patches import Patch


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
    found = GuidedFilter(picture, (4, 6), size, config).filter(torch.stack([cells == label for label in range(5)]))
    guide = picture.movedim(-1, 0)[None].double() / 255
    for label, patch in enumerate(found):
        mask = F.interpolate((cells == label).double()[None, None], (64, 96), mode="bilinear", align_corners=False)
        expected = guided_blur(guide, mask, 17, config.guided_epsilon, subsample=subsample)
        expected = F.interpolate(expected, size, mode="bilinear", align_corners=False)[0, 0].float()
        torch.testing.assert_close(spread(patch, size), expected, atol=1e-4, rtol=1e-4)


def test_a_small_mask_is_filtered_where_it_reaches() -> None:
    mask = torch.zeros(16, 24, dtype=torch.bool)
    mask[10, 3] = True
    (patch,) = GuidedFilter(random_picture(3, (256, 384)), (16, 24), (256, 384), EnlargingConfig()).filter(mask[None])
    assert patch.values.numel() < 256 * 384 / 4
    assert patch.rows.start < 10 * 16
    assert patch.rows.stop > 11 * 16


def test_masks_are_grouped_where_a_call_is_dear_and_answer_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = torch.zeros(4, 16, 24)
    for mask, (row, column) in zip(masks, [(2, 2), (3, 3), (12, 20), (4, 2)], strict=True):
        mask[row, column] = 1
    filtered = GuidedFilter(random_picture(3, (256, 384)), (16, 24), (256, 384), EnlargingConfig())

    def answer(call_pixels: int) -> tuple[int, torch.Tensor]:
        monkeypatch.setattr(method_patches, "CALL_PIXELS", call_pixels)
        patches = filtered.filter(masks)
        different = {(patch.rows.start, patch.columns.start) for patch in patches}
        return len(different), torch.stack([spread(patch, (256, 384)) for patch in patches])

    (groups, found), (alone, expected) = answer(8000), answer(0)
    assert (groups, alone) == (2, 4)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_bilinear_equals_torch() -> None:
    masks = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(4)) > 0.6
    expected = F.interpolate(masks.float()[:, None], (33, 50), mode="bilinear", align_corners=False)[:, 0]
    found = torch.stack([spread(patch, (33, 50)) for patch in BilinearFilter((5, 7), (33, 50)).filter(masks)])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
