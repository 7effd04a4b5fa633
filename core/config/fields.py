"""How a setting is declared: default, range, text and source are metadata of its dataclass field."""

from __future__ import annotations

from dataclasses import field, fields
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from ..types import SettingError

T = TypeVar("T")


def setting(
    value: T, text: str, source: str = "", *, low: float | None = None, high: float | None = None, why: str = ""
) -> T:
    """Declare a setting: its default, what it does, who says so, its range (ends included) and the range's reason."""
    about = {"text": text, "source": source, "low": low, "high": high, "why": why}
    made: T = field(default=value, metadata=about)
    return made


class SettingInfo(NamedTuple):
    """What is known of a setting, by its key such as ``window.length``; ``kind`` is the declared type."""

    key: str
    kind: Any
    value: Any
    text: str
    source: str
    low: float | None
    high: float | None
    why: str

    @property
    def choices(self) -> tuple[str, ...]:
        """Words that it takes, if it takes words."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def span(self) -> str:
        """Values that it takes, in words."""
        if self.kind is bool:
            return "on, off"
        if self.kind == tuple[str, ...]:
            return "names, with commas between"
        return ", ".join(self.choices) or ("" if self.low is None else f"{self.low} to {self.high}")

    def check(self, value: Any) -> None:  # noqa: ANN401
        """Raise `SettingError` if ``value`` is none of the choices or out of range; NaN is in no range."""
        if self.choices and value not in self.choices:
            raise SettingError(self.key, f"be one of {', '.join(self.choices)}", repr(value), "Choose one of them")
        numbers = value if isinstance(value, tuple) else (value,)
        if self.low is None or self.high is None or (numbers and all(self.low <= x <= self.high for x in numbers)):
            return
        verb = "hold numbers" if isinstance(value, tuple) else "lie"
        why = f", {self.why}" if self.why else ""
        raise SettingError(self.key, f"{verb} in [{self.low}, {self.high}]{why}", value, "Choose a value within")


@cache
def describe_fields(owner: type, prefix: str) -> tuple[SettingInfo, ...]:
    """Return what the fields of a dataclass say that `setting` declares."""
    kinds = get_type_hints(owner)
    declared = [item for item in fields(owner) if "text" in item.metadata]
    return tuple(SettingInfo(prefix + it.name, kinds[it.name], it.default, **it.metadata) for it in declared)


class Part:
    """Settings that belong together; `WindowConfig` holds those whose keys start with ``window.``."""

    @classmethod
    def describe(cls) -> tuple[SettingInfo, ...]:
        """Return what is known of its settings, in order."""
        owner: Any = cls  # mypy takes a class for something that cannot be hashed
        return describe_fields(owner, cls.__name__.removesuffix("Config").lower() + ".")

    def check(self) -> None:
        """Raise `SettingError` for a value that does not fit."""
        for info in self.describe():
            info.check(getattr(self, info.key.partition(".")[2]))
