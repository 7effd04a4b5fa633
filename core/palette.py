"""One fixed palette by label id, and pictures made with it: overlay and legend.

A region keeps its colour in every frame, preview and export, on every machine and in every version.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .types import InputError, Region, require_shape

# Labels 0 to 5 are colours of Okabe and Ito, which people with any colour vision tell apart; 255, void, is light grey.
# Each further one was the colour farthest from all before it, in CIELAB with lightness weighed less (an overlay mixes in
# the lightness of the frame), as seen with normal vision and with the protanopia, deuteranopia and tritanopia of Machado
# et al. 2009. Never change an entry.
_HEX: Final = """
0072B2 E69F00 009E73 CC79A7 F0E442 D55E00 8700FF 78000F 00FF96 2D1E96 4B2D4B B45AFF 96D2FF F01E5A B496FF 780F78
B4FF78 B40000 D2A55A 691E2D E11EC3 A5D2A5 5A00C3 5A693C C30078 FF78D2 006978 C3693C D27878 78F0FF D2A5B4 005AD2
00D21E 4B9600 78D287 1E4B3C A5B4FF 695A0F B4D25A C30FE1 3C3C96 96FFD2 5A3C1E 5A1E5A FF6996 9669A5 D269E1 A50F4B
0000FF 781EB4 F0A578 C32D3C D2D278 9696C3 96695A B478FF 78A596 003CE1 874BA5 00D2C3 2D4B87 FFB4E1 B4A53C 873C69
69A5B4 78FFB4 F0695A 0000D2 963CFF 874B5A F0F000 96FF5A D287E1 D24BE1 C3A5E1 783CB4 690087 C33C96 96691E 87B469
C3A587 FFE1B4 0F5A2D D2C33C 96005A 3C2D69 1E3C0F 784B1E FFD2FF 96D2E1 FFD2C3 6978FF 2D782D 5A965A 87FFF0 FFB4A5
8769C3 C39600 C35A96 A5874B 4B1EB4 E1B44B 960FD2 E1F0A5 00F0C3 C3781E B45A78 D2F087 B43CB4 5A5A87 C3873C A59669
F087A5 871E69 B45A4B 69E187 96002D 5AD24B F000F0 3C9687 3C7878 FF5A2D F0D269 2D4BD2 692D4B D20F69 3CD296 5A5AFF
FF4B96 690FE1 3C78E1 FFA5B4 870F3C B400C3 B47887 B478C3 4BE100 FF1E87 C3B4E1 D20000 964B4B D2E14B 0F4B5A B40F96
B44B2D 5A0F78 F096FF C3E1A5 C39687 0096C3 4B3CFF A5F0D2 0F8796 96D269 4B3CB4 A5A54B 5A3C69 FFD296 D24B69 2D874B
A54BA5 E1A5C3 0F5A78 9678A5 4B69C3 F09678 B4B43C 2D2D96 2D694B B41E1E 7887D2 960F00 78873C 4B7869 8700A5 87F069
4B96FF 695A78 78F000 873CA5 87B4D2 870087 2D6996 FF9696 A5E1D2 A596F0 00E1F0 694B96 0F3C87 69C35A E13CA5 D26978
695AE1 875A3C F096D2 F078A5 69B4A5 E12DB4 87B4F0 962D2D A54BD2 5A2D78 875A87 F0B4F0 B4FF2D 4B00F0 E14BD2 4BF087
2DD2F0 78D2B4 D278E1 F07878 5A3CA5 693CF0 96872D 001ED2 966987 001EB4 7878D2 6987B4 2D3C1E 69691E D296C3 691EC3
2DC31E E1874B 4B8769 96A55A 3CFFE1 965A00 87D2D2 5AC3B4 F0B469 78FF87 874B96 A5F05A F05AC3 FF00D2 87E178 96F0F0
B4962D 872DE1 B42DF0 4BFFC3 2D1EA5 2DA5E1 F05AB4 96E1B4 690F4B FF782D 963C87 A5783C 78A53C F03CF0 96FFA5 E0E0E0
"""
PALETTE: Final = torch.tensor([list(bytes.fromhex(code)) for code in _HEX.split()], dtype=torch.uint8)
"""``(256,3)`` uint8, RGB colour of each label; all differ. Do not write to it."""

_BORDER_DARKENING = 0.35
"""What is left of a colour on the border of its region."""
_LEGEND_ROWS = 24
"""Rows after which a legend goes on in a further column."""
_LONGEST_NAME = 40
"""Characters of a name that a legend shows."""
_FONT_SIZE, _SWATCH, _GAP = 16, 24, 8
"""Pixels."""


def colour_maps(maps: Tensor) -> Tensor:
    """Return the colours ``(...,3)`` uint8 of labels ``(...)``, integers in [0, 255], on the device of ``maps``."""
    return PALETTE.to(maps.device)[maps.long()]


def label_borders(maps: Tensor) -> Tensor:
    """Return where labels ``(T,H,W)`` differ from the pixel to the right or below, boolean ``(T,H,W)``."""
    require_shape("maps", maps, "T H W")
    borders = torch.zeros_like(maps, dtype=torch.bool)
    borders[:, :, :-1] |= maps[:, :, :-1] != maps[:, :, 1:]
    borders[:, :-1] |= maps[:, :-1] != maps[:, 1:]
    return borders


def overlay(frames: Tensor, maps: Tensor, opacity: float = 0.5, *, borders: bool = True) -> Tensor:
    """Lay the colours of labels over frames, with a dark line between regions.

    Args:
        frames: ``(T,H,W,3)`` float32 in [0, 1].
        maps: ``(T,H,W)`` integer labels in [0, 255].
        opacity: weight of the colours, in [0, 1].
        borders: whether to draw the lines, one pixel wide; their opacity is ``opacity`` too.

    Returns:
        ``(T,H,W,3)`` float32 in [0, 1].

    Raises:
        InputError: shapes do not fit, or ``opacity`` lies outside its range.
    """
    sizes = require_shape("frames", frames, "T H W 3")
    require_shape("maps", maps, "T H W", T=sizes["T"], H=sizes["H"], W=sizes["W"])
    if not 0 <= opacity <= 1:
        raise InputError(f"`opacity` must lie in [0, 1], but got {opacity}. Use 0.5 to see frame and labels alike.")
    colours = colour_maps(maps).to(frames) / 255
    if borders:
        colours = torch.where(label_borders(maps)[..., None], colours * _BORDER_DARKENING, colours)
    return torch.lerp(frames, colours, opacity)


def legend(regions: Sequence[Region]) -> Tensor:
    """Draw the colour, the label and the name of each region, in columns of 24, in the order given.

    Names beyond 40 characters are cut, line breaks become spaces, letters lose their accents, and characters that are
    not ASCII become question marks.

    Args:
        regions: at least one.

    Returns:
        ``(H,W,3)`` uint8 RGB picture on white.

    Raises:
        InputError: there is no region.
    """
    if not regions:
        raise InputError("`regions` must hold at least one region, but got none. Pass those of the label maps.")
    font = ImageFont.load_default(_FONT_SIZE)
    texts = [_legend_text(region) for region in regions]
    text_width = max(int(font.getlength(text)) + 1 for text in texts)
    column_width, row_height = _SWATCH + text_width + 3 * _GAP, _SWATCH + _GAP
    num_columns = -(-len(texts) // _LEGEND_ROWS)
    size = (num_columns * column_width, min(len(texts), _LEGEND_ROWS) * row_height + _GAP)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for index, (region, text) in enumerate(zip(regions, texts, strict=True)):
        column, row = divmod(index, _LEGEND_ROWS)
        x, y = column * column_width + _GAP, row * row_height + _GAP
        colour = tuple(PALETTE[region.label].tolist())
        draw.rectangle((x, y, x + _SWATCH - 1, y + _SWATCH - 1), fill=colour, outline="black")
        draw.text((x + _SWATCH + _GAP, y + _SWATCH // 2), text, fill="black", font=font, anchor="lm")
    return torch.from_numpy(np.array(picture))


def _legend_text(region: Region) -> str:
    """Return the line of a region: its label, and its name as far as Pillow's font goes (ASCII)."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", region.name) if not unicodedata.combining(char))
    name = " ".join(plain.encode("ascii", "replace").decode().split())
    if len(name) > _LONGEST_NAME:
        name = name[: _LONGEST_NAME - 3] + "..."
    return f"{region.label}  {name}".strip()
