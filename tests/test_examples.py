"""Example workflows are easy to read when they are opened."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .sources import ROOT

EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
TITLE = 30
"""Height of the title above a node, pixels."""
SLOT = 20
"""Height of a socket, pixels."""
READABLE, WINDOW = 0.59, (1600, 900)
"""Zoom above which the host draws text, and a window of a usual size."""
WITHOUT_DOWNLOAD, BYPASSED = {"01", "03", "06", "08", "09"}, 4
"""Examples that run as they are opened, and the host's mode of a node that is passed over."""
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
        cut = {name for name in inside if boxes[name][0] < left or boxes[name][2] > left + width}
        assert not cut
        assert len(inside) == 5 or "five stages" not in group["title"], inside


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


def wire_of(link: list[Any], nodes: dict[int, dict[str, Any]]) -> list[tuple[float, float]]:
    """Return points of the curve that the host draws for a link."""
    _, origin, slot, target, target_slot, _ = link
    (left, top), (width, _) = nodes[origin]["pos"], nodes[origin]["size"]
    start = (left + width, top + SLOT * (slot + 0.5))
    end = (nodes[target]["pos"][0], nodes[target]["pos"][1] + SLOT * (target_slot + 0.5))
    pull = math.dist(start, end) / 4
    bends = (start, (start[0] + pull, start[1]), (end[0] - pull, end[1]), end)
    weights = (((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3) for t in (n / 60 for n in range(61)))
    return [
        tuple(sum(w * bend[axis] for w, bend in zip(weight, bends, strict=True)) for axis in (0, 1))
        for weight in weights
    ]  # type: ignore[misc]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_no_wire_runs_over_a_note(path: Path) -> None:
    graph = json.loads(path.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in graph["nodes"]}
    notes = [box_of(node) for node in graph["nodes"] if node["type"] == "MarkdownNote"]
    assert notes
    for link in graph["links"]:
        crossed = [box for box in notes for x, y in wire_of(link, nodes) if box[0] < x < box[2] and box[1] < y < box[3]]
        assert not crossed, link


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_text_can_be_read_as_it_opens(path: Path) -> None:
    graph = json.loads(path.read_text(encoding="utf-8"))
    view = graph["extra"]["ds"]
    assert view["scale"] > READABLE
    boxes = [box_of(node) for node in graph["nodes"]]
    left, top = (min(box[axis] for box in boxes) + view["offset"][axis] for axis in (0, 1))
    assert 0 < left * view["scale"] < WINDOW[0] / 4
    assert 0 < top * view["scale"] < WINDOW[1] / 4
    if path.stem[:2] in WITHOUT_DOWNLOAD:
        right, bottom = (max(box[axis + 2] for box in boxes) + view["offset"][axis] for axis in (0, 1))
        assert right * view["scale"] <= WINDOW[0]
        assert bottom * view["scale"] <= WINDOW[1]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_without_a_download_run_nothing_that_needs_one(path: Path) -> None:
    graph = json.loads(path.read_text(encoding="utf-8"))
    loaders = [node["mode"] for node in graph["nodes"] if "Checkpoint" in node["type"]]
    if path.stem[:2] in WITHOUT_DOWNLOAD:
        assert loaders == [BYPASSED]
        assert any(node["type"] == "LoadDemoModel" for node in graph["nodes"])
        (text,) = (node["widgets_values"][0] for node in graph["nodes"] if "Ctrl+B" in str(node["widgets_values"]))
        assert "checkpoints" in text


def test_names_sort_in_the_order_wanted() -> None:
    assert [path.stem[:2] for path in EXAMPLES] == [f"{number:02d}" for number in range(1, len(EXAMPLES) + 1)]
