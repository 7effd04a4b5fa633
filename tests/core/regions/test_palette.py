"""The palette, overlays and legends."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from vidseg.core.regions.palette import PALETTE, colorize, draw_legend, draw_overlay, find_borders, paint_pixels
from vidseg.core.types import InputError, Region

# Machado, Oliveira and Fernandes 2009, severity 1, in linear RGB.
HASH = "ee693ef5cfc1c82d35f59aff47ecd7c65452a44bff7bb996eb775a97afa9f962"
DEFICIENCIES = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "none": np.eye(3).tolist(),
}


def lab(linear: np.ndarray) -> np.ndarray:
    rows = ([0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041])
    to_xyz = np.array(rows)
    xyz = linear @ to_xyz.T / np.array([0.95047, 1, 1.08883])
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * root[:, 1] - 16, 500 * (root[:, 0] - root[:, 1]), 200 * (root[:, 1] - root[:, 2])], 1)


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_the_first_twenty_colors_are_told_apart_by_everyone(deficiency: str) -> None:
    rgb = PALETTE[:20].double().numpy() / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = lab(np.clip(linear @ np.array(DEFICIENCIES[deficiency]).T, 0, 1))
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=2) + 1000 * np.eye(20)
    assert distances.min() > 15  # CIELAB; 2.3 is just noticeable


def test_the_palette_never_changes() -> None:
    assert PALETTE.shape == (256, 3) and PALETTE.dtype == torch.uint8
    assert len({tuple(color) for color in PALETTE.tolist()}) == 256
    assert PALETTE[255].tolist() == [224, 224, 224]
    assert hashlib.sha256(PALETTE.numpy().tobytes()).hexdigest() == HASH


def test_overlay_mixes_colors_and_frames() -> None:
    frames = torch.rand(2, 6, 8, 3, generator=torch.Generator().manual_seed(0))
    maps = torch.zeros(2, 6, 8, dtype=torch.uint8)
    maps[:, :, 4:] = 3
    assert torch.equal(draw_overlay(frames, maps, 0.0), frames)
    assert torch.allclose(draw_overlay(frames, maps, 1.0, borders=False), colorize(maps) / 255)
    mixed = draw_overlay(frames, maps, 0.25, borders=False)
    expected = 0.75 * frames[1, 2, 7] + 0.25 * PALETTE[3] / 255
    assert torch.allclose(mixed[1, 2, 7], expected)
    lined = draw_overlay(frames, maps, 0.25)
    assert ((lined != mixed).any(-1) == find_borders(maps)).all()
    assert (lined <= mixed).all()


def test_borders_lie_left_of_and_above_a_change() -> None:
    maps = torch.tensor([[[1, 1, 2], [1, 1, 2], [3, 3, 3]]])
    assert find_borders(maps).int().tolist() == [[[0, 1, 0], [1, 1, 1], [0, 0, 0]]]
    assert not find_borders(torch.full((1, 4, 4), 7)).any()


def test_overlay_refuses_bad_input() -> None:
    frames, maps = torch.zeros(1, 4, 4, 3), torch.zeros(1, 4, 4, dtype=torch.uint8)
    with pytest.raises(InputError, match=r"`opacity` must lie in \[0, 1\], but got 1.5"):
        draw_overlay(frames, maps, 1.5)
    with pytest.raises(InputError, match="`maps` must have shape"):
        draw_overlay(frames, maps[:, :3])


def test_legend_shows_every_color() -> None:
    for count in (1, 25):
        picture = draw_legend([Region(label, f"region {label}") for label in range(count)])
        assert picture.dtype == torch.uint8 and picture.ndim == 3 and picture.shape[2] == 3
        shown = {tuple(color) for color in picture.flatten(0, 1).unique(dim=0).tolist()}
        assert {tuple(color) for color in PALETTE[:count].tolist()} <= shown


def test_legend_is_as_wide_as_its_longest_name_up_to_a_limit() -> None:
    short, long = draw_legend([Region(0, "car")]), draw_legend([Region(0, "car"), Region(1, "x" * 40)])
    assert short.shape[1] < long.shape[1]
    longer = draw_legend([Region(0, "car"), Region(1, "x" * 400)])
    assert abs(longer.shape[1] - long.shape[1]) < 20
    assert torch.equal(draw_legend([Region(0, "a b")]), draw_legend([Region(0, " a\n b ")]))


def test_legend_writes_what_its_font_has() -> None:
    assert torch.equal(draw_legend([Region(0, "Würfel\tcafé")]), draw_legend([Region(0, "Wurfel cafe")]))
    assert torch.equal(draw_legend([Region(0, "\N{CJK UNIFIED IDEOGRAPH-8ECA}")]), draw_legend([Region(0, "?")]))


def test_legend_has_as_many_rows_as_asked() -> None:
    regions = [Region(label, f"region {label}") for label in range(20)]
    one, two = draw_legend(regions), draw_legend(regions, 10)
    assert two.shape[0] < 0.6 * one.shape[0]
    assert two.shape[1] == 2 * one.shape[1]


def test_legend_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="at least one region"):
        draw_legend([])


def test_painted_pixels_are_an_overlay_of_bytes() -> None:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (40, 50, 3), generator=generator).byte()
    labels = torch.randint(0, 256, (4, 5), generator=generator).byte().repeat_interleave(10, 0).repeat_interleave(10, 1)
    expected = (draw_overlay(pixels[None].float() / 255, labels[None])[0] * 255).round()
    painted = paint_pixels(pixels, labels)
    assert painted.dtype == torch.uint8
    assert int((painted.int() - expected.int()).abs().max()) <= 1
