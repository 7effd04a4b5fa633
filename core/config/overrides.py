"""Settings as text: ``part.field=value``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..types import SettingError
from .fields import SettingInfo
from .settings import SETTINGS, Settings, replace_values


def with_overrides(settings: Settings, overrides: Iterable[str]) -> Settings:
    """Return ``settings`` with each ``part.field=value`` applied in order.

    >>> with_overrides(Settings(), ["cluster.num_clusters=8", "feature.blocks=7,8"]).feature.blocks
    (7, 8)
    """
    values: dict[str, Any] = {}
    for override in overrides:
        key, separator, text = (word.strip() for word in override.partition("="))
        part, dot, _ = key.partition(".")
        if not separator or not dot:
            raise SettingError("overrides", "have the form part.field=value", repr(override), "Write it so")
        if key not in SETTINGS:
            known = [name for name in SETTINGS if name.startswith(f"{part}.")] or list(SETTINGS)
            raise SettingError("overrides", f"name one of {', '.join(known)}", key, "Choose one of them")
        values[key] = parse_value(SETTINGS[key], text)
    return replace_values(settings, values)


def parse_value(info: SettingInfo, text: str) -> Any:  # noqa: ANN401
    """Return ``text`` as a value of a setting: bool, int, float, word, or tuple of whole numbers."""
    if info.choices:
        return text  # checked by the part
    if info.kind is bool:
        if text.lower() in {"true", "false"}:
            return text.lower() == "true"
        raise SettingError(info.key, "be true or false", repr(text), "Write one of them")
    wanted = {int: "a whole number", float: "a number"}.get(info.kind, "numbers such as 6,7,8 with commas between")
    if info.kind == tuple[str, ...]:
        return tuple(name.strip() for name in text.split(",") if name.strip())
    try:
        return info.kind(text) if info.kind in {int, float} else tuple(int(item) for item in text.split(","))
    except ValueError as error:
        raise SettingError(info.key, f"be {wanted}", repr(text), "Correct it") from error
