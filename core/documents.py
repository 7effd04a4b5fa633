"""Read JSON that comes from files: size, depth, types and ranges are checked in one way, and damage is one line.

A `Check` takes a value and what to call it, and returns the value or raises `DamageError`. Checks are made of others::

    check = record({"label": whole(0, 255), "name": text()}, fps=number(0.001, 1000))
    parse_document(b'{"label": 3, "name": "sky"}', check)
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from .types import MAX_LABEL, MAX_NAME, Region, quote

MAX_BYTES = 1 << 26
"""Bytes of a document at most: the names of a million frames."""
MAX_DEPTH = 64
"""Levels of a document at most; ours have five."""
_MANY = 1 << 22
"""Entries of a list at most where nothing else limits them: frames of a clip of two days."""
RATE_RANGE = (0.001, 1000.0)
"""Frames per second that a clip may have."""


class DamageError(ValueError):
    """What is wrong with a document, as a sentence without subject."""


Check = Callable[[object, str], Any]


def parse_document(content: bytes | str, check: Check, what: str = "it") -> Any:  # noqa: ANN401, JSON
    """Return the checked value of a JSON text; raises `DamageError`."""
    if len(content) > MAX_BYTES:
        raise DamageError(f"is longer than {MAX_BYTES >> 20} MB")
    try:
        plain = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        value = json.loads(plain, object_pairs_hook=_unite, parse_constant=_parse_number, parse_float=_parse_number)
    except RecursionError as error:
        raise DamageError(f"is nested deeper than {MAX_DEPTH} levels") from error
    except DamageError:
        raise
    except ValueError as error:
        raise DamageError(f"is no JSON ({str(error).splitlines()[0][:100]})") from error
    _require_depth(value)
    return check(value, what)


def read_document(path: Path, check: Check, what: str = "it") -> Any:  # noqa: ANN401, JSON
    """Return the checked value of a JSON file; raises `DamageError`, or `OSError` where it cannot be read."""
    with path.open("rb") as file:
        return parse_document(file.read(MAX_BYTES + 1), check, what)


def whole(low: int, high: int) -> Check:
    """Check for a whole number in [low, high]."""

    def check(value: object, what: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise DamageError(f"holds {quote(value)} for {what}, which must be a whole number in [{low}, {high}]")
        return value

    return check


def number(low: float, high: float) -> Check:
    """Check for a finite number in [low, high]."""

    def check(value: object, what: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise DamageError(f"holds {quote(value)} for {what}, which must be a number in [{low:g}, {high:g}]")
        return float(value)

    return check


def text(longest: int = MAX_NAME) -> Check:
    """Check for a text of at most ``longest`` characters."""

    def check(value: object, what: str) -> str:
        if not isinstance(value, str) or len(value) > longest:
            raise DamageError(f"holds {quote(value)} for {what}, which must be a text of at most {longest} characters")
        return value

    return check


def flag(value: object, what: str) -> bool:
    """Check for true or false."""
    if not isinstance(value, bool):
        raise DamageError(f"holds {quote(value)} for {what}, which must be true or false")
    return value


def anything(value: object, _what: str) -> Any:  # noqa: ANN401, JSON
    """Take any value."""
    return value


def maybe(inner: Check) -> Check:
    """Check for null or what ``inner`` checks for."""
    return lambda value, what: None if value is None else inner(value, what)


def sequence(inner: Check, longest: int = _MANY) -> Check:
    """Check for a list of at most ``longest`` values, each checked by ``inner``."""

    def check(value: object, what: str) -> list[Any]:
        if not isinstance(value, list) or len(value) > longest:
            raise DamageError(f"holds {quote(value)} for {what}, which must be a list of at most {longest} values")
        return [inner(item, f"a value of {what}") for item in value]

    return check


def table(inner: Check, longest: int = 10_000) -> Check:
    """Check for an object of at most ``longest`` values by any name, each checked by ``inner``."""

    def check(value: object, what: str) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > longest:
            raise DamageError(f"holds {quote(value)} for {what}, which must be an object")
        return {name: inner(item, f"`{name[:40]}`") for name, item in value.items()}

    return check


def record(required: Mapping[str, Check], **optional: Check) -> Check:
    """Check for an object with these entries; others are kept as they are."""

    def check(value: object, what: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise DamageError(f"holds {quote(value)} for {what}, which must be an object")
        missing = [name for name in required if name not in value]
        if missing:
            raise DamageError(f"lacks `{missing[0]}`")
        known = {**required, **optional}
        return {name: known.get(name, anything)(item, f"`{name[:40]}`") for name, item in value.items()}

    return check


def make_regions(pairs: Iterable[tuple[object, object]]) -> tuple[Region, ...]:
    """Return regions of labels and names; each label is from 0 to 255 and there once."""
    label, name, found = whole(0, MAX_LABEL), text(), dict[int, str]()
    for each, called in pairs:
        if label(each, "a label") in found:
            raise DamageError(f"holds label {each} twice")
        found[label(each, "a label")] = name(called, "a name")
    return tuple(Region(*item) for item in found.items())


def region_pairs(value: object, what: str) -> tuple[Region, ...]:
    """Check for a list of pairs, label and name, that are regions."""
    pairs = sequence(sequence(anything, 2), MAX_LABEL + 1)(value, what)
    if any(len(pair) != 2 for pair in pairs):
        raise DamageError(f"holds {quote(value)} for {what}, which must be pairs of label and name")
    return make_regions((pair[0], pair[1]) for pair in pairs)


def region_records(value: object, what: str) -> tuple[Region, ...]:
    """Check for a list of objects with ``label`` and ``name`` that are regions."""
    each = record({"label": anything, "name": anything})
    return make_regions((item["label"], item["name"]) for item in sequence(each, MAX_LABEL + 1)(value, what))


def _parse_number(digits: str) -> float:
    """Return a finite number."""
    value = float(digits)
    if not math.isfinite(value):
        raise DamageError(f"holds the number {digits[:20]}, which is not finite")
    return value


def _unite(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; no name may be there twice."""
    united = dict(pairs)
    if len(united) < len(pairs):
        raise DamageError("holds an entry twice")
    return united


def _require_depth(value: object) -> None:
    """Check that a document is not nested too deep for what works on it."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise DamageError(f"is nested deeper than {MAX_DEPTH} levels")
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [item for items in inner for item in items]
