"""A real server with this pack: nodes, files for the browser, every example, interruption, memory, two models."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import av
import numpy as np
import pytest
from PIL import Image
from vidseg.core.config.settings import preset, replace_parts
from vidseg.core.files.clip import open_clip
from vidseg.core.method.pipeline import segment

from ..core.backbones.narrow_models import SVD, narrow_model
from .conftest import REASON
from .host import PACK, REPOSITORY, Graph, Server, running_server

EXAMPLES = sorted((Path(__file__).parent / "graphs_api").glob("*.json"))
DEMO_OUTPUTS = {
    "CheckpointLoaderSimple": {0: 0, 2: 1},
    "CLIPTextEncode": {0: 2},
    "ImageOnlyCheckpointLoader": {0: 0, 2: 1},
}
"""Outputs of a checkpoint's nodes, and those of the demo model that stand for them."""
EDITOR_LOADERS = {
    "UNETLoader": "diffusion_models", "CLIPLoader": "text_encoders", "VAELoader": "vae",
    "CLIPVisionLoader": "clip_vision",
}  # fmt: skip
"""Loaders of models that edit, which no test has, and the folders of their files."""
MODEL_FILES = {"ckpt_name", "unet_name", "clip_name", "vae_name"}
"""Widgets that people choose a file of their own in."""
EDITING = [path for path in EXAMPLES if any(loader in path.read_text() for loader in EDITOR_LOADERS)]
LOOPING = [path for path in EXAMPLES if "StartLoop" in path.read_text()]
"""Examples for hosts from 0.36 on; `test_loops` runs them on others."""
VIDEO = "clip.mp4"
LAST_STEP = (("start_step", 24), ("modulation_step", 24))
"""Steps of the examples that are run: the last alone."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(REASON), reason=REASON or "-"),
    pytest.mark.skipif(not (REPOSITORY / "assets" / "demo_model.safetensors").is_file(), reason="no demo model yet"),
]


VIDEO_MODEL_NODE = Path(__file__).parent / "narrow_video_model"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    def add(base: Path) -> None:
        (base / "custom_nodes" / VIDEO_MODEL_NODE.name).symlink_to(VIDEO_MODEL_NODE, target_is_directory=True)

    with running_server(tmp_path_factory.mktemp("comfyui") / "base", REPOSITORY, prepare=add) as running:
        running.offered = running.get("/object_info")
        write_clip(running.base / "input" / VIDEO)
        yield running


def write_clip(path: Path) -> None:
    """Write four frames of a square that moves over noise."""
    ground = np.random.default_rng(0).integers(90, 130, (96, 160, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(4):
            frame = ground.copy()
            frame[20:70, 10 + 20 * number : 60 + 20 * number] = (230, 40, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())


def shortened(graph: Graph, length: int) -> Graph:
    """Return a graph with so many frames of the demo clip in the place of all."""
    demos = [key for key, node in graph.items() if node["class_type"] == "LoadDemoModel"]
    taken = {key: str(max(map(int, graph)) + number) for number, key in enumerate(demos, 1)}
    for node in graph.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in taken and value[1] == 4:
                node["inputs"][name] = [taken[value[0]], 0]
    inputs = {"batch_index": 0, "length": length}
    batches = {
        new: {"class_type": "ImageFromBatch", "inputs": {"image": [key, 4], **inputs}} for key, new in taken.items()
    }
    return {**graph, **batches}


def small(path: Path, length: int = 4) -> Graph:
    """Return an example with the demo model and a video swapped in, at a size and length that run in seconds."""
    graph: Graph = json.loads(path.read_text())
    demo = str(max(map(int, graph)) + 1)
    for node in list(graph.values()):
        if node["inputs"].pop("clip_vision", None) and "layer" in node["inputs"]:  # the demo model makes no videos
            node["inputs"]["layer"] = "spatial"
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                swaps = DEMO_OUTPUTS.get(graph[value[0]]["class_type"], {})
                node["inputs"][name] = [demo, swaps[value[1]]] if value[1] in swaps else value
        if node["class_type"] == "ConditioningZeroOut":
            node["inputs"]["conditioning"] = [demo, 2]
        for name, value in (("max_side", 64), ("num_clusters", 3), ("steps", 25), ("regions", "0-255"), *LAST_STEP):
            if name in node["inputs"] and not isinstance(node["inputs"][name], list):
                node["inputs"][name] = value
        if node["class_type"] == "NameRegions":
            node["inputs"]["names"] = "background: 0"
        if node["class_type"] == "CreateVideo":  # as the note in the graph says: a video of one's own
            node.update(class_type="LoadVideo", inputs={"file": VIDEO})
        if node["class_type"] == "ImageScale":
            node["inputs"].update(width=128, height=64)
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 2
    swapped = {key: node for key, node in graph.items() if node["class_type"] not in DEMO_OUTPUTS}
    wired = {value[0] for node in swapped.values() for value in node["inputs"].values() if isinstance(value, list)}
    loader: Graph = {demo: {"class_type": "LoadDemoModel", "inputs": {}}} if demo in wired else {}
    return shortened({**swapped, **loader}, length)


def test_the_log_shows_no_failed_import(server: Server) -> None:
    log = server.log.read_text()
    assert "IMPORT FAILED" not in log
    assert "Error while calling comfy_entrypoint" not in log
    assert PACK in log


def test_all_nodes_are_listed(server: Server) -> None:
    from .test_in_host_schema import IDS  # noqa: PLC0415

    info = server.get("/object_info")
    assert set(info) >= IDS
    modules = {info[node]["python_module"] for node in IDS}
    assert modules == {f"custom_nodes.{PACK}"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_offered_and_uses_known_nodes(server: Server, path: Path) -> None:
    assert path.stem in server.get("/workflow_templates")[PACK]
    address = f"/api/workflow_templates/{quote(PACK)}/{quote(path.stem)}"
    nodes = server.get(f"{address}.json")["nodes"]
    kinds = {node["type"] for node in nodes} - {"MarkdownNote"}
    assert kinds <= set(server.get("/object_info")) or path in (*EDITING, *LOOPING)  # older hosts lack some
    assert server.fetch(f"{address}.jpg")[:2] == b"\xff\xd8"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_leaves_nothing_to_choose_but_the_checkpoint(server: Server, path: Path) -> None:
    graph: Graph = json.loads(path.read_text())
    missing = {node["class_type"] for node in graph.values()} - set(server.offered)
    if missing and path in (*EDITING, *LOOPING):
        pytest.skip(f"this host has no {', '.join(sorted(missing))}")
    for node in graph.values():
        spec = server.offered[node["class_type"]]["input"]
        choices = {**spec.get("required", {}), **spec.get("optional", {})}
        if server.offered[node["class_type"]]["python_module"] == f"custom_nodes.{PACK}":  # written for these nodes
            assert set(spec.get("required", {})) <= set(node["inputs"]) <= set(choices), node["class_type"]
        for name in set(node["inputs"]) & set(choices) - MODEL_FILES:
            kind, *rest = choices[name]
            options = kind if isinstance(kind, list) else rest[0].get("options") if rest else None
            assert options is None or node["inputs"][name] in options, (node["class_type"], name)


@pytest.mark.parametrize("path", EDITING, ids=lambda path: path.stem)
def test_example_with_an_editor_is_accepted_by_the_host(server: Server, path: Path) -> None:
    graph = json.loads(path.read_text())
    known = server.get("/object_info")
    if missing := {node["class_type"] for node in graph.values()} - set(known):
        pytest.skip(f"this host has no {', '.join(sorted(missing))}")
    for node in graph.values():
        for name in MODEL_FILES & set(node["inputs"]):
            folder = EDITOR_LOADERS.get(node["class_type"], "checkpoints")
            file = server.base / "models" / folder / node["inputs"][name]
            file.parent.mkdir(exist_ok=True)
            file.touch()
    answer = server.submit(graph)
    server.fetch("/interrupt", {})
    assert answer.get("node_errors") == {}, answer
    server.wait(answer["prompt_id"])


@pytest.mark.parametrize("path", [path for path in EXAMPLES if path not in EDITING], ids=lambda path: path.stem)
def test_example_runs_with_the_demo_model(server: Server, path: Path) -> None:
    if path in LOOPING and "StartLoop" not in server.offered:
        pytest.skip("this host has no Start Loop")
    outputs = server.run(small(path))
    assert any(output.get("images") for output in outputs.values())


def test_another_correction_runs_nothing_before_it(server: Server) -> None:
    graph = small(next(path for path in EXAMPLES if "correct" in path.stem))
    kinds = {node["class_type"]: key for key, node in graph.items()}
    server.run(graph)  # the last of the examples, which the host has cached
    correction = graph[kinds["CorrectRegions"]]["inputs"]
    correction["corrections"] = "new 1 0.5,0.5 middle\n99 0.5,0.5 late"
    history = server.wait(server.submit(graph)["prompt_id"])
    assert history["status"]["status_str"] == "success"
    (cached,) = (set(body["nodes"]) for kind, body in history["status"]["messages"] if kind == "execution_cached")
    before = {"ExtractDiffusionFeatures", "KMeansInit", "SceneContextKNN", "MaskedModulationUpsample", "PickRegions"}
    assert {kinds[kind] for kind in before & set(kinds)} <= cached
    assert kinds["CorrectRegions"] not in cached
    correction["corrections"] = "1 5,5 middle"
    errors = server.submit(graph)["node_errors"][kinds["CorrectRegions"]]["errors"]
    assert "points in [0, 1]" in errors[0]["details"]


def test_help_and_language_are_served(server: Server) -> None:
    from .test_in_host_schema import IDS  # noqa: PLC0415

    for node in IDS:
        assert len(server.fetch(f"/extensions/{PACK}/docs/{node}.md").decode()) > 300
    assert set(server.get("/i18n")["en"]["nodeDefs"]) >= IDS


def test_other_picks_run_nothing_before_the_picker(server: Server) -> None:
    graph = small(next(path for path in EXAMPLES if "Pick regions" in path.stem))
    kinds = {node["class_type"]: key for key, node in graph.items()}
    server.run(graph)
    graph[kinds["PickRegions"]]["inputs"]["picks"] = "0 0.1,0.1 corner\n3 0.9,0.9"
    history = server.wait(server.submit(graph)["prompt_id"])
    (cached,) = (set(body["nodes"]) for kind, body in history["status"]["messages"] if kind == "execution_cached")
    after = {"PickRegions", "ImageCompositeMasked", "SaveAnimatedWEBP", "PreviewAny"}
    assert set(graph) - cached == {kinds[kind] for kind in after}
    refused = {**graph, kinds["PickRegions"]: {**graph[kinds["PickRegions"]]}}
    refused[kinds["PickRegions"]]["inputs"] = {**graph[kinds["PickRegions"]]["inputs"], "picks": "a dog"}
    errors = server.submit(refused)["node_errors"][kinds["PickRegions"]]["errors"]
    assert "but got 'a dog' in line 1" in errors[0]["details"]


def test_interrupted_run_can_be_repeated(server: Server) -> None:
    graph = small(next(path for path in EXAMPLES if path.stem.endswith("Segment a video")))
    kinds = {node["class_type"]: key for key, node in graph.items()}
    graph[kinds["ExtractDiffusionFeatures"]]["inputs"].update(seed=5, max_side=128)  # not what the host has cached
    graph[kinds["MaskedModulationUpsample"]]["inputs"]["modulation_step"] = -1  # long enough to be interrupted
    started = asyncio.run(server.started(graph, kinds["MaskedModulationUpsample"]))
    server.fetch("/interrupt", {})
    status = server.wait(started)["status"]
    kind, body = status["messages"][-1]
    assert (kind, body.get("node_type")) == ("execution_interrupted", "MaskedModulationUpsample"), status
    first = saved_labels(server, server.run(graph))
    graph[kinds["MaskedModulationUpsample"]]["inputs"]["filter_strength"] = 0.70000001  # the same, but not cached
    assert first == saved_labels(server, server.run(graph)) != []


def saved_labels(server: Server, outputs: dict[str, Any]) -> list[bytes]:
    """Return the label maps that a run has written."""
    texts = [text for output in outputs.values() for text in output.get("text", []) if "label maps in output/" in text]
    folders = [server.base / "output" / text.split("output/")[1] / "labels" for text in texts]
    return [path.read_bytes() for folder in folders for path in sorted(folder.iterdir())]


def test_two_runs_take_no_more_memory_than_one(server: Server) -> None:
    graph = small(next(path for path in EXAMPLES if "box" in path.stem), length=14)
    held = []
    for seed in range(11, 14):
        for node in graph.values():
            if node["class_type"] == "SegmentVideo":
                node["inputs"]["seed"] = seed
        server.run(graph)
        held.append(server.resident_bytes())
    assert held[-1] - held[1] < 60e6, held


def test_labels_equal_those_of_the_program_without_the_host(server: Server) -> None:
    from vidseg.core.backbones.diffusers.load import load_diffusers  # noqa: PLC0415, takes seconds to import
    from vidseg.core.method.frames import HeldFrames  # noqa: PLC0415, needs the host
    from vidseg.nodes.demo_model import DEMO_CLIP, DEMO_MODEL  # noqa: PLC0415

    wires = {name: ["1", slot] for slot, name in enumerate(("model", "vae", "positive", "negative"))}
    widgets = {**server.widgets("SegmentVideo"), "num_clusters": 3, "seed": 7, "max_side": 128}
    graph: Graph = {
        "1": {"class_type": "LoadDemoModel", "inputs": {}},
        "2": {"class_type": "ImageFromBatch", "inputs": {"image": ["1", 4], "batch_index": 0, "length": 2}},
        "3": {"class_type": "SegmentVideo", "inputs": {**wires, "frames": ["2", 0], **widgets}},
        "4": {"class_type": "SaveRegions", "inputs": {"labels": ["3", 0], "filename_prefix": "vidseg/same"}},
    }
    saved = [np.asarray(Image.open(io.BytesIO(data))) for data in saved_labels(server, server.run(graph))]
    with open_clip(DEMO_CLIP) as clip:
        frames = clip.read(0, 2)
    chosen = {"cluster": {"num_clusters": 3}, "sampling": {"seed": 7}, "frame": {"max_side": 128}}
    labels = segment(
        load_diffusers(DEMO_MODEL, device="cpu"), HeldFrames(frames), replace_parts(preset("default"), **chosen)
    )
    assert np.array_equal(np.stack(saved), labels.maps.numpy())


def test_both_kinds_of_models_side_by_side_in_one_graph(server: Server, tmp_path: Path) -> None:
    path = narrow_model(tmp_path / "svd.safetensors", SVD)
    image = {name: ["1", slot] for slot, name in enumerate(("model", "vae", "positive", "negative"))}
    video = {name: ["2", slot] for slot, name in enumerate(("model", "vae", "clip_vision"))}
    widgets = {**server.widgets("SegmentVideo"), "num_clusters": 3, "max_side": 128, "quality": "fast"}
    graph: Graph = {
        "1": {"class_type": "LoadDemoModel", "inputs": {}},
        "2": {"class_type": "NarrowVideoModel", "inputs": {"path": str(path)}},
        "3": {"class_type": "ImageFromBatch", "inputs": {"image": ["1", 4], "batch_index": 0, "length": 4}},
        "4": {"class_type": "SegmentVideo", "inputs": {**image, "frames": ["3", 0], **widgets}},
        "5": {"class_type": "SegmentVideo", "inputs": {**video, "frames": ["3", 0], **widgets}},
        "6": {"class_type": "SaveRegions", "inputs": {"labels": ["4", 0], "filename_prefix": "vidseg/image"}},
        "7": {"class_type": "SaveRegions", "inputs": {"labels": ["5", 0], "filename_prefix": "vidseg/video"}},
    }
    saved = saved_labels(server, server.run(graph))
    assert len(saved) == 8
    assert saved[:4] != saved[4:]
