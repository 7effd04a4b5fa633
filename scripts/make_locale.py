"""Write the English locale of the nodes, which the host offers to translators and shows in its menus.

The texts are those of the nodes' schemas; `tests/nodes/test_in_host_locale.py` compares them. Run it from the root of
the project with the Python of a ComfyUI (its folder at $COMFYUI_PATH or ~/comfy/ComfyUI): `python -m
scripts.make_locale`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comfy_api.latest import io

LOCALE = Path(__file__).parents[1] / "locales" / "en"
SPECIAL = frozenset("{}@|")
"""Characters that the host's translation functions take for commands."""


def locale_files(nodes: Iterable[type[io.ComfyNode]]) -> dict[str, str]:
    """Return the text of each locale file by its name, from the schemas of ``nodes``."""
    schemas = [node.define_schema() for node in nodes]
    categories = sorted({part for schema in schemas for part in schema.category.split("/")})
    return {
        "main.json": _json({"nodeCategories": {name: _plain(name) for name in categories}}),
        "nodeDefs.json": _json({schema.node_id: _definition(schema) for schema in schemas}),
    }


def _definition(schema: io.Schema) -> dict[str, Any]:
    """Return what the host reads of one node: names and tooltips by id of the input and by number of the output."""
    parts: dict[str, Any] = {
        "display_name": _plain(schema.display_name),
        "description": _plain(schema.description),
        "inputs": {socket.id: _texts(socket) for socket in schema.inputs},
        "outputs": {str(number): _texts(socket) for number, socket in enumerate(schema.outputs)},
    }
    return {name: value for name, value in parts.items() if value}


def _texts(socket: io.Input | io.Output) -> dict[str, str]:
    texts = {"name": _plain(socket.display_name or socket.id)}
    return {**texts, "tooltip": _plain(socket.tooltip)} if socket.tooltip else texts


def _plain(text: str) -> str:
    """Return ``text``, which must not hold a character with a meaning in translations."""
    if SPECIAL & set(text):
        raise ValueError(f"{text!r} holds one of {' '.join(sorted(SPECIAL))}: write it in words")
    return text


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the files."""
    from tests.nodes.host import import_host  # noqa: PLC0415, known where this runs as `python -m`

    problem = import_host()
    if problem:
        raise SystemExit(problem)
    import vidseg  # noqa: PLC0415, after the host

    async def nodes() -> list[type[io.ComfyNode]]:
        return list(await (await vidseg.comfy_entrypoint()).get_node_list())

    for name, text in locale_files(asyncio.run(nodes())).items():
        (LOCALE / name).write_text(text, encoding="utf-8")
        print(f"{LOCALE / name} written")


if __name__ == "__main__":
    main()
