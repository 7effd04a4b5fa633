"""A long clip part by part: the nodes between Start Loop and End Loop run as copies with ids of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .conftest import REASON
from .host import REPOSITORY, Graph, Server, messages, running_server

LOOP_NODES = Path(__file__).parent / "loop_nodes"
(EXAMPLE,) = (Path(__file__).parent / "graphs_api").glob("* loop.json")
PICKER, SAVED = "900", "901"
"""Ids of nodes that are put between the two."""
PART, NUM_FRAMES = 2, 6
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON or "-")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    def add(base: Path) -> None:
        (base / "custom_nodes" / LOOP_NODES.name).symlink_to(LOOP_NODES, target_is_directory=True)

    with running_server(tmp_path_factory.mktemp("comfyui") / "base", REPOSITORY, prepare=add) as running:
        yield running


def kind(graph: Graph, name: str) -> str:
    """Return the id of the last node of a kind."""
    return [key for key, node in graph.items() if node["class_type"] == name][-1]


def example(prefix: str, part: int) -> Graph:
    """Return the example on a few small frames, in parts of so many, with a picker and saved labels in the loop."""
    graph: Graph = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    begin, end = graph[kind(graph, "StartLoop")]["inputs"], graph[kind(graph, "EndLoop")]["inputs"]
    begin |= {"mode.max_iteration": NUM_FRAMES, "mode.step": part}
    for node in graph.values():
        inputs = node["inputs"]
        inputs |= {name: value for name, value in (("max_side", 64), ("num_clusters", 3)) if name in inputs}
        inputs |= {"window_length": PART} if "window_length" in inputs else {}
        if "batch_index" in inputs:  # the first part is what the scene is made of, the others are those of the loop
            inputs["length"] = part if isinstance(inputs["batch_index"], list) else PART
    full = [kind(graph, "MaskedModulationUpsample"), 0]
    frames = graph[kind(graph, "PreviewRegions")]["inputs"]["frames"]
    picks = {"picks": "0 0.5,0.5 middle", "invert": False, "num_regions": 0}
    graph[PICKER] = {"class_type": "PickRegions", "inputs": {"frames": frames, "labels": full, **picks}}
    graph[SAVED] = {"class_type": "SaveRegions", "inputs": {"labels": full, "filename_prefix": prefix}}
    end |= {"terminations.termination0": [SAVED, 0], "terminations.termination1": [PICKER, 0]}
    return graph


def ran(server: Server, graph: Graph) -> dict[str, Any]:
    """Run what comes after the loop; returns its history."""
    history = server.wait(server.submit(graph, kind(graph, "SaveAnimatedWEBP"))["prompt_id"])
    assert history["status"]["status_str"] == "success", messages(history)
    return history


def outputs_of(history: dict[str, Any], node: str) -> dict[str, Any]:
    """Return what each copy of a node gave the browser, by the copy's id."""
    return {key: history["outputs"][key] for key, told in history["meta"].items() if told["display_node"] == node}


def saved_parts(server: Server, prefix: str) -> list[tuple[np.ndarray[Any, Any], list[Any]]]:
    """Return label maps and regions of each part."""
    parts = []
    for folder in sorted((server.base / "output").glob(f"{prefix}_*")):
        maps = [np.asarray(Image.open(path)) for path in sorted((folder / "labels").glob("*.png"))]
        (record,) = folder.glob("*.json")
        parts.append((np.stack(maps), json.loads(record.read_text())["regions"]))
    return parts


def test_parts_have_the_labels_and_names_of_one_run(server: Server) -> None:
    ran(server, example("whole", NUM_FRAMES))
    history = ran(server, example("parts", PART))
    ((whole, regions),) = saved_parts(server, "whole")
    parts = saved_parts(server, "parts")
    assert [len(maps) for maps, _ in parts] == [2, 2, 2]
    assert np.array_equal(np.concatenate([maps for maps, _ in parts]), whole)
    assert len(np.unique(whole)) > 1
    assert all(named == regions for _, named in parts)
    assert "rabbit" in [region["name"] for region in regions]
    for node in (SAVED, PICKER):
        copies = outputs_of(history, node)
        assert len(copies) == 3
        assert all(f"_{node}" in copy and "." in copy for copy in copies)


def test_pickers_of_a_loop_show_their_own_part_and_notice_lost_files(server: Server) -> None:
    graph = example("picked", PART)
    graph[PICKER]["inputs"]["picks"] = "0 0.4,0.4 other"  # not what the host has kept of the test before
    shown = [output["vidseg_picker"][0] for output in outputs_of(ran(server, graph), PICKER).values()]
    folder = server.base / "temp" / "vidseg_picker"
    assert len({picker["stem"] for picker in shown}) == 3
    assert all((folder / f"{picker['stem']}_{number}.png").is_file() for picker in shown for number in (0, 1))
    assert len(saved_parts(server, "picked")) == 3
    ran(server, graph)
    assert len(saved_parts(server, "picked")) == 3  # nothing has changed, nothing runs
    shutil.rmtree(folder)
    ran(server, graph)
    assert all((folder / f"{picker['stem']}_0.png").is_file() for picker in shown)


def test_progress_of_a_copy_is_told_to_the_node_that_people_see() -> None:
    from comfy_execution.graph import DynamicPrompt  # noqa: PLC0415
    from comfy_execution.progress import reset_progress_state  # noqa: PLC0415
    from comfy_execution.utils import CurrentNodeContext  # noqa: PLC0415
    from vidseg.nodes.host.progress import _find_node  # noqa: PLC0415

    prompt = DynamicPrompt({"7": {}})
    prompt.add_ephemeral_node("5.0.7", {}, "5", "7")
    prompt.add_ephemeral_node("5.0.7.0.0.1", {}, "5.0.7", "5.0.7")
    reset_progress_state("a run", prompt)
    for node in ("7", "5.0.7", "5.0.7.0.0.1"):
        with CurrentNodeContext("a run", node):
            assert _find_node() == "7"
    assert _find_node() is None
