"""Run the example workflows with the demo model on a running ComfyUI; two pictures of each are its thumbnail.

Usage: python scripts/make_thumbnails.py http://127.0.0.1:8188 [numbers of examples]
The example of Stable Video Diffusion runs on a narrow model with random weights, by a node that the tests bring along
(`tests/nodes/narrow_video_model`, to be linked into `custom_nodes/`): the host's own loader knows the full size only.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from vidseg.tests.core.backbones.narrow_models import SVD, narrow_model

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "example_workflows"


class Shown(NamedTuple):
    """A picture of a thumbnail: kind of the node that makes it, which of these, and which frame."""

    kind: str
    number: int = 0
    frame: int = -1


REGIONS, RESULT, SEEN = Shown("PreviewRegions"), Shown("SaveAnimatedWEBP"), Shown("PreviewImage")
SHOWN = {
    "01 Demo without a download": (Shown("PreviewRegions", number=1), RESULT),  # the first shows the coarse ones
    "02 Segment a video": (Shown("PreviewRegions", frame=0), REGIONS),
    "03 Segment a video in one box": (REGIONS, Shown("PreviewImage")),
    "04 Repaint one region": (REGIONS, RESULT),
    "05 Remove or replace the background": (REGIONS, RESULT),
    "06 Compare two settings": (REGIONS, Shown("PreviewRegions", 1)),
    "07 Segment a video with Stable Video Diffusion": (Shown("PreviewFeatures"), REGIONS),
    "08 Pick regions by clicking": (REGIONS, RESULT),
    "09 Pick and correct": (Shown("PickRegions"), REGIONS),
    "10 Repaint a region with Wan VACE": (REGIONS, SEEN),
    "11 Remove a thing with VOID": (REGIONS, Shown("MaskPreview")),
    "12 Change the background with LTX": (REGIONS, SEEN),
    "13 Replace a character with SCAIL-2": (REGIONS, SEEN),
    "14 Use a region as reference for MiniMax H3": (REGIONS, SEEN),
    "15 Segment a long clip in a loop": (REGIONS, RESULT),
}
"""By example, from top to bottom: about a square together, as the template browser has it."""
DEMO_OUTPUTS = {"CheckpointLoaderSimple": {0: 0, 2: 1}, "CLIPTextEncode": {0: 2}}
"""Outputs of a checkpoint's nodes, and those of the demo model that stand for them."""
SMALL = {"max_side": 448, "num_clusters": 8, "quality": "fast"}
QUALITY, WIDTH, GAP = 85, 512, 6
PAINTED_FRAMES, PAINTING_STEPS, MAX_FRAMES = 5, 4, 4096
EDITOR_LOADERS = ("UNETLoader", "CLIPLoader", "VAELoader", "CLIPVisionLoader")
"""Nodes of the host that load models which edit, far too large for a thumbnail."""
VIDEO_LOADER, VIDEO_NODE = "ImageOnlyCheckpointLoader", "NarrowVideoModel"
Json = dict[str, Any]


def small(graph: Json) -> Json:
    """Return a graph at a size for CPUs, or at its own if it names ids of regions, which change with the size."""
    named = any(node["class_type"] == "NameRegions" for node in graph.values())
    changes = {name: value for name, value in SMALL.items() if name == "quality" or not named}
    for node in graph.values():
        values = node["inputs"]  # a file of pictures has a quality too, which is a number
        values.update({name: value for name, value in changes.items() if isinstance(values.get(name), type(value))})
    return graph


def painted_soon(graph: Json) -> Json:
    """Return a graph that paints, with the last frames of the clip alone and few steps."""
    clip = next(key for key, node in graph.items() if node["class_type"] == "CreateVideo")
    inputs = {"image": graph[clip]["inputs"]["images"], "batch_index": -PAINTED_FRAMES, "length": PAINTED_FRAMES}
    graph[clip]["inputs"]["images"] = ["3000", 0]
    for node in graph.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = PAINTING_STEPS
    return {**graph, "3000": {"class_type": "ImageFromBatch", "inputs": inputs}}


def with_demo_model(graph: Json) -> Json:
    """Return a graph in which the demo model takes the checkpoint's place."""
    demo = str(max(map(int, graph)) + 1)
    for node in graph.values():
        for name, value in node["inputs"].items():
            swaps = DEMO_OUTPUTS.get(graph[value[0]]["class_type"], {}) if isinstance(value, list) else {}
            if swaps and value[1] in swaps:
                node["inputs"][name] = [demo, swaps[value[1]]]
    kept = {key: node for key, node in graph.items() if node["class_type"] not in DEMO_OUTPUTS}
    return {**kept, demo: {"class_type": "LoadDemoModel", "inputs": {}}}


def up_to_the_editor(graph: Json) -> Json:
    """Return a graph without what needs a model that edits, but with a picture of what that model would see."""
    wanted = {key for key, node in graph.items() if node["class_type"] in EDITOR_LOADERS}
    while more := {key for key, node in graph.items() if key not in wanted and _links(node) & wanted}:
        wanted |= more
    kept = {key: node for key, node in graph.items() if key not in wanted}
    fitted = [key for key, node in kept.items() if node["class_type"] == "FitMaskToModel"]
    shown = {f"4{key}": {"class_type": "PreviewImage", "inputs": {"images": [key, 2]}} for key in fitted}
    return painted_soon({**shown, **kept}) if wanted else graph


