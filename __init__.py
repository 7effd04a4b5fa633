"""ComfyUI-VidSeg: consistent regions for whole videos, from the features of a diffusion model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> ComfyExtension:
    """Return the extension; the host is imported here alone, so that the core can be used without it."""
    from .nodes import VidSegExtension  # noqa: PLC0415

    return VidSegExtension()
