"""The README says what the program does."""

from __future__ import annotations

import importlib.util
import re

from .sources import ROOT

README = ROOT / "README.md"


def test_the_table_of_settings_is_current() -> None:
    """Else run `python scripts/readme_tables.py`."""
    spec = importlib.util.spec_from_file_location("readme_tables", ROOT / "scripts" / "readme_tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    text = README.read_text(encoding="utf-8")
    assert text == tables.with_tables(text)


def test_files_that_the_readme_links_to_are_there() -> None:
    text = README.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert not [link for link in links if not (ROOT / link).exists()]


def test_ci_runs_the_readme_s_test_command() -> None:
    command = "python -m pytest -n auto --dist loadfile --cov"
    assert command in README.read_text(encoding="utf-8")
    assert f"\n{command}\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
