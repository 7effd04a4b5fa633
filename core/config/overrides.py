"""Turn ``part.field=value`` texts, and keyword arguments, into settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..types import InputError
from .settings import Settings, replace_parts


def with_overrides(settings: Settings, overrides: Iterable[str]) -> Settings:
    """Return ``settings`` with each ``part.field=value`` applied in order.

    Raises:
        InputError: a text of another form, an unknown part or field, or a value that the field does not take.

    >>> with_overrides(Settings(), ["cluster.num_clusters=8", "feature.blocks=7,8"]).feature.blocks
    (7, 8)
    """
    values: dict[str, dict[str, Any]] = {}
    for override in overrides:
        name, separator, text = override.partition("=")
        part, dot, field = name.strip().partition(".")
        if not separator or not dot:
            raise InputError(f"`--set` must have the form part.field=value, but got {override!r}.")
        kind = _kind(settings, part, field)
        values.setdefault(part, {})[field] = parse_value(f"{part}.{field}", kind, text.strip())
    return replace_parts(settings, **values)


def list_setting_names(settings: Settings) -> tuple[str, ...]:
    """Return all names that ``--set`` takes: ``frame.max_side``, ``frame.rounding``, ..."""
    parts = [part.name for part in fields(settings) if part.name not in {"preset", "quality"}]
    return tuple(f"{part}.{field.name}" for part in parts for field in fields(getattr(settings, part)))


def _kind(settings: Settings, part: str, field: str) -> Any:  # noqa: ANN401, a type expression
    """Return the declared type of a setting."""
    names = list_setting_names(settings)
    if f"{part}.{field}" not in names:
        same_part = [name for name in names if name.startswith(f"{part}.")] or names
        raise InputError(f"`--set` must name one of {', '.join(same_part)}, but got {part}.{field}.")
    return get_type_hints(type(getattr(settings, part)))[field]


def parse_value(name: str, kind: Any, text: str) -> Any:  # noqa: ANN401, a type expression and a value of it
    """Return ``text`` as a value of ``kind``: bool, int, float, a Literal of texts, or a tuple of whole numbers.

    Raises:
        InputError: the text is no such value.
    """
    if get_origin(kind) is Literal:
        if text in get_args(kind):
            return text
        raise InputError(f"`{name}` must be one of {', '.join(get_args(kind))}, but got {text!r}.")
    if kind is bool:
        if text.lower() in {"true", "false"}:
            return text.lower() == "true"
        raise InputError(f"`{name}` must be true or false, but got {text!r}.")
    wanted = {int: "a whole number", float: "a number"}.get(kind, "whole numbers with commas between, such as 6,7,8")
    try:
        return kind(text) if kind in {int, float} else tuple(int(item) for item in text.split(","))
    except ValueError as error:
        raise InputError(f"`{name}` must be {wanted}, but got {text!r}.") from error


def with_changes(settings: Settings, changes: Mapping[str, object]) -> Settings:
    """Return ``settings`` with values of keyword arguments, named as `list_keywords` does or with a dot between.

    >>> with_changes(Settings(), {"num_clusters": 8, "modulation__enabled": False}).cluster.num_clusters
    8
    """
    keywords = list_keywords(settings)
    full = {keyword: keywords.get(keyword, keyword.replace("__", ".")) for keyword in changes}
    unknown = [keyword for keyword, name in full.items() if name not in keywords.values()]
    if unknown:
        raise InputError(
            f"`{unknown[0]}` must be a setting, but there is none of that name. Use {', '.join(keywords)}."
        )
    texts = [f"{full[keyword]}={_to_text(value)}" for keyword, value in changes.items()]
    try:
        return with_overrides(settings, texts)
    except InputError as error:
        raise error.calling({name: keyword for keyword, name in full.items()}) from None


def list_keywords(settings: Settings) -> dict[str, str]:
    """Return what each setting is called as a keyword argument: its field, or ``part__field`` where that is no name.

    Two parts may have a field of that name, or `segment` an argument.
    """
    names = list_setting_names(settings)
    count = Counter(["frames", *(name.split(".")[1] for name in names)])
    fields_of = {name: name.split(".")[1] for name in names}
    return {field if count[field] == 1 else name.replace(".", "__"): name for name, field in fields_of.items()}


def _to_text(value: object) -> str:
    """Return a value as `parse_value` reads it."""
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
