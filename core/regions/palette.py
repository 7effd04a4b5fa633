"""One fixed palette by label id, and pictures made with it: overlay and legend.

A region keeps its color in every frame, preview and export, on every machine and in every version.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..types import InputError, Region, require_shape

# Labels 0 to 5 are colors of Okabe and Ito, which people with any color vision tell apart; 255, void, is light gray.
# Each further one was the color farthest from all before it, in CIELAB with lightness weighed less (an overlay mixes
# in the lightness of the frame) and without dark colors, as seen with normal vision and with the protanopia,
# deuteranopia and tritanopia of Machado et al. 2009. Never change an entry.
_HEX: Final = """
0072B2 E69F00 009E73 CC79A7 F0E442 D55E00 8700FF 00FF96 8769FF C3002D 96D2FF B496FF B4FF78 FF1E69 D2A55A 784B78
1E692D E11EC3 A5D2A5 9600C3 69C3D2 962D96 D20FF0 A54B00 961E4B 3C1ED2 693C0F 005AD2 96962D 00D21E 4B8778 78D287
C3784B 5A2D96 E1A5B4 C31E87 FF6996 A5B4FF 96695A B4D25A 96FFD2 D269E1 FFE1FF 7878A5 0000FF C387D2 D2D278 692D78
00D2C3 69873C FF9678 872DB4 C31E4B 78FFB4 F0F000 784B5A 96FF5A D24BE1 961E69 E1B4E1 004BFF 96000F FF0096 5AFFFF
E1873C B4A569 D29687 964B2D FFB4FF C31E69 96691E 1E4BA5 E10FA5 C378FF 3C6987 FFE1B4 9669C3 D2C33C F0871E D23C1E
2DB43C 0069FF FFD2C3 F02D78 69B4A5 87875A 5A2DB4 78A5C3 FF78E1 6900C3 E1F0A5 00F0C3 1E3CD2 F0003C 2DA5A5 A5694B
D2F087 783C3C 4BB4E1 69C35A F078C3 4B00E1 C300D2 1E8796 69E187 FFB4A5 4B4B1E 2D5A96 A52D00 96E14B F07878 FFA569
F0D269 3C78E1 FF5A2D 007869 FFC3E1 2D96FF F0784B 964BB4 D2B496 F078A5 00782D C35A3C F096FF 3CD296 783C5A A500E1
A578B4 FFC34B 785A78 4BE100 5AA569 4B5A1E D25A96 A587B4 C3E1A5 78F069 00A54B B4D2F0 FF96C3 A54B5A E16987 3C693C
96D2D2 E15AD2 A5F0D2 783C78 B4780F 96D269 4B3C87 2D3CA5 C35AF0 6969A5 005A3C FFD296 2D4B69 C3B44B D28796 7800E1
FF4BC3 782D5A B45A96 E14B87 C33C87 B4D2B4 A596F0 87F000 788769 FFB487 4B69C3 A56978 87C378 7887D2 E1F05A 78694B
960087 3C4BC3 B4FF2D 693C2D 874B0F F096D2 2D5A4B C3C34B E1695A C396B4 692DF0 E196F0 3C960F 001EF0 B44BD2 4BE1B4
B44BB4 8700A5 961E1E E17887 785AE1 963CFF 6987E1 2D965A A5E1D2 6969D2 87E1E1 A569B4 3C4B87 0087C3 783CE1 694BA5
C3694B 784BB4 C33C69 B4B487 78A55A E1D2FF B46987 87A578 780F96 783C4B 784BC3 78FF87 6978F0 E1B400 F096A5 FF78B4
872DD2 D2C378 4BFFC3 A5FF69 87B4F0 E11E96 C300B4 5AD2F0 2DA5E1 A5A5E1 E1B4F0 C3F078 B43CE1 78F0F0 1E5A69 96FFA5
69783C 87FFF0 B478F0 694B96 E1963C 5AF096 A50FA5 9687C3 87B44B 5A1EB4 B40087 E1782D C396D2 965A0F C31E3C E0E0E0
"""
PALETTE: Final = torch.tensor([list(bytes.fromhex(code)) for code in _HEX.split()], dtype=torch.uint8)
"""``(256,3)`` uint8, RGB color of each label; all differ. Do not write to it."""
_BORDER_DARKENING = 0.35
"""What is left of a color on the border of its region."""
_LONGEST_NAME = 40
"""Characters of a name that a legend shows."""
_FONT_SIZE, _SWATCH, _GAP = 16, 24, 8
"""Pixels."""


def colorize(maps: Tensor) -> Tensor:
    """Return the colors ``(...,3)`` uint8 of labels ``(...)``, integers in [0, 255], on the device of ``maps``."""
    return PALETTE.to(maps.device)[maps.long()]


def find_borders(maps: Tensor) -> Tensor:
    """Return where labels ``(T,H,W)`` differ from the pixel to the right or below, boolean ``(T,H,W)``."""
    require_shape("maps", maps, "T H W")
    borders = torch.zeros_like(maps, dtype=torch.bool)
    borders[:, :, :-1] |= maps[:, :, :-1] != maps[:, :, 1:]
    borders[:, :-1] |= maps[:, :-1] != maps[:, 1:]
    return borders


def draw_overlay(frames: Tensor, maps: Tensor, opacity: float = 0.5, *, borders: bool = True) -> Tensor:
    """Lay the colors of labels ``(T,H,W)`` over frames ``(T,H,W,3)``, with a dark line of one pixel between regions."""
    sizes = require_shape("frames", frames, "T H W 3")
    require_shape("maps", maps, "T H W", T=sizes["T"], H=sizes["H"], W=sizes["W"])
    if not 0 <= opacity <= 1:
        raise InputError(f"`opacity` must lie in [0, 1], but got {opacity}. Use 0.5 to see frame and labels alike.")
    colors = colorize(maps).to(frames).div_(255)
    if borders:
        colors[find_borders(maps)] *= _BORDER_DARKENING
    return torch.lerp(frames, colors, opacity)


def paint_pixels(pixels: Tensor, labels: Tensor) -> Tensor:
    """Return what `draw_overlay` does, half of it frame, for one frame ``(H,W,3)`` and labels ``(H,W)``, all uint8."""
    colors = Image.fromarray(labels.cpu().numpy(), "P")
    colors.putpalette(PALETTE.flatten().tolist())
    painted = np.asarray(Image.blend(Image.fromarray(pixels.cpu().numpy()), colors.convert("RGB"), 0.5)).copy()
    flat = np.flatnonzero(find_borders(labels[None]).cpu().numpy())
    shown, dark = pixels.cpu().view(-1, 3)[flat], colorize(labels.cpu().view(-1)[flat]) * _BORDER_DARKENING
    painted.reshape(-1, 3)[flat] = (shown.float() + dark).div_(2).round_().byte().numpy()
    return torch.from_numpy(painted)


def draw_legend(regions: Sequence[Region], rows: int = 24) -> Tensor:
    """Draw the color, the label and the name of each region, in columns of ``rows``: ``(H,W,3)`` uint8 on white.

    Names beyond 40 characters are cut, line breaks become spaces, letters lose their accents, and characters that are
    not ASCII become question marks.
    """
    if not regions:
        raise InputError("`regions` must hold at least one region, but got none. Pass those of the label maps.")
    font = ImageFont.load_default(_FONT_SIZE)
    texts = [_format_legend(region) for region in regions]
    text_width = max(int(font.getlength(text)) + 1 for text in texts)
    column_width, row_height = _SWATCH + text_width + 3 * _GAP, _SWATCH + _GAP
    size = (-(-len(texts) // rows) * column_width, min(len(texts), rows) * row_height + _GAP)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for index, (region, text) in enumerate(zip(regions, texts, strict=True)):
        column, row = divmod(index, rows)
        x, y = column * column_width + _GAP, row * row_height + _GAP
        color = tuple(PALETTE[region.label].tolist())
        draw.rectangle((x, y, x + _SWATCH - 1, y + _SWATCH - 1), fill=color, outline="black")
        draw.text((x + _SWATCH + _GAP, y + _SWATCH // 2), text, fill="black", font=font, anchor="lm")
    return torch.from_numpy(np.array(picture))


def _format_legend(region: Region) -> str:
    """Return the line of a region: its label, and its name as far as Pillow's font goes (ASCII)."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", region.name) if not unicodedata.combining(char))
    name = " ".join(plain.encode("ascii", "replace").decode().split())
    if len(name) > _LONGEST_NAME:
        name = name[: _LONGEST_NAME - 3] + "..."
    return f"{region.label}  {name}".strip()
