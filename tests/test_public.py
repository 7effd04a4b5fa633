"""The public names of the core are known, documented, and say nothing of the machine they were written on."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from .sources import ROOT, module_name, source_files

PRODUCT = ("core", "nodes", "scripts", "assets", "web", "locales", "example_workflows", "benchmarks")
TEXT_SUFFIXES = {".py", ".md", ".json", ".js", ".toml", ".txt", ".css", ".yaml"}
MACHINE = re.compile(r"(^|[^a-zA-Z.])/(work|tmp|root|home)/[a-z.]|\.\./shared|\bOneDrive\b|C:\\Users")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(path: Path) -> list[Definition]:
    """Return public functions and classes of a file, and public methods of public classes."""
    found: list[Definition] = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            found.append(node)
            if isinstance(node, ast.ClassDef):
                found += [
                    inner for inner in node.body if isinstance(inner, Definition) and not inner.name.startswith("_")
                ]
    return found


@pytest.mark.parametrize("path", source_files("core"), ids=module_name)
def test_everything_public_is_documented(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert not [node.name for node in definitions(path) if not ast.get_docstring(node)]


def product_files() -> list[Path]:
    files = [path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXT_SUFFIXES]
    for folder in PRODUCT:
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in TEXT_SUFFIXES]
    return sorted(path for path in files if "__pycache__" not in path.parts)


@pytest.mark.parametrize("path", product_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_names_a_machine(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if MACHINE.search(line)]
