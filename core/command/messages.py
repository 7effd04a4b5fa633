"""What the command says beside its answers: errors in one line, and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from ..types import InputError

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130
"""Exit codes: input that cannot be processed; stopped by Ctrl-C, as shells report it."""


def explain(error: BaseException, words: Mapping[str, str]) -> str:
    """Return one line that says what is wrong and what to do, with ``words`` for the keys of settings."""
    if isinstance(error, InputError):
        return " ".join(error.told(words).split())
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return f"the system refused{where}: {error.strerror or error}. Check the path and its rights."
    if lacks_memory(error):
        return "memory ran out. Reduce --max-side or --window, or use --dtype fp16 on a GPU."
    return " ".join(str(error).split())


def lacks_memory(error: BaseException) -> bool:
    """Return whether memory ran out; torch tells, which is imported where that can happen."""
    from ..backbones.memory import is_out_of_memory  # noqa: PLC0415

    return is_out_of_memory(error)


def tell(text: str) -> None:
    """Write a line to the error stream."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
