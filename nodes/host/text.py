"""Read what people type to choose, name and merge regions."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...core.types import InputError, Region, list_labels
from .labels import Labels

_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")


def join_labels(regions: Sequence[Region]) -> str:
    """Return the regions in words, for messages."""
    return ", ".join(f"{region.label} ({region.name})" for region in regions) or "none"


def choose_labels(text: str, regions: Sequence[Region], field: str = "regions") -> tuple[int, ...]:
    """Return the labels of regions chosen by id, range of ids or name, separated by commas or lines of ``field``.

    >>> choose_labels("sky, 3-5", (Region(1, "Sky"), Region(3, "a"), Region(5, "b")))
    (1, 3, 5)

    Raises:
        InputError: nothing is chosen, or something that is no region.
    """
    parts = [part.strip() for part in re.split(r"[,;\n]", text) if part.strip()]
    if not parts:
        raise InputError(
            f"`{field}` must name at least one region, but got nothing. There are: {join_labels(regions)}."
        )
    return tuple(sorted({label for part in parts for label in _labels_of(part, regions, field)}))


def _labels_of(part: str, regions: Sequence[Region], field: str) -> list[int]:
    named = [region.label for region in regions if region.name.casefold() == part.casefold()]
    span = _RANGE.fullmatch(part)
    low, high = (int(span[1]), int(span[2])) if span else (int(part), int(part)) if part.isdecimal() else (1, 0)
    found = named or [region.label for region in regions if low <= region.label <= high]
    if not found:
        raise InputError(f"`{field}` must name regions, but got {part!r}. There are: {join_labels(regions)}.")
    return found


def parse_names_and_merges(text: str, regions: Sequence[Region]) -> tuple[dict[int, str], dict[int, int]]:
    """Read lines such as ``person: 3, 7``: the regions named after the colon become one with the name before it.

    >>> parse_names_and_merges("person: 3, 7", (Region(3, "region 3"), Region(7, "region 7")))
    ({3: 'person'}, {7: 3})

    Returns:
        New name by label, and for each merged label the label that it becomes: the smallest of its line.

    Raises:
        InputError: a line has no colon or no name, or a region occurs twice.
    """
    names: dict[int, str] = {}
    merges: dict[int, int] = {}
    for line in filter(None, (line.strip() for line in text.splitlines())):
        name, colon, choice = (part.strip() for part in line.partition(":"))
        if not colon or not name:
            raise InputError(
                f"`names` must hold lines such as 'person: 3, 7', but got {line!r}. Put a name and a colon."
            )
        first, *others = choose_labels(choice, regions, "names")
        twice = sorted({first, *others} & (set(names) | set(merges)))
        if twice:
            raise InputError(f"`names` must name each region once, but got {twice} twice. Remove one of the lines.")
        names[first] = name
        merges.update(dict.fromkeys(others, first))
    return names, merges


def parse_class_names(text: str) -> dict[int, str]:
    """Read names of classes such as ``0: background, 1: dog``, separated by commas or lines."""
    names: dict[int, str] = {}
    for entry in filter(None, (entry.strip() for entry in re.split(r"[,;\n]", text))):
        number, _, name = (part.strip() for part in entry.partition(":"))
        if not number.isdecimal() or not name:
            raise InputError(
                f"`class_names` must hold entries such as '1: dog', but got {entry!r}. Put number, colon, name."
            )
        names[int(number)] = name
    return names


ALL_REGIONS = "Empty: all regions."


def choose_or_all(regions: str, labels: Labels) -> tuple[int, ...]:
    """Return the labels of the regions that a text lists, of all regions where it is empty."""
    return choose_labels(regions, labels.regions) if regions.strip() else list_labels(labels.regions)
