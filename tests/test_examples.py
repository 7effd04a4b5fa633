"""Example workflows are easy to read when they are opened."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .sources import ROOT

EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
TITLE = 30
"""Height of the title above a node, pixels."""
Box = tuple[float, float, float, float]


def box_of(node: dict[str, Any]) -> Box:
    (left, top), (width, height) = node["pos"], node["size"]
    return left, top - TITLE, left + width, top + height


def overlap(first: Box, second: Box) -> bool:
    return all(first[axis] < second[axis + 2] and second[axis] < first[axis + 2] for axis in (0, 1))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_nothing_is_drawn_over_another(path: Path) -> None:
    graph = json.loads(path.read_text(encoding="utf-8"))
    boxes = {f"{node['id']} {node['type']}": box_of(node) for node in graph["nodes"]}
    assert not [names for names in combinations(boxes, 2) if overlap(*(boxes[name] for name in names))]
    for group in graph["groups"]:
        left, top, width, height = group["bounding"]
        frame = (left, top, left + width, top + height)
        inside = {name for name, box in boxes.items() if overlap(box, frame)}
        assert len(inside) == 5, inside  # the five stages alone


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_ids_that_are_typed_in_can_be_read_in_a_preview(path: Path) -> None:
    graph = json.loads((ROOT / "tests" / "nodes" / "graphs_api" / f"{path.stem}.json").read_text(encoding="utf-8"))
    shown = [node["inputs"]["labels"] for node in graph.values() if node["class_type"] == "PreviewRegions"]
    for node in graph.values():
        typed = node["inputs"].get("names", "") + node["inputs"].get("regions", "")
        assert not any(map(str.isdigit, typed)) or node["inputs"]["labels"] in shown, node


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_has_a_thumbnail_of_its_own(path: Path) -> None:
    pictures = {other.stem: other.with_suffix(".jpg").read_bytes() for other in EXAMPLES}
    assert not [name for name in pictures if name != path.stem and pictures[name] == pictures[path.stem]]
    with Image.open(path.with_suffix(".jpg")) as picture:
        assert 0.75 <= picture.width / picture.height <= 1.34  # the template browser shows squares
