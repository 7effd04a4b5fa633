"""Progress bar and interruption, as the core's progress callback."""

from __future__ import annotations

import comfy.model_management
import comfy.utils


class NodeProgress:
    """Shows the progress of a node in the host, and stops where the user asked to."""

    def __init__(self) -> None:
        """Start an empty bar on the running node."""
        self._bar = comfy.utils.ProgressBar(1)

    def __call__(self, _stage: str, done: int, total: int) -> None:
        """Advance; raises the host's exception when the user interrupts."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._bar.update_absolute(done, total)
