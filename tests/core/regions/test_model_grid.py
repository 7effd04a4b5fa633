"""Masks on the grids of video models, against the arithmetic of the programs that resize them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from vidseg.core.regions.model_grid import GRIDS, ModelGrid, custom_grid, fit_frames, fit_masks
from vidseg.core.types import InputError

CASES = {**GRIDS, "1+2n": custom_grid(1, 2, 4), "4n": custom_grid(4, 4, 16), "each": custom_grid(1, 1, 8)}


def random_masks(count: int, grid: ModelGrid, seed: int) -> Tensor:
    """Return masks with single pixels and empty frames."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, grid.token, 2 * grid.token, generator=generator)
    return (masks > 1 - 2 / grid.token**2) & (torch.rand(count, 1, 1, generator=generator) > 0.3)


def touched(masks: Tensor, grid: ModelGrid) -> Tensor:
    """Return which latent cells hold a masked pixel."""
    rows, columns = (side // grid.cell for side in masks.shape[1:])
    squares = masks.reshape(len(masks), rows, grid.cell, columns, grid.cell)
    return torch.stack([squares[start:stop].any(4).any(2).any(0) for start, stop in grid.groups(len(masks))])


@pytest.mark.parametrize("steps", [0, 1, 2, 13])
@pytest.mark.parametrize("name", CASES)
def test_trilinear_resizing_marks_the_touched_cells_alone(name: str, steps: int) -> None:
    grid = CASES[name]
    masks = random_masks(grid.first + steps * grid.step, grid, steps)
    fitted = fit_masks(masks, grid, length="keep")
    cells = touched(masks, grid)
    assert torch.equal(fitted.cells, cells)
    if grid.resized:
        found = F.interpolate(fitted.masks[None, None], cells.shape, mode="trilinear")[0, 0]
        assert bool((found[cells] >= 0.5).all())
        assert bool((found[~cells] == 0).all())
    assert bool(fitted.seen[masks].all()), "no masked pixel is seen"


def test_tokens_are_masked_as_a_whole() -> None:
    masks = torch.zeros(5, 32, 32)
    masks[3, 17, 2] = 1
    fitted = fit_masks(masks, GRIDS["Wan, Hunyuan"], "token")
    assert fitted.cells.tolist()[1] == [[False] * 4] * 2 + [[True, True, False, False]] * 2
    assert not fitted.cells[0].any()


@pytest.mark.parametrize(("name", "valid"), [("VOID", [5, 13, 21, 29, 37, 45]), ("MiniMax H3", [5, 22, 39, 124])])
def test_lengths_that_a_model_takes_are_left(name: str, valid: list[int]) -> None:
    grid = GRIDS[name]
    assert [grid.fit_length(count, "keep") for count in valid] == valid
    if name == "VOID":
        assert not [count for count in valid if len(grid.groups(count)) % 2]


def test_other_lengths_are_padded_trimmed_or_refused() -> None:
    grid, masks = GRIDS["Wan, Hunyuan"], torch.zeros(7, 16, 16)
    masks[6] = 1
    padded = fit_masks(masks, grid, length="pad")
    assert len(padded.masks) == 9
    assert bool(padded.cells[-1].all())
    assert len(fit_masks(masks, grid, length="trim").masks) == 5
    assert fit_frames(torch.arange(7), grid).tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 6]
    with pytest.raises(InputError, match=r"1 plus a multiple of 4 .* got 7 frames\. .* pass 5 or 9"):
        fit_masks(masks, grid, length="keep")
    with pytest.raises(InputError, match="at least 5"):
        fit_masks(torch.zeros(3, 32, 32), GRIDS["MiniMax H3"], length="trim")


def test_sides_that_do_not_fit_are_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"multiples of 32 .* got 96x40\. .* to 96x32"):
        fit_masks(torch.zeros(1, 40, 96), GRIDS["LTX"])
    with pytest.raises(InputError, match="at least one mask"):
        fit_masks(torch.zeros(0, 32, 32), GRIDS["LTX"])
