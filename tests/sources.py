"""The project's own source files, read as syntax trees by the tests of structure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "vidseg"


def source_files(*folders: str) -> list[Path]:
    """Return the Python files under the folders, sorted; the root stands for the files directly in it."""
    files = [ROOT / "__init__.py"] if "." in folders else []
    for folder in folders:
        if folder != ".":
            files += sorted((ROOT / folder).rglob("*.py"))
    return files


def module_name(path: Path) -> str:
    """Return what a source file is imported as: ``vidseg.core.config.settings``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join((PACKAGE, *parts)).removesuffix(".__init__")


def imported_modules(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield the full name of each imported module, and whether it is imported when the file is (not only typed)."""
    yield from _imports(ast.parse(path.read_text(encoding="utf-8")).body, path, at_import=True)


def _imports(body: list[ast.stmt], path: Path, *, at_import: bool) -> Iterator[tuple[str, bool]]:
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from ((alias.name, at_import) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield from ((name, at_import) for name in _from_names(statement, path))
        else:
            here = at_import and not _is_deferred(statement)
            for field in ("body", "orelse", "finalbody"):
                yield from _imports(getattr(statement, field, []), path, at_import=here)
            for handler in getattr(statement, "handlers", []):
                yield from _imports(handler.body, path, at_import=here)


def _is_deferred(statement: ast.stmt) -> bool:
    is_typing = isinstance(statement, ast.If) and ast.unparse(statement.test) in {
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    }
    return is_typing or isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)


def _from_names(statement: ast.ImportFrom, path: Path) -> list[str]:
    """Return the modules that ``from x import a, b`` loads: ``x``, or ``x.a`` where that is a module of ours."""
    base = statement.module or ""
    if statement.level:
        package = module_name(path).split(".")
        if path.name != "__init__.py":
            package = package[:-1]
        package = package[: len(package) - statement.level + 1]
        base = ".".join([*package, base] if base else package)
    names = []
    for alias in statement.names:
        inner = ROOT.joinpath(*base.split(".")[1:], alias.name)
        is_module = base.split(".")[0] == PACKAGE and (inner.with_suffix(".py").is_file() or inner.is_dir())
        names.append(f"{base}.{alias.name}" if is_module else base)
    return sorted(set(names))