def _links(node: Json) -> set[str]:
    """Return the nodes that a node takes something from."""
    return {value[0] for value in node["inputs"].values() if isinstance(value, list)}


def with_random_video_model(graph: Json, path: Path) -> Json:
    """Return a graph in which a narrow model takes the place of Stable Video Diffusion; its outputs are the same."""
    order = {1: 2, 2: 1}  # the checkpoint's CLIP_VISION and VAE
    loader = next(key for key, node in graph.items() if node["class_type"] == VIDEO_LOADER)
    for node in graph.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] == loader:
                node["inputs"][name] = [loader, order.get(value[1], value[1])]
    graph[loader] = {"class_type": VIDEO_NODE, "inputs": {"path": str(path)}}
    return graph


def in_one_part(graph: Json) -> Json:
    """Return a graph whose loop has one turn with the whole clip: its parts have the labels of one run."""
    ids = {node["class_type"]: key for key, node in graph.items()}
    if "StartLoop" not in ids:
        return graph
    begin, end = ids["StartLoop"], ids["EndLoop"]
    carried, result = graph[begin]["inputs"]["initial_iteration_value"], graph[end]["inputs"]["output_value"]
    swaps = {(begin, 0): 0, (begin, 4): carried, (end, 0): result}
    kept = {key: node for key, node in graph.items() if key not in (begin, end)}
    for node in kept.values():
        values = node["inputs"]
        wired = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        values |= {"length": MAX_FRAMES} if wired.get("batch_index") == (begin, 0) else {}
        values |= {name: swaps[value] for name, value in wired.items() if value in swaps}
    return kept


def with_regions_alone(graph: Json) -> tuple[Json, list[str]]:
    """Return a graph that also gives every overlay without its legend, and those of pickers; and the new nodes."""
    pickers = [key for key, node in graph.items() if node["class_type"] == "PickRegions"]
    for number, key in enumerate(pickers):
        values = {
            "frames": graph[key]["inputs"]["frames"],
            "labels": [key, 1],
            "opacity": 0.5,
            "tags": True,
            "fps": 8.0,
        }
        graph = {**graph, str(1000 + number): {"class_type": REGIONS.kind, "inputs": values}}
    previews = [key for key, node in graph.items() if node["class_type"] == REGIONS.kind]
    alone = {f"2{key}": {"class_type": "PreviewImage", "inputs": {"images": [key, 0]}} for key in previews}
    return {**graph, **alone}, list(alone)


def fetch(address: str, data: object = None) -> bytes:
    """Return what the server answers."""
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        return bytes(response.read())


def outputs_of(address: str, graph: Json) -> Json:
    """Run a graph and return its outputs by node."""
    number = json.loads(fetch(f"{address}/prompt", {"prompt": graph}))["prompt_id"]
    while not (history := json.loads(fetch(f"{address}/history/{number}"))):
        time.sleep(1)
    if history[number]["status"]["status_str"] != "success":
        raise RuntimeError(history[number]["status"]["messages"])
    return dict(history[number]["outputs"])


def picture(address: str, images: list[dict[str, str]], frame: int) -> Image.Image:
    """Return a frame of what a node shows, which is a file per frame or an animated one."""
    query = urllib.parse.urlencode(images[frame % len(images)])
    found = Image.open(io.BytesIO(fetch(f"{address}/view?{query}")))
    found.seek(frame % getattr(found, "n_frames", 1))
    image = found.convert("RGB")
    return image.resize((WIDTH, round(WIDTH * image.height / image.width)), Image.Resampling.LANCZOS)


def stacked(pictures: list[Image.Image]) -> Image.Image:
    """Return pictures below each other."""
    height = sum(image.height + GAP for image in pictures) - GAP
    whole, top = Image.new("RGB", (WIDTH, height), "white"), 0
    for image in pictures:
        whole.paste(image, (0, top))
        top += image.height + GAP
    return whole


def thumbnail(address: str, graph: Json, shown: tuple[Shown, ...]) -> Image.Image:
    """Run a graph and return its thumbnail."""
    if RESULT not in shown:
        graph = {key: node for key, node in graph.items() if node["class_type"] != RESULT.kind}
    elif any(node["class_type"] == "KSampler" for node in graph.values()):
        graph = painted_soon(graph)
    graph, regions = with_regions_alone(graph)
    outputs = outputs_of(address, graph)
    pictures = []
    for kind, number, frame in shown:
        keys = regions if kind == REGIONS.kind else [key for key in graph if graph[key]["class_type"] == kind]
        keys = regions[-1:] if kind == "PickRegions" else keys
        pictures.append(picture(address, outputs[keys[number]]["images"], frame))
    return stacked(pictures)


def main(address: str, numbers: list[str]) -> None:
    """Write the thumbnails of some examples, or of all."""
    chosen = {name: shown for name, shown in SHOWN.items() if not numbers or name.split()[0] in numbers}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random_svd.safetensors"
        for name, shown in chosen.items():
            graph = in_one_part(json.loads((ROOT / "tests/nodes/graphs_api" / f"{name}.json").read_text()))
            graph = small(graph)
            if any(node["class_type"] == VIDEO_LOADER for node in graph.values()):
                narrow_model(path, SVD)
                graph = with_random_video_model(graph, path)
            image = thumbnail(address, with_demo_model(up_to_the_editor(graph)), shown)
            image.save(EXAMPLES / f"{name}.jpg", quality=QUALITY)
            print(name, image.size)


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), sys.argv[2:])
