"""What answers at once imports none of what takes seconds to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from vidseg.core.files.package import DEMO_MODEL

HEAVY = ("torch", "sklearn", "scipy", "av", "diffusers", "PIL")
CODE = """
import sys
from vidseg.core.command.main import main
try:
    code = main({words!r})
except SystemExit as ended:
    code = ended.code
heavy = [name for name in {heavy!r} if name in sys.modules]
print("imported", code, *heavy)
"""


def imports_of(*words: str) -> str:
    code = CODE.format(words=list(words), heavy=HEAVY)
    place = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=place)
    return ended.stdout.splitlines()[-1]


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["segment", "--help"], ["bench", "--help"]])
def test_help_and_version_import_nothing_heavy(words: list[str]) -> None:
    assert imports_of(*words) == "imported 0"


def test_models_are_described_without_torch() -> None:
    assert imports_of("info", str(DEMO_MODEL)).split()[:2] == ["imported", "0"]
    assert "torch" not in imports_of("info", str(DEMO_MODEL))
    assert "torch" not in imports_of("info", "nothing.safetensors")
