"""How a model is loaded wherever work is done, and the place that holds it between calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from ..backbones.memory import choose_device
from ..backbones.protocol import BackboneInfo, FeatureSource, find_vision
from ..checkpoints.describe import ModelDescription
from ..checkpoints.vision import VisionDescription
from ..files.clip import Clip, ClipInfo, reopen_clip

if TYPE_CHECKING:
    from collections.abc import Sequence

_SMALLEST = 64
"""Divisor of batches at most: none is larger."""


@dataclass(frozen=True)
class ModelSpec:
    """How a worker loads the model.

    Attributes:
        description: of the file or folder, or None.
        device: None for the best there is.
        dtype: floating-point type.
        features: of the folder of a vision model, the yardstick, or None.
        threads: of the CPU; the same on all workers, so that they add up numbers in the same order.
    """

    description: ModelDescription | VisionDescription | None
    device: str | None = None
    dtype: torch.dtype = torch.float32
    features: VisionDescription | None = None
    threads: int = field(default_factory=torch.get_num_threads)

    @property
    def kind(self) -> str:
        """``sd``, ``svd``, ``sdxl`` or ``vision``."""
        return self.description.kind if self.description else "sd"

    @property
    def info(self) -> BackboneInfo | None:
        """What the model is, as the loaded one says; None where there is none."""
        model = self.description
        if model is None:
            return None
        if isinstance(model, VisionDescription):
            return BackboneInfo(model.path.resolve().name, model.kind, "none", model.fingerprint)
        return BackboneInfo(model.path.name, model.kind, model.sizes.prediction_type, model.fingerprint)

    @property
    def has_model(self) -> bool:
        """Tell whether anything is to be loaded."""
        return self.description is not None or self.features is not None

    def choose_device(self) -> torch.device:
        """Return the device that was asked for, or the best one of this machine; the CPU where there is no model."""
        if not self.has_model:
            return torch.device("cpu")
        return torch.device(self.device) if self.device else choose_device()

    def load(self, description: ModelDescription | VisionDescription) -> FeatureSource:
        """Load the model, or the yardstick."""
        from ..backbones.diffusers.load import load_diffusers  # noqa: PLC0415, diffusers takes seconds to import

        return load_diffusers(description, dtype=self.dtype, device=self.choose_device())


class Workplace:
    """What is kept between calls at one place: the model, loaded when it is first used, and the clip that is read."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.divisor = 1  # of the batches, raised where memory ran out
        self.shown: tuple[float, str] | None = None  # how far the call under way is
        self._clip: tuple[Path, ClipInfo, Clip] | None = None

    @cached_property
    def backbone(self) -> FeatureSource | None:
        """The model, on its device; None where no job needs one."""
        return self._load(self.spec.description)

    @cached_property
    def features(self) -> FeatureSource | None:
        """The yardstick, on its device; None where no job needs one."""
        return self._load(self.spec.features)

    def _load(self, description: ModelDescription | VisionDescription | None) -> FeatureSource | None:
        loaded = None if description is None else self.spec.load(description)
        if loaded is None or find_vision(loaded):
            return loaded
        return cast("FeatureSource", _SmallerBatches(loaded, self))

    def open(self, path: Path, info: ClipInfo) -> Clip:
        """Return a clip that was checked elsewhere; it stays open until another is asked for."""
        if self._clip is None or self._clip[:2] != (path, info):
            self.close()
            self._clip = path, info, reopen_clip(path, info)
        return self._clip[2]

    def close(self) -> None:
        """Close the clip."""
        if self._clip is not None:
            self._clip[2].close()
            self._clip = None

    @property
    def has_least_batches(self) -> bool:
        """Tell whether batches are as small as they can be."""
        return self.divisor >= _SMALLEST

    def reduce_batches(self) -> None:
        """Halve the batches of this place from now on."""
        self.divisor *= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class _SmallerBatches:
    """A model whose batches are divided by the number that its place tells; results do not depend on them."""

    def __init__(self, backbone: Any, place: Workplace) -> None:  # noqa: ANN401, whatever gives features
        self._backbone, self._place = backbone, place

    def batch_size(self, latent_shape: Sequence[int]) -> int:
        """Return how many latents, and what is kept of them, are in work together; see `Backbone.batch_size`."""
        return max(1, int(self._backbone.batch_size(latent_shape)) // self._place.divisor)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401, whatever a model has
        return getattr(self._backbone, name)
