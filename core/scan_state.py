"""What a run needs to go on after a finished window, kept in one file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .config.parts import ContextConfig
from .context import SceneContext
from .types import InputError, Region, Seeds


class ScanState(NamedTuple):
    """The scan after a window.

    Attributes:
        next_window: index of the first window that is not finished.
        seeds: labels of the anchor frame.
        context: scene context for that window.
    """

    next_window: int
    seeds: Seeds
    context: SceneContext

    def save(self, path: Path) -> None:
        """Write the state to ``path`` (safetensors); an existing file stays whole until the new one is."""
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.context.to_tensors().items()}
        tensors["cluster_map"] = self.seeds.cluster_map.contiguous()
        record = {"next_window": self.next_window, "anchor": self.seeds.anchor, "regions": self.seeds.regions}
        partial = path.with_suffix(".partial")
        save_file(tensors, partial, {"vidseg.state": json.dumps(record)})
        os.replace(partial, path)  # noqa: PTH105, atomic on every platform

    @classmethod
    def load(cls, path: Path, config: ContextConfig, device: torch.device | str = "cpu") -> ScanState:
        """Read a state written by `save`.

        Raises:
            InputError: there is no such file, or it is not whole.
        """
        try:
            with safe_open(path, "pt", str(device)) as file:
                record = json.loads(file.metadata()["vidseg.state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"`{path.name}` must be the state of a run, but got: {error}. Start the run anew."
            ) from error
        regions = tuple(Region(int(label), str(name)) for label, name in record["regions"])
        seeds = Seeds(record["anchor"], tensors.pop("cluster_map").cpu(), regions)
        return cls(record["next_window"], seeds, SceneContext.from_tensors(tensors, config))
