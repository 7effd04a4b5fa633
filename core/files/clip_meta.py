"""What a file beside the frames of a clip tells: names of classes, frames per second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..documents import RATE_RANGE, Check, DamageError, maybe, number, read_document, record, sequence, text
from ..types import MAX_LABEL, InputError

META_FILE = "meta.json"
META = record({}, classes=maybe(sequence(text(), MAX_LABEL + 1)), fps=maybe(number(*RATE_RANGE)))
"""What the file of a clip may hold: names of its classes by number, frames per second."""


def read_optional(path: Path, check: Check, name: str) -> dict[str, Any]:
    """Return the checked JSON object of a file of the input ``name``, or an empty one where there is no file."""
    if not path.is_file():
        return {}
    try:
        return dict(read_document(path, check))
    except (OSError, DamageError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"`{name}` must hold readable files, but {path} {reason}. Correct it, or remove it."
        ) from error
