"""Write the list of public names that `tests/test_public.py` compares. Run it from the root of the project."""

from __future__ import annotations

from tests.sources import source_files
from tests.test_public import INVENTORY, public_names


def main() -> None:
    """Write one name a line, sorted."""
    names = sorted(name for path in source_files("core") for name in public_names(path))
    INVENTORY.write_text("\n".join(names) + "\n", encoding="utf-8")
    print(f"{len(names)} names written to {INVENTORY.name}")


if __name__ == "__main__":
    main()
