"""Settings as keyword arguments of a Python call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ..types import InputError, SettingError
from .overrides import parse_value
from .settings import SETTINGS, Settings, replace_values


def with_changes(settings: Settings, changes: Mapping[str, object]) -> Settings:
    """Return ``settings`` with values of keyword arguments, named as `list_keywords` does or with a dot between.

    >>> with_changes(Settings(), {"num_clusters": 8, "modulation__enabled": False}).cluster.num_clusters
    8
    """
    keywords = list_keywords()
    keys = {keyword: keywords.get(keyword, keyword.replace("__", ".")) for keyword in changes}
    unknown = [keyword for keyword, key in keys.items() if key not in SETTINGS]
    if unknown:
        raise InputError(
            f"`{unknown[0]}` must be a setting, but there is none of that name. Use {', '.join(keywords)}."
        )
    try:
        values = {keys[word]: parse_value(SETTINGS[keys[word]], _to_text(value)) for word, value in changes.items()}
        return replace_values(settings, values)
    except SettingError as error:
        raise InputError(error.told({key: word for word, key in keys.items()})) from None


def list_keywords() -> dict[str, str]:
    """Return the key of each setting by its keyword: its field's name, or ``part__field`` where that is no name.

    Two parts may have a field of that name, or `segment` an argument.
    """
    fields = {key: key.partition(".")[2] for key in SETTINGS}
    count = Counter(["frames", *fields.values()])
    return {name if count[name] == 1 else key.replace(".", "__"): key for key, name in fields.items()}


def _to_text(value: object) -> str:
    """Return a value as `parse_value` reads it."""
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
