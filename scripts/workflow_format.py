"""Write graphs in the two formats of ComfyUI: with positions for people, and bare for its programming interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
SLOT, WIDGET, TEXT_WIDGET, MARGIN = 22, 26, 90, 20
"""Heights in pixels of a socket, a widget, a text field and the rest of a node without its title."""
PICTURE = {
    "LoadVideo": 0.6,
    "PreviewRegions": 0.55,
    "PickRegions": 1.3,
    "PreviewFeatures": 0.65,
    "SaveAnimatedWEBP": 0.65,
    "PreviewImage": 0.65,
    "PreviewAny": 0.35,
    "FitMaskToModel": 0.85,
    "MaskPreview": 0.65,
}
"""Height of the picture that a node shows, over the node's width."""
STAGE_TEXT = 44
"""Height of the line in which a stage says how far it is, pixels."""
TALKING = (
    "ExtractDiffusionFeatures", "SceneContextKNN", "CorrespondenceRefine", "MaskedModulationUpsample", "SegmentVideo",
    "CorrectRegions",
)  # fmt: skip
TITLE = 30
"""Height of a node's title, pixels."""
GAP = 70
"""Pixels between the nodes of a column, title included."""
DEFAULT_WIDTH = 300
BYPASSED = 4
"""The host's mode of a node that is passed over."""
WINDOW, EDGES, LEAST_SCALE = (1600, 900), (90, 100, 20, 20), 0.605
"""A browser's window, what its menus take of it (left, top, right, bottom), and the zoom below which text is hidden."""

ObjectInfo = Mapping[str, Any]


class Socket(NamedTuple):
    """An output of a node."""

    node: int
    slot: int


@dataclass
class Node:
    """A node with its place; ``values`` holds links as `Socket` and widgets as plain values."""

    id: int
    kind: str
    place: tuple[int, int]
    values: dict[str, Any]
    title: str = ""
    wide: int = DEFAULT_WIDTH
    properties: dict[str, Any] = field(default_factory=dict)
    state: int = 0

    def __getitem__(self, slot: int) -> Socket:
        """Return an output."""
        return Socket(self.id, slot)


class Note(NamedTuple):
    """Text beside the nodes, in Markdown."""

    text: str
    place: tuple[int, int]
    size: tuple[int, int]


class Graph:
    """A graph that is put together node by node."""

    def __init__(self, title: str) -> None:
        """Start empty."""
        self.title = title
        self.nodes: list[Node] = []
        self.notes: list[Note] = []
        self.groups: dict[str, list[Node]] = {}

    def add(self, kind: str, place: tuple[int, int], **values: Any) -> Node:  # noqa: ANN401
        """Add a node; ``title``, ``wide`` (pixels), ``properties`` and ``state`` are its own, all others are inputs."""
        own = {name: values.pop(name) for name in ("title", "wide", "properties", "state") if name in values}
        node = Node(len(self.nodes) + 1, kind, place, values, **own)
        self.nodes.append(node)
        return node

    def to_api(self, info: ObjectInfo) -> dict[str, Any]:
        """Return what ``/prompt`` takes: without what is bypassed."""
        return {
            str(node.id): {
                "class_type": node.kind,
                "inputs": {
                    name: [str(value.node), value.slot] if isinstance(value, Socket) else value
                    for name, value in filled(node, info).items()
                },
            }
            for node in self.nodes
            if node.state != BYPASSED
        }

    def to_ui(self, info: ObjectInfo) -> dict[str, Any]:
        """Return what the browser opens."""
        links: list[list[Any]] = []
        nodes = [ui_node(node, info, links) for node in self.nodes]
        notes = [_note(len(nodes) + number, note) for number, note in enumerate(self.notes, 1)]
        laid_out(nodes + notes)
        for link_id, origin, slot, *_ in links:
            nodes[origin - 1]["outputs"][slot]["links"].append(link_id)
        groups = [_group(title, [nodes[node.id - 1] for node in members]) for title, members in self.groups.items()]
        return {
            "last_node_id": len(nodes) + len(notes), "last_link_id": len(links), "nodes": nodes + notes,
            "links": links, "groups": groups, "config": {}, "extra": {"ds": view_of(nodes + notes, groups)},
            "version": 0.4,
        }  # fmt: skip


