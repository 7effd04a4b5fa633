"""Draw every node of the pack in the default theme, from a running ComfyUI's own browser interface.

Usage: python scripts/make_node_picture.py http://127.0.0.1:8188 [CHROMIUM]
Needs `pip install playwright` and a Chromium; the picture is `assets/nodes.png`.
"""

from __future__ import annotations

import io
import json
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from host_page import host_page
from PIL import Image
from playwright.sync_api import Page

TARGET = Path(__file__).resolve().parents[1] / "assets" / "nodes.png"
COLUMNS, WIDTH, GAP, TITLE = 5, 300, 36, 44
"""Number of columns, width of a node, space between nodes and height of a title, pixels."""
LEFT, TOP, VIEW = 140, 320, (2000, 2600)
"""Corner of the first node, clear of menus and messages, and the size of the window, pixels."""
MARGIN, COLORS = 28, 128
PLACE = """([ids, columns, width, gap, title, left, top]) => {
  const app = window.app, graph = app.graph;
  graph.clear();
  const bottoms = Array(columns).fill(0);
  for (const id of ids) {
    const node = window.LiteGraph.createNode(id);
    graph.add(node);
    node.size = [width, node.computeSize()[1]];
    const column = bottoms.indexOf(Math.min(...bottoms));
    node.pos = [column * (width + gap), bottoms[column] + title];
    bottoms[column] += node.size[1] + title + gap;
  }
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = [left, top];
  app.canvas.setDirty(true, true);
  return Math.max(...bottoms);
}"""


def node_ids(address: str) -> list[str]:
    """Return the ids of the pack's nodes, in the order of its list."""
    with urllib.request.urlopen(f"{address}/object_info", timeout=60) as response:  # noqa: S310
        info: dict[str, Any] = json.load(response)
    return [name for name, node in info.items() if str(node.get("category", "")).split("/")[0] == "VidSeg"]


def draw(page: Page, address: str) -> Image.Image:
    """Return the picture of all nodes."""
    page.goto(address)
    page.wait_for_function("window.app && window.app.graph && window.app.extensionManager", timeout=200_000)
    time.sleep(3)
    page.keyboard.press("Escape")  # closes the dialog of the first start
    time.sleep(1)
    page.evaluate("window.app.extensionManager.setting.set('Comfy.RightSidePanel.IsOpen', false)")
    height = page.evaluate(PLACE, [node_ids(address), COLUMNS, WIDTH, GAP, TITLE, LEFT, TOP])
    time.sleep(3)
    box = {
        "x": LEFT - MARGIN, "y": TOP - MARGIN, "width": COLUMNS * (WIDTH + GAP) - GAP + 2 * MARGIN,
        "height": min(height + 2 * MARGIN, VIEW[1] - TOP),
    }  # fmt: skip
    return Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")


def main(address: str, chromium: str) -> None:
    """Write the picture, in few colors so that it stays small."""
    with host_page(address, chromium, VIEW) as page:
        picture = draw(page, address)
    few = picture.quantize(COLORS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(TARGET, optimize=True)
    print(TARGET, picture.size)


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), sys.argv[2] if len(sys.argv) > 2 else "/usr/bin/chromium")
