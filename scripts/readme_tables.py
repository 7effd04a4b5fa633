"""Write the table of docs/settings.md, which comes from `core/config/parts.py`; `tests/test_readme.py` compares it.

Run it from the root of the project: `python scripts/readme_tables.py`.
"""

from __future__ import annotations

from pathlib import Path

from vidseg.core.config.settings import PRESETS, SETTINGS, preset, read_setting

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"
NAMES = ("default", "paper", "reference", "emerdiff")


def shown(value: object) -> str:
    """Return a value as a table shows it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_table() -> str:
    """Return the table of all settings: what they do, by whom, what they take, and their values in each preset."""
    presets = [*(PRESETS[name] for name in NAMES), preset(NAMES[0], "svd")]
    titles = ["setting", "what it does", "takes", *NAMES, "default with SVD"]
    rows = [f"| {' | '.join(titles)} |", "|" + " --- |" * len(titles)]
    for key, about in SETTINGS.items():
        text = f"{about.text} ({about.source})." if about.source else f"{about.text}."
        first, *others = (shown(read_setting(settings, key)) for settings in presets)
        cells = [first, *("" if other == first else other for other in others)]
        rows.append(f"| `{key}` | {text} | {about.span} | {' | '.join(cells)} |")
    return "\n".join(rows)


def with_tables(page: str) -> str:
    """Return the page with its table between the two marks replaced."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{settings_table()}\n\n{END}{after}"


def main() -> None:
    """Replace the table in place."""
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
