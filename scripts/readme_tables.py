"""Write the tables of README.md that come from `core/config/parts.py`; `tests/test_readme.py` compares them.

Run it from the root of the project: `python scripts/readme_tables.py`.
"""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

from vidseg.core.config import parts as config_parts
from vidseg.core.config import settings as config

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"
NAMES = ("default", "paper", "reference", "emerdiff")


def descriptions() -> dict[str, str]:
    """Return the text below each field of the settings, by ``Class.field``."""
    found = {}
    tree = ast.parse(Path(config_parts.__file__).read_text(encoding="utf-8"))
    for node in [node for node in tree.body if isinstance(node, ast.ClassDef)]:
        for field, text in zip(node.body, node.body[1:], strict=False):
            is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            if is_text and isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                found[f"{node.name}.{field.target.id}"] = " ".join(str(text.value.value).split())
    return found


def shown(value: object) -> str:
    """Return a value as a table shows it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_table() -> str:
    """Return the table of all settings and their values in each preset."""
    texts = descriptions()
    presets = [*(config.PRESETS[name] for name in NAMES), config.preset(NAMES[0], "svd")]
    titles = [*NAMES, "default with SVD"]
    rows = [f"| setting | what it does | {' | '.join(titles)} |", "| --- | --- |" + " --- |" * len(titles)]
    for part in fields(config.Settings):
        values = [getattr(settings, part.name) for settings in presets]
        if isinstance(values[0], str):
            continue
        for field in fields(values[0]):
            text = texts[f"{type(values[0]).__name__}.{field.name}"].replace("|", "\\|").replace("``", "`")
            first = shown(getattr(values[0], field.name))
            others = [shown(getattr(value, field.name)) for value in values[1:]]
            cells = [first, *("" if other == first else other for other in others)]
            rows.append(f"| `{part.name}.{field.name}` | {text} | {' | '.join(cells)} |")
    return "\n".join(rows)


def with_tables(readme: str) -> str:
    """Return the README with its table between the two marks replaced."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{settings_table()}\n\n{END}{after}"


def main() -> None:
    """Replace the table in place."""
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
