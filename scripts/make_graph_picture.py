"""Run the first example in a running ComfyUI's own browser interface and keep a picture of the graph with its results.

Usage: python scripts/make_graph_picture.py http://127.0.0.1:8188 [CHROMIUM]
Needs `pip install playwright` and a Chromium; the picture is `assets/graph.png`. The first run takes minutes on a CPU.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

from host_page import host_page
from PIL import Image
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE, TARGET = ROOT / "example_workflows" / "01 Demo without a download.json", ROOT / "assets" / "graph.png"
VIEW, MARGIN, WIDTH = (2900, 1700), 40, 1600
LEFT, TOP = 200, 240
"""Corner of the graph in the window, clear of the menus, pixels."""
PLACE = """([left, top]) => {
  const { canvas, graph } = window.app;
  canvas.deselectAll?.();
  const boxes = [...graph._nodes.map((node) => [...node.pos, ...node.size]), ...graph._groups.map((g) => g._bounding)];
  const low = [0, 1].map((axis) => Math.min(...boxes.map((box) => box[axis])));
  const high = [0, 1].map((axis) => Math.max(...boxes.map((box) => box[axis] + box[axis + 2])));
  canvas.ds.scale = 1;
  canvas.ds.offset = [left - low[0], top - low[1]];
  canvas.setDirty(true, true);
  return [high[0] - low[0], high[1] - low[1]];
}"""
RUNNING = """async () => {
  const queue = await (await fetch("/queue")).json();
  return queue.queue_running.length + queue.queue_pending.length;
}"""


def picture(page: Page, address: str) -> Image.Image:
    """Open, run and draw the example."""
    page.goto(address)
    page.wait_for_function("window.app && window.app.graph && window.app.extensionManager", timeout=200_000)
    time.sleep(3)
    page.evaluate("window.app.extensionManager.setting.set('Comfy.RightSidePanel.IsOpen', false)")
    page.evaluate("graph => window.app.loadGraphData(graph, true, true, 'example')", json.loads(EXAMPLE.read_text()))
    time.sleep(3)
    page.evaluate("window.app.queuePrompt(0, 1)")
    time.sleep(3)
    while page.evaluate(RUNNING):
        time.sleep(2)
    page.keyboard.press("Escape")  # closes the dialog of the first start, which may come late
    width, height = page.evaluate(PLACE, [LEFT, TOP])
    time.sleep(4)
    box = {"x": LEFT - MARGIN, "y": TOP - MARGIN, "width": width + 2 * MARGIN, "height": height + 2 * MARGIN}
    return Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")


def main(address: str, chromium: str) -> None:
    """Write the picture."""
    with host_page(address, chromium, VIEW) as page:
        image = picture(page, address)
    small = image.resize((WIDTH, round(WIDTH * image.height / image.width)), Image.Resampling.LANCZOS)
    small.save(TARGET, optimize=True)
    print(TARGET, small.size)


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), sys.argv[2] if len(sys.argv) > 2 else "/usr/bin/chromium")