def view_of(nodes: list[dict[str, Any]], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Return zoom and offset at which a graph opens: all of it if text can be read then, else its upper left part."""
    boxes = [(*node["pos"], *node["size"]) for node in nodes] + [tuple(group["bounding"]) for group in groups]
    low = [min(box[axis] for box in boxes) for axis in (0, 1)]
    low[1] -= TITLE
    high = [max(box[axis] + box[axis + 2] for box in boxes) for axis in (0, 1)]
    room = [WINDOW[axis] - EDGES[axis] - EDGES[axis + 2] for axis in (0, 1)]
    fitting = min(room[axis] / (high[axis] - low[axis]) for axis in (0, 1))
    scale = round(max(LEAST_SCALE, min(1.0, fitting)), 3)
    return {"scale": scale, "offset": [round(EDGES[axis] / scale - low[axis], 1) for axis in (0, 1)]}


def laid_out(nodes: list[dict[str, Any]]) -> None:
    """Move nodes of a column (those with the same left side) down until none covers another; what is above stays."""
    bottoms: dict[tuple[int, bool], int] = {}
    for node in nodes:
        left, top = node["pos"]
        column = (left, top < 0)
        node["pos"][1] = max(top, bottoms.get(column, top))
        bottoms[column] = node["pos"][1] + node["size"][1] + GAP


def _group(title: str, nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the frame around some nodes."""
    left, top = (min(node["pos"][axis] for node in nodes) for axis in (0, 1))
    right, bottom = (max(node["pos"][axis] + node["size"][axis] for node in nodes) for axis in (0, 1))
    box = [left - MARGIN, top - 2 * GAP + MARGIN, right - left + 2 * MARGIN, bottom - top + 2 * GAP]
    return {"title": title, "bounding": box, "color": "#3f789e"}


def inputs_of(kind: str, info: ObjectInfo) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return type and options of each input of a kind of node, in the host's order."""
    spec = info[kind]["input"]
    found = {**spec.get("required", {}), **spec.get("optional", {})}
    return {name: (entry[0], entry[1] if len(entry) > 1 else {}) for name, entry in found.items()}


GROWING, CHOOSING = "COMFY_AUTOGROW_V3", "COMFY_DYNAMICCOMBO_V3"
"""Types of inputs that stand for several: ``input.name_0`` and so on, or ``input.name`` of the choice made."""


def sockets_of(node: Node, info: ObjectInfo) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return the inputs of ``node``; of growing ones those that are wired, of a choice those that it opens."""
    found: dict[str, tuple[Any, dict[str, Any]]] = {}
    for name, (kind, options) in inputs_of(node.kind, info).items():
        if kind == GROWING:
            (inner,) = options["template"]["input"]["required"].values()
            found |= {wired: (inner[0], {}) for wired in node.values if wired.startswith(f"{name}.")}
        elif kind == CHOOSING:
            choices = {option["key"]: option["inputs"]["required"] for option in options["options"]}
            found[name] = (list(choices), {})
            opened = choices[node.values.get(name, next(iter(choices)))]
            found |= {f"{name}.{inner}": tuple(entry) for inner, entry in opened.items()}
        else:
            found[name] = (kind, options)
    return found


def is_widget(kind: Any, options: Mapping[str, Any]) -> bool:  # noqa: ANN401
    """Tell whether an input of this type is set in the node."""
    return isinstance(kind, list) or (kind in WIDGET_TYPES and not options.get("forceInput"))


def filled(node: Node, info: ObjectInfo) -> dict[str, Any]:
    """Return all inputs of ``node``, widgets that are not given with their defaults."""
    values = {}
    for name, (kind, options) in sockets_of(node, info).items():
        if name in node.values:
            values[name] = node.values[name]
        elif is_widget(kind, options):
            choices = kind if isinstance(kind, list) else options.get("options", [None])
            values[name] = options.get("default", choices[0])
    unknown = set(node.values) - set(values)
    if unknown:
        raise ValueError(f"{node.kind} has no inputs {sorted(unknown)}")
    return values


def ui_node(node: Node, info: ObjectInfo, links: list[list[Any]]) -> dict[str, Any]:
    """Return a node as the browser keeps it, and append its links."""
    values, inputs, widgets, height = filled(node, info), [], [], MARGIN
    for name, (kind, options) in sockets_of(node, info).items():
        value = values.get(name)
        if isinstance(value, Socket):
            links.append([len(links) + 1, value.node, value.slot, node.id, len(inputs), kind])
        if isinstance(value, Socket) or not is_widget(kind, options):
            inputs.append({"name": name, "type": kind, "link": len(links) if isinstance(value, Socket) else None})
        if is_widget(kind, options):
            if isinstance(value, Socket):
                inputs[-1]["widget"] = {"name": name}
                value = options.get("default")
            widgets += [value, *_companions(name, options)]
            height += TEXT_WIDGET if options.get("multiline") else WIDGET * (1 + bool(_companions(name, options)))
    outputs = [
        {"name": name, "type": kind, "links": [], "slot_index": slot}
        for slot, (name, kind) in enumerate(zip(info[node.kind]["output_name"], info[node.kind]["output"], strict=True))
    ]
    height += STAGE_TEXT * (node.kind in TALKING)
    height += SLOT * max(len(inputs), len(outputs)) + int(PICTURE.get(node.kind, 0) * node.wide)
    return {
        "id": node.id, "type": node.kind, "pos": list(node.place), "size": [node.wide, height], "flags": {},
        "order": node.id - 1, "mode": node.state, "inputs": inputs, "outputs": outputs,
        "properties": {"Node name for S&R": node.kind, **node.properties}, "widgets_values": widgets,
        **({"title": node.title} if node.title else {}),
    }  # fmt: skip


def _companions(name: str, options: dict[str, Any]) -> list[Any]:
    """Return the values of widgets that the browser adds to one of the host's."""
    if options.get("control_after_generate", name in ("seed", "noise_seed")):
        return ["fixed"]
    return ["image"] if options.get("video_upload") or options.get("image_upload") else []


def _note(number: int, note: Note) -> dict[str, Any]:
    return {
        "id": number, "type": "MarkdownNote", "pos": list(note.place), "size": list(note.size), "flags": {},
        "order": number - 1, "mode": 0, "inputs": [], "outputs": [], "properties": {}, "title": "Note",
        "widgets_values": [note.text], "color": "#432", "bgcolor": "#653",
    }  # fmt: skip
