"""Lets a CUDA build of torchvision import beside a CPU build of torch, for the tests with a ComfyUI host."""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

_LIBRARIES = []


class _TorchvisionFinder(importlib.abc.MetaPathFinder):
    """Declares the two operators whose absence stops the import, just before torchvision is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find nothing; the work is the side effect."""
        del path, target
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch  # noqa: PLC0415  only when torchvision is wanted

            if torch.version.cuda is None:
                library = torch.library.Library("torchvision", "FRAGMENT")
                for operator in ("nms", "qnms"):
                    library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                _LIBRARIES.append(library)
        return None


sys.meta_path.insert(0, _TorchvisionFinder())
