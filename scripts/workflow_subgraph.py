"""The five stages as one reusable subgraph."""

from __future__ import annotations

import uuid
from typing import Any

from workflow_examples import Model, coarse, fine
from workflow_format import Graph, ObjectInfo, Socket, ui_node

NAME = "VidSeg Five Stages"
INPUTS = {"model": "MODEL", "vae": "VAE", "positive": "CONDITIONING", "negative": "CONDITIONING", "frames": "IMAGE"}
OUTPUTS = {"labels": "VIDSEG_LABELS", "overlay": "IMAGE"}
ABOUT = (
    "The five VidSeg stages and a preview, as one box that can be opened and changed. "
    "The node Segment Video does the same in bounded memory."
)
INPUT_NODE, OUTPUT_NODE = -10, -20
"""Ids that the host gives to the two ends of a subgraph."""
PROXIED = (("ExtractDiffusionFeatures", "max_side"), ("KMeansInit", "num_clusters"), ("KMeansInit", "seed"))
"""Widgets that show on the outside."""


def subgraph(info: ObjectInfo) -> dict[str, Any]:
    """Return a workflow of one node, whose inside is the five stages and the preview."""
    graph = Graph(NAME)
    outer = {name: Socket(INPUT_NODE, slot) for slot, name in enumerate(INPUTS)}
    model = Model(outer["model"], outer["vae"], outer["positive"], outer["negative"], None)
    features, refined = coarse(graph, model, outer["frames"], max_side=768, clusters=20)
    labels = fine(graph, model, features, refined)
    preview = graph.add("PreviewRegions", (1440, 0), frames=outer["frames"], labels=labels[0], wide=420)
    nodes, links = _inside(graph, info)
    ends = {"labels": labels[0], "overlay": preview[0]}
    for slot, (name, socket) in enumerate(ends.items()):
        link = _link(len(links) + 1, socket, OUTPUT_NODE, slot, OUTPUTS[name])
        links.append(link)
        nodes[socket.node - 1]["outputs"][socket.slot]["links"].append(link["id"])
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/comfyui-vidseg/ComfyUI-VidSeg"))
    inside = {
        "id": identity, "version": 1, "revision": 0, "config": {}, "name": NAME, "category": "VidSeg",
        "description": ABOUT,
        "state": {"lastGroupId": 0, "lastNodeId": len(nodes), "lastLinkId": len(links), "lastRerouteId": 0},
        "inputNode": {"id": INPUT_NODE, "bounding": [-120, 0, 120, 140]},
        "outputNode": {"id": OUTPUT_NODE, "bounding": [1920, 0, 120, 80]},
        "inputs": _ends(identity, INPUTS, links, INPUT_NODE), "outputs": _ends(identity, OUTPUTS, links, OUTPUT_NODE),
        "widgets": [], "nodes": nodes, "groups": [], "links": links, "extra": {},
    }  # fmt: skip
    return {
        "revision": 0, "last_node_id": 100, "last_link_id": 0, "nodes": [_outside(identity, graph)], "links": [],
        "version": 0.4, "definitions": {"subgraphs": [inside]}, "extra": {},
    }  # fmt: skip


def _inside(graph: Graph, info: ObjectInfo) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return nodes and links, whose links are objects and may start at the subgraph's inputs."""
    drawn: list[list[Any]] = []
    nodes, links = [ui_node(node, info, drawn) for node in graph.nodes], []
    for link_id, origin, slot, target, target_slot, kind in drawn:
        links.append(_link(link_id, Socket(origin, slot), target, target_slot, kind))
        if origin > 0:
            nodes[origin - 1]["outputs"][slot]["links"].append(link_id)
    return nodes, links


def _link(number: int, origin: Socket, target: int, target_slot: int, kind: str) -> dict[str, Any]:
    return {
        "id": number, "origin_id": origin.node, "origin_slot": origin.slot, "target_id": target,
        "target_slot": target_slot, "type": kind,
    }  # fmt: skip


def _ends(identity: str, sockets: dict[str, str], links: list[dict[str, Any]], end: int) -> list[dict[str, Any]]:
    """Return the inputs or outputs of the subgraph."""
    side = "origin" if end == INPUT_NODE else "target"
    return [
        {
            "id": str(uuid.uuid5(uuid.UUID(identity), f"{end} {name}")), "name": name, "type": kind,
            "linkIds": [link["id"] for link in links if (link[f"{side}_id"], link[f"{side}_slot"]) == (end, slot)],
            "pos": [0, 20 * slot],
        }
        for slot, (name, kind) in enumerate(sockets.items())
    ]  # fmt: skip


def _outside(identity: str, graph: Graph) -> dict[str, Any]:
    """Return the one node that is seen from outside."""
    ids = {node.kind: str(node.id) for node in graph.nodes}
    return {
        "id": 100, "type": identity, "pos": [0, 0], "size": [320, 240], "flags": {}, "order": 0, "mode": 0,
        "inputs": [{"name": name, "type": kind, "link": None} for name, kind in INPUTS.items()],
        "outputs": [{"name": name, "type": kind, "links": []} for name, kind in OUTPUTS.items()],
        "properties": {"proxyWidgets": [[ids[kind], widget] for kind, widget in PROXIED]}, "widgets_values": [],
        "title": NAME,
    }  # fmt: skip
