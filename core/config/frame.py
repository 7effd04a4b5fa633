"""How much of a clip's frames the model sees."""

from __future__ import annotations

from dataclasses import dataclass

from ..types import SettingError
from .fields import Part, setting

MIN_TILE = 128
"""Side of a tile in pixels at least: tiles begin at multiples of 64, and share a quarter or more (ours)."""


@dataclass(frozen=True)
class FrameConfig(Part):
    """How frames are brought to a size that the model takes."""

    max_side: int = setting(
        0, "Longer side in pixels that frames are reduced to before processing; 0 keeps their size. Smaller is faster "
        "and coarser; twice the side takes four times as long or more", "code", low=0, high=16_384,
    )  # fmt: skip
    tiles: int = setting(
        0, "Longer side in pixels of a tile, for frames larger than those that the model was trained on: features are "
        "read in overlapping tiles, and averaged where they overlap; 0 reads whole frames. Time grows with the number "
        "of tiles: three of 448 pixels for a frame of 832x448. Modulation sees whole frames all the same", "ours",
        low=0, high=16_384,
    )  # fmt: skip

    def check(self) -> None:
        """Check each value, and that tiles can overlap."""
        super().check()
        if 0 < self.tiles < MIN_TILE:
            raise SettingError("frame.tiles", f"be 0 or at least {MIN_TILE}", self.tiles, "Choose larger tiles, or 0")

    def require_whole(self) -> None:
        """Check that the model sees whole frames, as Stable Video Diffusion and vision models do."""
        if self.tiles:
            limit = "be 0 with Stable Video Diffusion and with vision models, which see whole frames"
            raise SettingError("frame.tiles", limit, self.tiles, "Set it to 0")
