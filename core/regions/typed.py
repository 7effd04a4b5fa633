"""What people type, the same here and in the browser (`web/js/picks_text.js`): lines, blanks, names, numbers.

- A text is cut into lines at CR LF, CR or LF, and nowhere else.
- Blanks are space, tab, vertical tab, form feed, the no-break space and the byte order mark.
- Digits are 0 to 9. A whole number has at most 9 of them, a fraction at most 40 characters.
- A name has no control characters, no halves of characters, and at most 200 characters. Two names are one if their
  lower-case forms are; blanks between words count as one space.
- A text has at most a million characters and 20,000 lines.

`tests/web/pick_lines.json` holds lines and what both sides make of them.
"""

from __future__ import annotations

import re

from ..types import MAX_NAME, InputError

MAX_TEXT, MAX_LINES = 1_000_000, 20_000
"""Characters and lines of a text at most, more than anybody types: a second of work in the host's event loop."""
BLANK = "[ \t\v\f\u00a0\ufeff]"
INK = "[^ \t\v\f\u00a0\ufeff]"
_BLANKS = " \t\v\f\u00a0\ufeff"
_LINE_END = re.compile(r"\r\n|\r|\n")
_NO_NAME = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_WHOLE = re.compile("[0-9]{1,9}")
_FRACTION = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")
_LONGEST_FRACTION = 40


def split_lines(text: str, field: str) -> list[str]:
    """Return the lines of what was typed into ``field``, without blanks around them."""
    if len(text) > MAX_TEXT:
        raise InputError(f"`{field}` must hold at most {MAX_TEXT} characters, but got {len(text)}. Shorten it.")
    lines = _LINE_END.split(text)
    if len(lines) > MAX_LINES:
        raise InputError(f"`{field}` must hold at most {MAX_LINES} lines, but got {len(lines)}. Shorten it.")
    return [strip_blanks(line) for line in lines]


def strip_blanks(text: str) -> str:
    """Return a text without blanks around it."""
    return text.strip(_BLANKS)


def clean_name(text: str) -> str | None:
    """Return a name with single spaces, or None where it is none."""
    name = " ".join(filter(None, re.split(f"{BLANK}+", text)))
    return None if _NO_NAME.search(name) or len(name) > MAX_NAME else name


def fold_name(name: str) -> str:
    """Return what is equal for equal names."""
    return name.lower()


def parse_whole(text: str) -> int | None:
    """Return a whole number, or None."""
    return int(text) if _WHOLE.fullmatch(text) else None


def parse_fraction(text: str) -> float | None:
    """Return a plain decimal number, or None."""
    return float(text) if len(text) <= _LONGEST_FRACTION and _FRACTION.fullmatch(text) else None
