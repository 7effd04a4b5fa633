"""Layers that are named, such as ``3.0.query``: which there are, and in which order a pass comes by them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from ..config.parts import LAYER_KINDS, XL_ATTENTION_BLOCKS
from ..types import InputError
from .protocol import Layer

XL_DEPTHS = dict.fromkeys(XL_ATTENTION_BLOCKS[:3], 10) | dict.fromkeys(XL_ATTENTION_BLOCKS[3:], 2)
"""Transformer blocks in each decoder block of SDXL."""


class NamedLayer(NamedTuple):
    """What is read: of a decoder block, of one of its transformer blocks, which of `LAYER_KINDS`; in a pass's order."""

    block: int
    depth: int
    kind: int

    @property
    def name(self) -> str:
        """Its name."""
        return f"{self.block}.{self.depth}.{LAYER_KINDS[self.kind]}"


class AllRead(Exception):  # noqa: N818, no error
    """All that is wanted of a UNet call was read, and what comes after it need not be computed."""


def parse_layers(names: Sequence[Layer], depths: Mapping[int, int]) -> tuple[NamedLayer, ...]:
    """Return the layers of ``names`` in a UNet whose decoder blocks have so many transformer blocks.

    >>> parse_layers(["3.1.key"], XL_DEPTHS)
    (NamedLayer(block=3, depth=1, kind=1),)
    """
    known = {layer.name: layer for layer in _list_layers(depths)}
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        blocks = ", ".join(f"{block}.0 to {block}.{depth - 1}" for block, depth in depths.items())
        raise InputError(
            f"`layers` must name one of {', '.join(LAYER_KINDS)} of transformer blocks {blocks}, such as 3.0.query, "
            f"but got {unknown or 'none'}. Correct them."
        )
    return tuple(known[str(name)] for name in names)


def _list_layers(depths: Mapping[int, int]) -> Iterable[NamedLayer]:
    for block, count in depths.items():
        for depth in range(count):
            yield from (NamedLayer(block, depth, kind) for kind in range(len(LAYER_KINDS)))


class LayerReader:
    """Keeps what is ``wanted`` of a pass that shows its layers one after the other, and ends it at the last of them.

    With ``stops`` of False the pass goes on.
    """

    def __init__(self, wanted: Sequence[NamedLayer], *, stops: bool = True) -> None:
        self._wanted, self._last, self._stops = wanted, max(wanted), stops
        self._found: dict[NamedLayer, Tensor] = {}

    @property
    def blocks(self) -> range:
        """The decoder blocks that a pass must run."""
        return range(self._last.block + 1)

    def of_block(self, block: int) -> Callable[[int, str, Tensor], None]:
        """Return what a decoder block shows its transformer blocks to: number, kind, and ``(E,N,C)``."""

        def note(depth: int, kind: str, tokens: Tensor) -> None:
            self.add(NamedLayer(block, depth, LAYER_KINDS.index(kind)), tokens)

        return note

    def add(self, layer: NamedLayer, tokens: Tensor) -> None:
        """Take in a layer; raise `AllRead` at the last one that is wanted."""
        if layer in self._wanted:
            self._found[layer] = tokens.float()
        if self._stops and layer == self._last:
            raise AllRead

    def results(self) -> tuple[Tensor, ...]:
        """Return what was read, ``(E,N,C)`` float32 each, in the order of ``wanted``."""
        return tuple(self._found[layer] for layer in self._wanted)
