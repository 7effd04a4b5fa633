"""Help pages and locale say what the nodes are."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import pytest
from vidseg.nodes import NODES

from .graphs import NODE
from .host import REPOSITORY

DOCS, LOCALE = REPOSITORY / "web" / "docs", REPOSITORY / "locales" / "en"
ROW = re.compile(r"^\| `([^`|]+)`<br>([^|]+) \| ([^|]+) \|$", re.MULTILINE)
OF_THE_HOST = {
    *(
        "Start Loop",
        "End Loop",
        "Load Checkpoint",
        "Load VAE",
        "CLIP Text Encode",
        "Conditioning Zero Out",
        "Load Video",
        "Get Video Components",
        "Load Image",
        "Load Checkpoint Image Only",
        "Image Only Checkpoint Loader",
        "SVD_img2vid_Conditioning",
    ),
    *(
        "Create Video",
        "Save WEBM",
        "Save Image",
        "Load Image (as Mask)",
        "Get Image from Batch",
        "Convert Mask to Image",
    ),
    *("Preview Mask", "Grow Mask", "Feather Mask", "Set Latent Noise Mask", "VAE Encode (for Inpainting)"),
    "Image Composite Masked",
}
"""What the help calls nodes of the host, as its newest version does."""
SECTIONS = ("Wiring", "Inputs", "Outputs", "When the result is bad", "Limits")


def sections(node_id: str) -> dict[str, str]:
    """Return the parts of a help page by heading; the introduction has none."""
    parts = re.split(r"^## (.+)$", (DOCS / f"{node_id}.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(["", *parts[1::2]], parts[::2], strict=True))


def value_in_help(socket: Any) -> str:
    """Return what the help says about the type of an input, or about the value that it has at first."""
    default = getattr(socket, "default", None)
    if default is None:
        return " or ".join(socket.get_io_type().split(",")) + (", optional" if socket.optional else "")
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, str):
        return f"`{default}`" if default else "empty"
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_locale_is_current() -> None:
    """Else run `python -m scripts.make_locale`."""
    spec = importlib.util.spec_from_file_location("make_locale", REPOSITORY / "scripts" / "make_locale.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    written = {path.name: path.read_text(encoding="utf-8") for path in LOCALE.iterdir()}
    assert written == script.locale_files(NODES)


def test_each_node_has_a_page_and_each_page_a_node() -> None:
    assert {path.stem for path in DOCS.glob("*.md")} == set(NODE)


@pytest.mark.parametrize("node_id", sorted(NODE))
def test_help_has_its_parts(node_id: str) -> None:
    page = sections(node_id)
    assert tuple(filter(None, page)) == SECTIONS
    assert 1 <= page[""].count(". ") + page[""].count(".\n") <= 2, "two sentences say what the node does"
    assert "Paper: " in page["Limits"]
    assert "**this node**" in page["Wiring"].casefold()


@pytest.mark.parametrize("node_id", sorted(NODE))
def test_help_tells_every_input_and_output(node_id: str) -> None:
    schema, page = NODE[node_id].define_schema(), sections(node_id)
    inputs = [(row[0], row[1]) for row in ROW.findall(page["Inputs"])]
    assert inputs == [(socket.display_name or socket.id, value_in_help(socket)) for socket in schema.inputs]
    assert "\n| --- | --- | --- |\n" not in page["Inputs"] + page["Outputs"], "two columns fit the panel"
    outputs = [(row[0], row[1].removesuffix(" list")) for row in ROW.findall(page["Outputs"])]
    assert outputs == [(socket.display_name, socket.get_io_type()) for socket in schema.outputs]


@pytest.mark.parametrize("node_id", sorted(NODE))
def test_help_names_what_exists(node_id: str) -> None:
    page = (DOCS / f"{node_id}.md").read_text(encoding="utf-8")
    ours = {node.define_schema().display_name for node in NODES}
    assert set(re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", page)) <= ours | OF_THE_HOST
