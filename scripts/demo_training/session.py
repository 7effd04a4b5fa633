"""How long this run may go on: a deadline, and a signal that asks it to stop."""

from __future__ import annotations

import signal
import time
from types import FrameType


class Session:
    """Tell a training loop when to save and stop; another run continues from the checkpoint."""

    def __init__(self, minutes: float = 0.0) -> None:
        """Start the clock; 0 minutes means no deadline."""
        self._deadline = time.monotonic() + minutes * 60 if minutes else float("inf")
        self._asked_to_stop = False

    def stop_on_signals(self) -> None:
        """Stop after the current step on SIGTERM or Ctrl-C."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._asked_to_stop = True

    @property
    def is_over(self) -> bool:
        """Whether to save and stop now."""
        return self._asked_to_stop or time.monotonic() >= self._deadline


def in_words(seconds: float) -> str:
    """Return a duration for people.

    >>> in_words(3725)
    '1 h 02 min'
    >>> in_words(125)
    '2 min 05 s'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
