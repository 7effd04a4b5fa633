"""Run the example of Pick Regions in a running ComfyUI's own browser interface and keep a picture of the node at work.

Usage: python scripts/make_picker_picture.py http://127.0.0.1:8188 [CHROMIUM]
Needs `pip install playwright` and a Chromium; the picture is `assets/picker.jpg`.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from host_page import host_page
from PIL import Image
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE, TARGET = ROOT / "example_workflows" / "08 Pick regions by clicking.json", ROOT / "assets" / "picker.jpg"
PICKS = "0 0.28,0.6 rabbit\n0 0.93,0.15 sky"
MEADOW = (0.3, 0.85)
"""A point of the region whose menu is open, as fractions of the picture."""
VIEW, MARGIN, WIDTH = (1100, 1100), 12, 530
PLACE = """picks => {
  const node = window.app.graph._nodes.find((each) => each.type === "PickRegions");
  node.widgets.find((widget) => widget.name === "picks").value = picks;
  node.size = [520, 800];
  node.pos = [node.pos[0], node.pos[1] - 5000]; // away from the others
  window.app.canvas.ds.scale = 1;
  window.app.canvas.ds.offset = [260 - node.pos[0], 170 - node.pos[1]];
  window.app.graph.setDirtyCanvas(true, true);
}"""
BOX = """() => {
  const node = window.app.graph._nodes.find((each) => each.type === "PickRegions");
  const title = window.LiteGraph.NODE_TITLE_HEIGHT;
  const [left, top] = window.app.canvas.ds.offset;
  return [node.pos[0] + left, node.pos[1] + top - title, node.size[0], node.size[1] + title];
}"""


def picture(page: Page, address: str) -> Image.Image:
    """Open and run the example, open a menu and draw the node."""
    page.goto(address)
    page.wait_for_function("window.app?.graph && window.app.extensionManager", timeout=200_000)
    page.wait_for_timeout(3000)
    page.keyboard.press("Escape")  # closes the dialog of the first start
    page.evaluate("window.app.extensionManager.setting.set('Comfy.RightSidePanel.IsOpen', false)")
    page.evaluate("graph => window.app.loadGraphData(graph, true, true, 'example')", json.loads(EXAMPLE.read_text()))
    page.wait_for_timeout(2000)
    page.evaluate(PLACE, PICKS)
    page.evaluate("window.app.queuePrompt(0, 1)")
    page.locator(".vidseg-row").first.wait_for(timeout=300_000)
    page.wait_for_timeout(3000)
    shown = page.locator(".vidseg-picture").bounding_box()
    if shown is None:
        raise RuntimeError("the picker shows no picture")
    page.mouse.click(shown["x"] + MEADOW[0] * shown["width"], shown["y"] + MEADOW[1] * shown["height"], button="right")
    page.wait_for_timeout(1000)
    left, top, width, height = page.evaluate(BOX)
    box = {"x": left - MARGIN, "y": top - MARGIN, "width": width + 2 * MARGIN, "height": height + 2 * MARGIN}
    return Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")


def main(address: str, chromium: str) -> None:
    """Write the picture."""
    with host_page(address, chromium, VIEW) as page:
        image = picture(page, address)
    image.resize((WIDTH, round(WIDTH * image.height / image.width)), Image.Resampling.LANCZOS).save(TARGET, quality=88)
    print(TARGET, image.size)


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), sys.argv[2] if len(sys.argv) > 2 else "/usr/bin/chromium")
