"""ComfyUI-VidSeg: consistent regions for whole videos, from the features of a diffusion model.

In Python: ``from vidseg import segment``; see `docs/python.md`. ComfyUI calls `comfy_entrypoint`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

    from .core.api import InputError, Region, Segmentation, Settings, load_model, segment, segment_windows

    __version__: str

__all__ = ["InputError", "Region", "Segmentation", "Settings", "load_model", "segment", "segment_windows"]

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> ComfyExtension:
    """Return the extension; the host is imported here alone, so that the core can be used without it."""
    from .nodes import VidSegExtension  # noqa: PLC0415

    return VidSegExtension()


def __getattr__(name: str) -> object:
    """Return a public name of the Python interface, which is imported when it is first used."""
    if name in __all__:
        from .core import api  # noqa: PLC0415

        return getattr(api, name)
    if name == "__version__":
        from .core.files.package import find_version  # noqa: PLC0415

        return find_version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
