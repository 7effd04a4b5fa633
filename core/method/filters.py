"""What difference maps pass through: blur, normalizing, and the filter by the coarse mask (paper 4.3, Eq. 6)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..config.parts import DifferenceConfig
from ..types import MAX_LABEL, SettingError

GRAY_LEVEL = 1 / 255
"""One level of an 8-bit picture: smaller maxima are noise, which normalizing must not blow up."""


def blur_maps(maps: Tensor, config: DifferenceConfig) -> Tensor:
    """Blur maps ``(B,H,W)`` with a Gaussian window; beyond the border they are mirrored without repeating the edge.

    Equal to OpenCV's ``GaussianBlur`` with ``BORDER_REFLECT_101``.

    Raises:
        InputError: the kernel is even, or does not fit into the maps.
    """
    size = config.blur_size
    if size % 2 == 0 or size // 2 >= min(maps.shape[1:]):
        limit = 2 * min(maps.shape[1:]) - 1
        wanted = f"be odd and at most {limit} for these frames"
        raise SettingError("difference.blur_size", wanted, size, "Lower it")
    if size == 1:
        return maps
    places = torch.arange(size, dtype=maps.dtype, device=maps.device) - size // 2
    kernel = torch.exp(-places.square() / (2 * config.blur_sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(maps[:, None], (size // 2,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, size))
    return F.conv2d(rows, kernel.view(1, 1, size, 1))[:, 0]


def normalize_maps(maps: Tensor, owners: Tensor | None = None) -> Tensor:
    """Divide each of the maps ``(B,H,W)`` by its maximum, or by one gray level if that is larger.

    With ``owners`` ``(B,H,W)`` int64 in [0, 255], each pixel by the maximum of the pixels with its owner.

    >>> normalize_maps(torch.tensor([[[0.0, 0.5]]])).tolist()
    [[[0.0, 1.0]]]
    """
    if owners is None:
        return maps / maps.amax((1, 2), keepdim=True).clamp(min=GRAY_LEVEL)
    flat = owners.flatten(1)
    largest = maps.new_zeros(len(maps), MAX_LABEL + 1).scatter_reduce_(1, flat, maps.flatten(1), "amax")
    return maps / largest.gather(1, flat).reshape(maps.shape).clamp(min=GRAY_LEVEL)


def filter_maps(maps: Tensor, masks: Tensor, strength: float) -> Tensor:
    """Weigh difference maps by ``strength`` outside the masks (paper Eq. 6).

    Args:
        maps: ``(B,H,W)`` of 0 or more.
        masks: ``(B,H,W)`` in [0, 1], may be soft.
        strength: weight outside, in [0, 1]; 1 changes nothing.
    """
    return maps * masks + strength * maps * (1 - masks)


def enlarge_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Return masks ``(B,h,w)`` enlarged to ``size`` with soft edges, ``(B,*size)`` float32 in [0, 1] (bicubic)."""
    soft = F.interpolate(masks[:, None].float(), size, mode="bicubic", align_corners=False)
    return soft[:, 0].clamp(0, 1)
