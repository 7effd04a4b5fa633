"""What a worker says of itself at its start: its machine, its version, its device, and the paths that it sees."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..files.package import find_version
from ..types import InputError, SettingError
from .model import Workplace

_FEW = 3
"""Paths that a message names."""


class Sight(NamedTuple):
    """What a worker says of itself: its machine, its version, its device, and paths that it does not see."""

    host: str
    version: str
    device: str
    missing: tuple[str, ...]


def look_around(place: Workplace, paths: Sequence[tuple[str, int | None]]) -> Sight:
    """Return what a worker says of itself, with those paths that are not there, or have another size."""
    missing = tuple(path for path, size in paths if describe_path(Path(path)) != (path, size))
    return Sight(platform.node(), find_version(), place.spec.choose_device().type, missing)


def describe_path(path: Path) -> tuple[str, int | None]:
    """Return a path, and the size of the file that is there; -1 where there is nothing, None for a folder."""
    try:
        return str(path), path.stat().st_size if path.is_file() else None if path.exists() else -1
    except OSError:
        return str(path), -1


def check_sights(sights: Sequence[Sight]) -> None:
    """Check that workers see all paths, run this version, and have devices of one kind."""
    for sight in sights:
        _check_sight(sight)
    if len(devices := sorted({sight.device for sight in sights})) > 1:
        got = f"workers with {' and '.join(devices)}"
        raise SettingError("device", "be of one kind on all workers", got, "Choose one of them")


def _check_sight(sight: Sight) -> None:
    if sight.missing:
        more = f" and {len(sight.missing) - _FEW} more" if len(sight.missing) > _FEW else ""
        raise InputError(
            f"`--engine ray` must have workers that see the same files, but {sight.host} does not see "
            f"{', '.join(sight.missing[:_FEW])}{more}, or in another size. Put it on a disk that all machines share, "
            "or copy it to the same place."
        )
    if sight.version != find_version():
        raise InputError(
            f"`--engine ray` must have workers of this version, {find_version()}, but {sight.host} has "
            f"{sight.version}. Install the same everywhere."
        )
