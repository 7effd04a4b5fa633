"""Say whether the tests in ComfyUI can run here."""

from __future__ import annotations

import pytest

from .conftest import REASON


def test_there_is_a_host() -> None:
    if REASON:
        pytest.skip(REASON)
