"""Every setting that is a number has limits, which are checked before any work."""

from __future__ import annotations

import doctest
import math

import pytest
from vidseg.core import types
from vidseg.core.config.overrides import list_setting_names
from vidseg.core.config.parts import LIMITS
from vidseg.core.config.settings import Settings, preset, replace_parts
from vidseg.core.types import InputError

DEFAULT = Settings()
NUMBERS = [
    name
    for name in list_setting_names(DEFAULT)
    if type(getattr(getattr(DEFAULT, name.split(".")[0]), name.split(".")[1])) in {int, float}
]


def with_value(name: str, value: object, settings: Settings = DEFAULT) -> Settings:
    part, field = name.split(".")
    return replace_parts(settings, **{part: {field: value}})


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_limits(name: str) -> None:
    for value in (math.nan, math.inf, -math.inf, 10**12, -(10**12)):
        with pytest.raises(InputError, match=f"^`{name}` must .*, but got .*\\.$"):
            with_value(name, value)


@pytest.mark.parametrize("name", LIMITS)
def test_both_ends_can_be_reached_and_not_passed(name: str) -> None:
    settings = replace_parts(DEFAULT, feature={"step": 0}, modulation={"step": 0})
    for end, beyond in zip(LIMITS[name], (-1, 1), strict=True):
        with_value(name, end, settings)
        with pytest.raises(InputError, match=name):
            with_value(name, end + beyond, settings)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("difference.blur_size", 4, "odd"),
        ("difference.blur_sigma", 0.0, r"\[0.01, 1000\]"),
        ("difference.blur_sigma", -1.0, r"\[0.01, 1000\]"),
        ("scene.remembered_tokens", 0, r"\[1, "),
        ("feature.step", 25, r"\[0, 24\], but got 25. Lower it, or raise `sampling.num_steps`"),
        ("modulation.step", 25, r"\[0, 24\]"),
        ("feature.blocks", (), r"\(6, 7, 8\), whose queries lie on the coarse grid, but got \(\)"),
        ("feature.blocks", (3, 7), r"\(6, 7, 8\), whose queries lie on the coarse grid, but got \(3, 7\)"),
        ("feature.blocks", (9, 10, 11), r"\(6, 7, 8\)"),
        ("feature.matching_block", 9, r"\(6, 7, 8\)"),
        ("modulation.block", 2, r"\(3, 4, 5, .*, which hold attention"),
    ],
)
def test_settings_that_cannot_work_are_refused(name: str, value: object, said: str) -> None:
    with pytest.raises(InputError, match=f"^`{name}` must .*{said}"):
        with_value(name, value)


def test_every_block_with_attention_can_be_modulated() -> None:
    for block in range(3, 12):
        assert replace_parts(preset("default", "svd"), modulation={"block": block}).modulation.block == block


def test_doctests() -> None:
    assert doctest.testmod(types).failed == 0
