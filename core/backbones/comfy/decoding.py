"""The host's decoder of pictures, whose layers of twice the size are folded while it works for us on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from comfy.ldm.modules.diffusionmodules.model import Upsample

from ..doubling import Doubling, can_fold


class Doublings:
    """The layers of a VAE that double maps, and what stands in for them; folded weights are kept for the next call."""

    def __init__(self, vae: Any) -> None:
        """Fold nothing yet."""
        self._vae = vae
        self._stand_ins: dict[Any, Doubling] = {}

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Let `Doubling` stand in for the layers, and leave them as they were."""
        layers = [layer for layer in self._vae.first_stage_model.modules() if _is_plain(layer)]
        try:
            for layer in layers:
                if layer not in self._stand_ins:
                    self._stand_ins[layer] = Doubling(layer.conv)
                layer.forward = self._stand_ins[layer]
            yield
        finally:
            for layer in layers:
                vars(layer).pop("forward", None)


def _is_plain(layer: Any) -> bool:
    """Return whether a layer doubles pictures as it was made to, without a patch of another node."""
    if not (isinstance(layer, Upsample) and layer.with_conv):
        return False
    is_patched = any("forward" in vars(part) or "_conv_forward" in vars(part) for part in (layer, layer.conv))
    is_patched |= bool(getattr(layer.conv, "weight_function", None))  # the host's way to change weights in a call
    return not is_patched and can_fold(layer.conv)
