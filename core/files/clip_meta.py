"""What a file beside the frames of a clip tells: names of classes, frames per second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..documents import RATE_RANGE, Check, DamageError, maybe, number, read_document, record, sequence, text
from ..types import MAX_LABEL, InputError, quote

META_FILE = "meta.json"


def _class_names(value: object, what: str) -> dict[int, str]:
    """Check for names of classes, a list in the order of their labels or an object by label."""
    if not isinstance(value, dict):
        return dict(enumerate(sequence(text(), MAX_LABEL + 1)(value, what)))
    labels = {str(label): label for label in range(MAX_LABEL + 1)}
    unknown = [key for key in value if key not in labels]
    if unknown:
        raise DamageError(f"holds {quote(unknown[0])} in {what}, which must be by labels from 0 to {MAX_LABEL}")
    return {labels[key]: text()(name, f"a name of {what}") for key, name in value.items()}


META = record({}, classes=maybe(_class_names), fps=maybe(number(*RATE_RANGE)))
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
