"""Masks on the grid of video models, by the host's own arithmetic; boxes cut out and put back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.utils
import comfy_extras
import pytest
import torch
from torch import Tensor
from vidseg.core.regions.model_grid import GRIDS
from vidseg.core.types import InputError

from ..core.regions.test_model_grid import random_masks, touched
from .graphs import NODE, call

NAMES = ("fitted_frames", "fitted", "masked_frames", "width", "height", "count", "report")


def fitted(frames: Tensor, mask: Tensor, **options: Any) -> dict[str, Any]:
    return dict(zip(NAMES, call("FitMaskToModel", frames=frames, mask=mask, **options), strict=True))


def host_node(module: str, name: str) -> Any:
    """Return a node of the host, or skip the test where this host has none of that name."""
    if not (Path(next(iter(comfy_extras.__path__))) / f"{module}.py").is_file():
        pytest.skip(f"this host has no {name}")
    return getattr(__import__(f"comfy_extras.{module}", fromlist=[name]), name)


@pytest.mark.parametrize("count", [1, 6, 45, 81])
@pytest.mark.parametrize("name", GRIDS)
def test_the_host_s_resizing_marks_the_touched_cells_alone(name: str, count: int) -> None:
    grid = GRIDS[name]
    masks = random_masks(count, grid, count)
    out = fitted(torch.rand(*masks.shape, 3), masks.float(), video_model=name)
    padded = torch.cat([masks, masks[-1:].expand(out["count"] - count, -1, -1)])
    cells = touched(padded, grid)
    shape = (1, 1, *cells.shape) if grid.resized else (len(cells), 1, *cells.shape[1:])
    if name != "VOID":  # passes its mask through the autoencoder
        found = comfy.utils.reshape_mask(out["fitted"], shape).reshape(cells.shape)
        assert bool((found[cells] >= 0.5).all())
        assert bool((found[~cells] == 0).all())
    assert bool((out["masked_frames"][padded] == 0.5).all())


class Autoencoder:
    """Stands for Wan's: latents of the right shape, and what was encoded."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def encode(self, pixels: Tensor) -> Tensor:
        self.seen.append(pixels)
        count, height, width, _ = pixels.shape
        return torch.zeros(1, 16, (count - 1) // 4 + 1, height // 8, width // 8)


@pytest.mark.parametrize("count", [5, 17, 81])
def test_wan_vace_sees_the_touched_cells_and_nothing_of_what_they_hold(count: int) -> None:
    node, grid, autoencoder = host_node("nodes_wan", "WanVaceToVideo"), GRIDS["Wan, Hunyuan"], Autoencoder()
    masks = random_masks(count, grid, count)
    frames = torch.rand(*masks.shape, 3)
    out = fitted(frames, masks.float())
    sizes = {name: out[name] for name in ("width", "height")}
    positive = node.execute(
        [[torch.zeros(1), {}]], [[torch.zeros(1), {}]], autoencoder, **sizes, length=out["count"], batch_size=1,
        strength=1.0, control_video=out["masked_frames"], control_masks=out["fitted"],
    ).args[0]  # fmt: skip
    (vace_mask,) = positive[0][1]["vace_mask"]
    cells = touched(masks, grid)
    assert torch.equal(vace_mask[0], cells.float().expand(64, -1, -1, -1))
    inactive = autoencoder.seen[0]
    assert torch.equal(inactive[masks], torch.full_like(inactive[masks], 0.5))
    untouched = ~fitted(frames, masks.float())["masked_frames"].eq(0.5).all(-1)
    assert torch.allclose(inactive[untouched], frames[untouched], atol=1e-6)


def test_frames_and_report_follow_the_model() -> None:
    frames, mask = torch.rand(6, 64, 64, 3), torch.zeros(1, 64, 64)
    mask[0, 3, 3] = 1
    out = fitted(frames, mask, video_model="LTX")
    assert (out["width"], out["height"], out["count"]) == (64, 64, 9)
    assert torch.equal(out["fitted_frames"][6:], frames[-1:].expand(3, -1, -1, -1))
    assert out["report"] == "LTX: 9 frames, of which the last 3 repeat one; 2 latent frames of 2x2 cells, 25% masked."
    trimmed = fitted(frames, mask, video_model="Wan, Hunyuan", length="trim")
    assert "5 frames of 6, the last 1 left out" in trimmed["report"]
    custom = fitted(frames, mask, video_model="custom", custom_first=2, custom_group=2, custom_cell=64)
    assert bool(custom["fitted"].all())
    with pytest.raises(InputError, match="6 of 64x64, but got 6 of 32x64"):
        fitted(frames, mask[..., :32])


def test_what_is_shown_in_the_node_is_what_the_model_sees() -> None:
    widgets = {"length": "pad", "unit": "latent", "custom_first": 1, "custom_group": 4, "custom_cell": 16}
    mask = torch.ones(5, 32, 32)
    result = NODE["FitMaskToModel"].execute(torch.rand(5, 32, 32, 3), mask, "Wan, Hunyuan", **widgets)
    assert result.ui["text"] == (result.args[-1],)
    assert len(result.ui["images"]) == 1


@pytest.mark.parametrize("size", [(96, 160), (160, 90)])
@pytest.mark.parametrize("follow", [0, 3])
def test_an_unedited_box_gives_the_clip_back_to_the_bit(size: tuple[int, int], follow: int) -> None:
    frames, mask = torch.rand(6, *size, 3), torch.zeros(6, *size)
    for number in range(6):
        mask[number, 5 * number : 5 * number + 9, 60:] = 1
    box, inside, crop, width, height = call("CropClip", frames=frames, mask=mask, follow=follow, multiple=16)
    assert tuple(box.shape) == (6, height, width, 3)
    assert torch.equal(call("PasteClip", frames=frames, edited=box, crop=crop), frames)
    changed = call("PasteClip", frames=frames, edited=1 - box, crop=crop, mask=inside)
    assert torch.equal(changed[mask == 0], frames[mask == 0])
    assert not torch.equal(changed, frames)


def test_fitted_boxes_can_be_pasted_though_they_were_padded() -> None:
    frames, mask = torch.rand(6, 64, 96, 3), torch.zeros(6, 64, 96)
    mask[:, 20:30, 20:40] = 1
    box, inside, crop, *_ = call("CropClip", frames=frames, mask=mask, aspect="as frames")
    out = fitted(box, inside)
    pasted = call("PasteClip", frames=frames, edited=out["fitted_frames"] * 0, crop=crop, mask=out["fitted"], feather=0)
    assert bool((pasted[mask == 1] == 0).all())
