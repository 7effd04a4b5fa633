"""Enlarging of coarse maps to the edges of the picture, without the model (ours; not in the paper)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .config.parts import EnlargingConfig
from .types import require_shape

LABELS_AT_A_TIME = 4
"""Labels filtered in one call: bounds the memory."""


def guided_map(cells: Tensor, picture: Tensor, frame_size: tuple[int, int], config: EnlargingConfig) -> Tensor:
    """Return the label of each pixel: that whose coarse mask, filtered along the picture's edges, is largest.

    Guided filter (He, Sun & Tang, TPAMI 2013) with the colours of the picture as guide; kornia's implementation.

    Args:
        cells: ``(h,w)`` int64 labels.
        picture: ``(H,W,3)`` uint8, the frame in the size that the model saw, on any device.
        frame_size: ``(H,W)`` of the result, pixels.
        config: radius, epsilon and subsampling of the filter.

    Returns:
        ``(*frame_size)`` uint8 on the CPU; ties go to the smallest label.
    """
    require_shape("picture", picture, "H W 3")
    labels = torch.unique(cells).to(picture.device)
    if len(labels) == 1:
        return torch.full(frame_size, int(labels[0]), dtype=torch.uint8)
    guide = picture.movedim(-1, 0)[None].float() / 255
    best = torch.full(frame_size, -torch.inf, device=picture.device)
    chosen = torch.zeros(frame_size, dtype=torch.uint8, device=picture.device)
    for group in torch.split(labels, LABELS_AT_A_TIME):
        masks = (cells.to(picture.device) == group[:, None, None]).float()[None]
        scores, indices = _filtered(masks, guide, frame_size, config).max(0)
        wins = scores > best
        best[wins], chosen[wins] = scores[wins], group.to(torch.uint8)[indices[wins]]
    return chosen.cpu()


def _filtered(masks: Tensor, guide: Tensor, frame_size: tuple[int, int], config: EnlargingConfig) -> Tensor:
    """Return masks ``(1,L,h,w)`` at ``frame_size``, filtered along the edges of ``guide`` ``(1,3,H,W)``."""
    from kornia.filters import guided_blur  # noqa: PLC0415, takes a second to import

    enlarged = F.interpolate(masks, guide.shape[2:], mode="bilinear", align_corners=False)
    smooth = guided_blur(
        guide, enlarged, 2 * config.guided_radius + 1, config.guided_epsilon, subsample=config.guided_subsample
    )
    return F.interpolate(smooth, frame_size, mode="bilinear", align_corners=False)[0]
