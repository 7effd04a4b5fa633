"""Run the example workflows with the demo model on a running ComfyUI and keep a frame of each as its thumbnail.

Usage: python scripts/make_thumbnails.py http://127.0.0.1:8188 [numbers of examples]
"""

from __future__ import annotations

import io
import json
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "example_workflows"
SHOWN = {
    "1 Demo without a download": "PreviewRegions", "2 Segment a video": "PreviewRegions",
    "3 Segment a video in one box": "PreviewRegions", "4 Repaint one region": "SaveAnimatedWEBP",
    "5 Remove or replace the background": "SaveAnimatedWEBP", "6 Compare two settings": "SaveAnimatedWEBP",
    "7 Segment a video with Stable Video Diffusion": "PreviewRegions",
    "8 Pick regions by clicking": "SaveAnimatedWEBP", "9 Pick, correct and repaint": "PreviewRegions",
}  # fmt: skip
"""The node of each example whose picture is the thumbnail."""
DEMO_OUTPUTS = {
    "CheckpointLoaderSimple": {0: 0, 2: 1}, "CLIPTextEncode": {0: 2}, "ImageOnlyCheckpointLoader": {0: 0, 2: 1},
}  # fmt: skip
"""Outputs of a checkpoint's nodes, and those of the demo model that stand for them."""
SMALL = {"max_side": 256, "num_clusters": 8}
QUALITY, WIDTH = 85, 640


def with_demo_model(graph: dict[str, Any]) -> dict[str, Any]:
    """Return a graph in which the demo model takes the checkpoint's place, at a size for CPUs."""
    demo = str(max(map(int, graph)) + 1)
    for node in graph.values():
        if node["inputs"].pop("clip_vision", None):  # the demo model makes no videos
            node["inputs"]["layer"] = "spatial"
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                swaps = DEMO_OUTPUTS.get(graph[value[0]]["class_type"], {})
                node["inputs"][name] = [demo, swaps[value[1]]] if value[1] in swaps else value
            elif name in SMALL:
                node["inputs"][name] = SMALL[name]
    kept = {key: node for key, node in graph.items() if node["class_type"] not in DEMO_OUTPUTS}
    return {**kept, demo: {"class_type": "LoadDemoModel", "inputs": {}}}


def fetch(address: str, data: object = None) -> bytes:
    """Return what the server answers."""
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        return bytes(response.read())


def outputs_of(address: str, graph: dict[str, Any]) -> dict[str, Any]:
    """Run a graph and return its outputs by node."""
    number = json.loads(fetch(f"{address}/prompt", {"prompt": graph}))["prompt_id"]
    while not (history := json.loads(fetch(f"{address}/history/{number}"))):
        time.sleep(1)
    return dict(history[number]["outputs"])


def main(address: str, numbers: list[str]) -> None:
    """Write the thumbnails of some examples, or of all."""
    chosen = {name: kind for name, kind in SHOWN.items() if not numbers or name.split()[0] in numbers}
    for name, kind in chosen.items():
        graph = with_demo_model(json.loads((ROOT / "tests/nodes/graphs_api" / f"{name}.json").read_text()))
        outputs = outputs_of(address, graph)
        node = next(key for key, node in graph.items() if node["class_type"] == kind and key in outputs)
        found = fetch(f"{address}/view?{urllib.parse.urlencode(outputs[node]['images'][0])}")
        picture = Image.open(io.BytesIO(found))
        picture.seek(getattr(picture, "n_frames", 1) - 1)
        picture = picture.convert("RGB")
        picture.thumbnail((WIDTH, WIDTH))
        picture.save(EXAMPLES / f"{name}.jpg", quality=QUALITY)
        print(name)


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), sys.argv[2:])
