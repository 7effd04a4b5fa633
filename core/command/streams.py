"""Text for people on streams that may be closed, full or know ASCII alone: it never changes how a run ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any, TextIO


class PatientStream:
    """A stream that leaves out what cannot be written, and writes other characters than its own as escapes."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.lost: Exception | None = None  # why something was left out

    def write(self, text: str) -> int:
        """Write as much as the stream takes."""
        if self._stream is not None:
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            plain = text.encode(encoding, "backslashreplace").decode(encoding)
            self._attempt(self._stream.write, plain)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, as far as the stream takes it."""
        if self._stream is not None:
            self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[..., object], *values: str) -> None:
        """Do something with the stream, or note why not."""
        try:
            action(*values)
        except (OSError, ValueError) as error:  # ValueError: closed
            self.lost = error

    def isatty(self) -> bool:
        """Tell whether a person sits at it."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401, whatever a stream has
        return getattr(self._stream, name)


def settle(stream: TextIO | None) -> None:
    """Flush a stream before the interpreter does: a reader that went away must not change the exit code."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
