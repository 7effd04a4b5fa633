"""Progress bar, time left and interruption, as the core's progress callback."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import comfy.model_management
import comfy.utils
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context

from ...core.backbones.memory import PeakMemory
from ...core.progress import REFRESH_INTERVAL, STAGE_SHARES, RunProgress

logger = logging.getLogger(__name__)
BAR_UNITS = 1000
"""Units of the bar of a node."""
QUIET_SECONDS = 2.0
"""Work that is shorter shows no text, which would stay on the node."""


class NodeDisplay:
    """The bar of the running node, and its text if wanted, which stays and takes room from the node's picture.

    A node that has shown a text gets a last one when it ends, is stopped or fails, in this run or in a later one.
    """

    _with_text: ClassVar[set[str]] = set()  # ids of nodes

    def __init__(self, *, has_text: bool = True) -> None:
        self._bar = comfy.utils.ProgressBar(BAR_UNITS)
        self._begin = time.monotonic()
        self._has_text = has_text
        self._shown: float | None = None

    def show(self, fraction: float, text: str, *, last: bool) -> None:
        """Show a fraction in [0, 1], and a text at most once in `REFRESH_INTERVAL` seconds; that of a start at once."""
        self._bar.update_absolute(round(BAR_UNITS * fraction), BAR_UNITS)
        now = time.monotonic()
        if self._shown is None:
            due = fraction == 0 or now - self._begin >= QUIET_SECONDS
        else:
            due = last or now - self._shown >= REFRESH_INTERVAL
        is_end = last and fraction >= 1 and _find_node() in self._with_text
        if self._has_text and (due or is_end):
            self._shown = now
            self._with_text.update(filter(None, [_find_node()]))
            _send_text(text)

    def stop(self) -> None:
        """Let no time left stay on a node that was stopped."""
        if self._shown is not None or _find_node() in self._with_text:
            _send_text("stopped")

    @classmethod
    def stop_node(cls) -> None:
        """Let no time left stay on the running node, which was stopped or failed."""
        if _find_node() in cls._with_text:
            _send_text("stopped")

    def close(self) -> None:
        """Nothing to restore."""


class NodeProgress(RunProgress):
    """Shows the progress of a node in the host, and stops where the user asked to."""

    def __init__(self, shares: Mapping[str, float] = STAGE_SHARES, *, has_text: bool = True) -> None:
        """Start an empty bar on the running node."""
        self._node = NodeDisplay(has_text=has_text)
        super().__init__(self._node, shares)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Advance; raises the host's exception when the user interrupts."""
        if comfy.model_management.processing_interrupted():
            self._node.stop()
        comfy.model_management.throw_exception_if_processing_interrupted()
        super().__call__(stage, done, total)


@contextmanager
def log_peak(name: str) -> Iterator[None]:
    """Log the peak memory of the host's process, never reset, when the node ``name`` ends, fails or is stopped."""
    peak = PeakMemory(comfy.model_management.get_torch_device())
    try:
        yield
    finally:
        logger.info("VidSeg: %s: peak of this process %s", name, peak.text())


def _send_text(text: str) -> None:
    """Show a line of text on the running node, where there is a server and a node."""
    module = sys.modules.get("server")  # not imported where nodes are called without a server
    server: Any = getattr(getattr(module, "PromptServer", None), "instance", None)
    node = _find_node()
    if server is not None and node is not None:
        server.send_progress_text(text, node)


def _find_node() -> str | None:
    """Return the id by which the browser knows the running node, or None; a loop runs copies with ids of their own."""
    context = get_executing_context()
    return None if context is None else str(get_progress_state().dynprompt.get_display_node_id(context.node_id))
