"""Maps of twice the size in an autoencoder's decoder by one transposed convolution.

A decoder of Stable Diffusion repeats each pixel in a square of four and takes a 3x3 convolution of them. Several of its
nine weights meet the same pixel: their sums give the same maps with 4 products in place of 9, but for rounding (a share
of 1e-6). Three of these layers are a quarter of a decoder's work. On a CPU they take less than half of their time so;
on a GPU, which has quicker ways for 3x3, nothing is changed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

_PLAIN = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
"""What must be as in a convolution of 3x3 pixels and no more."""


class Doubling:
    """Stands in for the ``forward`` of a layer that repeats pixels and convolves them, and leaves its weights alone."""

    def __init__(self, conv: nn.Conv2d) -> None:
        """Sum up the weights ``(C',C,3,3)`` of the layer's convolution."""
        self._weight, self._bias = fold_weights(conv.weight.detach()), conv.bias

    def __call__(self, maps: Tensor, *_unused: None) -> Tensor:
        """Return maps ``(B,C',2h,2w)`` of ``(B,C,h,w)``. Decoders pass on nothing else for pictures."""
        return F.conv_transpose2d(maps, self._weight, self._bias, stride=2, padding=1)


def can_fold(conv: object) -> bool:
    """Return whether a layer is a plain 3x3 convolution that is quicker so, whose weights lose nothing when summed."""
    if not isinstance(conv, nn.Conv2d):
        return False
    is_quicker = conv.weight.device.type == "cpu" and conv.weight.dtype == torch.float32
    plain = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, device="meta")
    return is_quicker and all(getattr(conv, name) == getattr(plain, name) for name in _PLAIN)


def fold_weights(weight: Tensor) -> Tensor:
    """Return the weights ``(C,C',4,4)`` of the transposed convolution of stride 2 for 3x3 weights ``(C',C,3,3)``.

    >>> fold_weights(torch.ones(1, 1, 3, 3))[0, 0].tolist()
    [[1.0, 2.0, 2.0, 1.0], [2.0, 4.0, 4.0, 2.0], [2.0, 4.0, 4.0, 2.0], [1.0, 2.0, 2.0, 1.0]]
    """
    flipped = F.pad(weight.flip(-1, -2), (1, 1, 1, 1))  # a transposed convolution turns its weights
    rows = flipped[..., 1:, :] + flipped[..., :-1, :]
    return (rows[..., 1:] + rows[..., :-1]).transpose(0, 1).contiguous()
