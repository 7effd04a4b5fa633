"""Every setting says what it does and what it takes, which is checked before any work."""

from __future__ import annotations

import ast
import doctest
import math
import re
from typing import Any

import pytest
from vidseg.core import types
from vidseg.core.config import settings as settings_module
from vidseg.core.config.settings import SETTINGS, Settings, preset, read_setting, replace_parts, replace_values
from vidseg.core.types import InputError, SettingError

from ...sources import source_files

DEFAULT = Settings()
NUMBERS = [key for key, about in SETTINGS.items() if about.kind in {int, float}]
RANGE = re.compile(r"must (lie in|be at (least|most)) \[?-?\d")
"""A range that is typed into a message."""


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_has_limits(key: str) -> None:
    for value in (math.nan, math.inf, -math.inf, 10**12, -(10**12)):
        with pytest.raises(InputError, match=f"^`{key}` must .*, but got .*\\.$"):
            replace_values(DEFAULT, {key: value})


@pytest.mark.parametrize("key", [key for key in NUMBERS if key not in {"feature.step", "modulation.step"}])
def test_both_ends_can_be_reached_and_not_passed(key: str) -> None:
    settings = replace_parts(DEFAULT, feature={"step": 0}, modulation={"step": 0})
    about = SETTINGS[key]
    for end, beyond in ((about.low, -1), (about.high, 1)):
        replace_values(settings, {key: end})
        with pytest.raises(InputError, match=key):
            replace_values(settings, {key: end + beyond})


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_tells_what_it_does(key: str) -> None:
    about = SETTINGS[key]
    assert len(about.text) > 20
    assert not about.text.endswith(".")
    assert about.span
    assert read_setting(DEFAULT, key) == about.value


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("difference.blur_size", 4, "odd"),
        ("difference.blur_sigma", 0.0, r"\[0.01, 1000\]"),
        ("difference.blur_sigma", -1.0, r"\[0.01, 1000\]"),
        ("scene.remembered_tokens", 0, r"\[1, "),
        ("feature.step", 25, r"\[0, 24\], but got 25. Lower it, or raise `sampling.num_steps`"),
        ("modulation.step", 25, r"\[0, 24\]"),
        ("feature.blocks", (), r"\[6, 8\], the blocks whose queries lie on the coarse grid, but got \(\)"),
        ("feature.blocks", (3, 7), r"\[6, 8\], the blocks whose queries lie on the coarse grid, but got \(3, 7\)"),
        ("feature.blocks", (9, 10, 11), r"\[6, 8\]"),
        ("feature.matching_block", 9, r"\[6, 8\]"),
        ("modulation.block", 2, r"\[3, 11\], the blocks which hold attention"),
        ("cluster.fit_frames", "long", "be one of window, anchor, clip, but got 'long'"),
    ],
)
def test_settings_that_cannot_work_are_refused(key: str, value: object, said: str) -> None:
    with pytest.raises(InputError, match=f"^`{key}` must .*{said}"):
        replace_values(DEFAULT, {key: value})


def test_an_error_is_told_in_the_words_of_its_reader() -> None:
    with pytest.raises(SettingError) as error:
        replace_values(DEFAULT, {"feature.step": 25})
    told = error.value.told({"feature.step": "feature_step", "sampling.num_steps": "--set sampling.num_steps"})
    assert told.startswith("`feature_step` must lie in [0, 24], but got 25. ")
    assert told.endswith("or raise `--set sampling.num_steps`.")


def test_every_block_with_attention_can_be_modulated() -> None:
    for block in range(3, 12):
        assert replace_parts(preset("default", "svd"), modulation={"block": block}).modulation.block == block


def test_no_message_types_the_range_of_a_setting() -> None:
    texts = [
        (path.name, node.value)
        for path in source_files("core", "nodes")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    told = [(name, text) for name, text in texts if any(text.startswith(f"`{key}`") for key in SETTINGS)]
    assert not [each for each in told if RANGE.search(each[1])]


@pytest.mark.parametrize("module", [types, settings_module])
def test_doctests(module: Any) -> None:
    assert doctest.testmod(module).failed == 0
