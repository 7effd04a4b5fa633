"""The public names of the core are known, documented, and say nothing of the machine they were written on."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
import vidseg

from .sources import ROOT, module_name, source_files

PRODUCT = ("docs", "core", "nodes", "scripts", "assets", "web", "locales", "example_workflows", "benchmarks")
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


def documented_names() -> list[str]:
    """Return what the reference of docs/python.md has headings for."""
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    return re.findall(r"^### `(\w+)", text.partition("## Reference")[2], re.MULTILINE)


def test_public_names_are_those_that_the_docs_describe() -> None:
    assert sorted(documented_names()) == sorted(vidseg.__all__)
    assert {*vidseg.__all__, "__version__"} <= set(dir(vidseg))


@pytest.mark.parametrize("name", vidseg.__all__)
def test_public_names_have_a_full_docstring(name: str) -> None:
    thing = getattr(vidseg, name)
    text = inspect.getdoc(thing) or ""
    if inspect.isclass(thing):
        fields = getattr(thing, "_fields", None) or tuple(getattr(thing, "__dataclass_fields__", ()))
        assert text
        assert not [field for field in fields if not re.search(rf"^ +{field}: ", text, re.MULTILINE)]
        return
    parameters = inspect.signature(thing).parameters
    assert not [name for name in parameters if not re.search(rf"^ +(\*\*)?{name}: ", text, re.MULTILINE)]
    assert all(f"{section}:\n" in text for section in ("Args", "Returns", "Raises"))


def test_an_unknown_public_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'segmemt'"):
        vidseg.segmemt  # noqa: B018
