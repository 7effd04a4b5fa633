"""The region picker in a real ComfyUI and a real browser, in both renderers of nodes.

Needs Playwright for Python, Chromium on the path and a ComfyUI (its Python at $COMFYUI_PYTHON, if not this one).
$COMFYUI_FRONTEND may name the folder `static` of another frontend than the host's own.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

from ..nodes.host import REPOSITORY, Server, host_path, running_server

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium"),
    pytest.mark.skipif(host_path() is None, reason="no ComfyUI: set COMFYUI_PATH to its folder"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
OF_THE_HOST = (
    "Failed to load resource", "huggingface", "accessed before initialization", "legacy queue/history",
    "open_maskeditor is deprecated", "reading 'id'", "Invalid layout total size",
    "input.link is deprecated",
)  # fmt: skip
"""What the frontend prints by itself, without any pack."""
FIRST_VUE = (1, 33)
"""Frontend whose Vue renderer is meant for use."""
MODEL = {"model": ["1", 0], "vae": ["1", 1], "positive": ["1", 2], "negative": ["1", 3], "frames": ["1", 4]}
GRAPH = {
    "1": {"class_type": "LoadDemoModel", "inputs": {}},
    "2": {"class_type": "ExtractDiffusionFeatures", "inputs": {**MODEL, "max_side": 128}},
    "3": {"class_type": "KMeansInit", "inputs": {"features": ["2", 0], "num_clusters": 5, "seed": 1}},
    "4": {"class_type": "SceneContextKNN", "inputs": {"features": ["2", 0], "anchor_labels": ["3", 0]}},
    "5": {
        "class_type": "PickRegions",
        "inputs": {"frames": ["1", 4], "labels": ["4", 0], "picks": "", "invert": False},
    },
    "6": {"class_type": "MaskToImage", "inputs": {"mask": ["5", 0]}},
    "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "mask"}},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    frontend = os.environ.get("COMFYUI_FRONTEND")
    options = ("--cpu", "--front-end-root", frontend) if frontend else ()
    with running_server(tmp_path_factory.mktemp("comfyui") / "base", REPOSITORY, *options) as running:
        settings = running.base / "user" / "default" / "comfy.settings.json"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(json.dumps({"Comfy.TutorialCompleted": True}))
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Frontend:
    """A page with ComfyUI's frontend.

    Attributes:
        complaints: what the page printed beyond what the frontend prints by itself.
    """

    def __init__(self, chromium: Any, server: Server, *, vue: bool) -> None:
        self.page = chromium.new_page(viewport={"width": 1300, "height": 1000})
        self.server, self.vue = server, vue
        self.complaints: list[str] = []
        address = server.address
        self.page.route(
            "**/*",
            lambda route: (
                route.continue_() if route.request.url.startswith((address, "data:", "blob:")) else route.abort()
            ),
        )
        self.page.on("pageerror", lambda error: self._complain(str(error)))
        self.page.on("console", lambda message: message.type in {"error", "warning"} and self._complain(message.text))
        self.open()

    def _complain(self, text: str) -> None:
        if not any(known in text for known in OF_THE_HOST):
            self.complaints.append(text)

    def open(self) -> None:
        self.page.goto(self.server.address)
        self.page.wait_for_function("window.app?.graph && window.app.extensionManager", timeout=90_000)
        self.page.wait_for_timeout(2000)
        self.page.keyboard.press("Escape")
        self.page.evaluate("on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", self.vue)

    def load(self, workflow: Any) -> None:
        """Open a workflow and put the node where no panel covers it."""
        self.page.evaluate(
            """async workflow => {
                await app.loadGraphData(workflow, true, true, "picked");
                app.canvas.ds.scale = 1;
                app.canvas.ds.offset = [150, 110];
                app.graph.setDirtyCanvas(true, true);
            }""",
            workflow,
        )
        self.page.wait_for_timeout(1500)

    def run(self) -> list[np.ndarray[Any, Any]]:
        """Run the graph; returns the masks that it saved."""
        before = set(self.server.get("/history"))
        self.page.evaluate("app.queuePrompt(0, 1)")
        wait(lambda: set(self.server.get("/history")) - before)
        (history,) = [run for key, run in self.server.get("/history").items() if key not in before]
        assert history["status"]["status_str"] == "success", history["status"]
        self.page.wait_for_timeout(500)
        self.page.locator(".vidseg-row").first.wait_for(timeout=10_000)
        images = history["outputs"]["7"]["images"]
        return [
            np.array(Image.open(BytesIO(self.server.fetch(f"/view?{urlencode(image)}"))))[..., 0] for image in images
        ]

    @property
    def text(self) -> str:
        return str(
            self.page.evaluate(
                "app.graph._nodes.find(node => node.type === 'PickRegions').widgets.find(w => w.name === 'picks').value"
            )
        )

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the place in the window of a point of the picture, given as fractions."""
        box = self.page.locator(".vidseg-picture").bounding_box()
        width, height = self.page.evaluate("(c => [c.width, c.height])(document.querySelector('.vidseg-picture'))")
        scale = min(box["width"] / width, box["height"] / height)
        left, top = (box["width"] - width * scale) / 2, (box["height"] - height * scale) / 2
        return box["x"] + left + x * width * scale, box["y"] + top + y * height * scale

    def click(self, x: float, y: float, button: str = "left") -> None:
        self.page.mouse.click(*self.place(x, y), button=button)
        self.page.wait_for_timeout(100)

    def press(self, name: str) -> None:
        """Press a button of the picker or of its menu, if it can be pressed."""
        button = self.page.locator(".vidseg-picker button, .vidseg-menu button").filter(has_text=name)
        if button.is_enabled():
            button.click()
        self.page.wait_for_timeout(100)

    def notes(self) -> str:
        return str(self.page.locator(".vidseg-notes").inner_text())

    def status(self) -> str:
        return str(self.page.locator(".vidseg-status").inner_text())


def wait(condition: Callable[[], Any], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.2)


def shown(server: Server) -> dict[str, Any]:
    """Return what the last run sent to the picker."""
    *_, last = server.get("/history").values()
    return dict(last["outputs"]["5"]["vidseg_picker"][0])


def label_maps(server: Server) -> np.ndarray[Any, Any]:
    content = shown(server)
    files = [server.base / "temp" / "vidseg_picker" / f"{content['stem']}_{number}.png" for number in content["frames"]]
    owners = np.array(content["leaves"]["owners"])
    return np.stack([owners[np.array(Image.open(file))] for file in files])


def spots(server: Server, number: int) -> list[tuple[int, float, float]]:
    """Return label and an inner point of the largest regions of frame 0, in order of label."""
    rows = [row for row in shown(server)["regions"] if row["first"] == 0]
    frame = label_maps(server)[0]
    best = []
    for row in sorted(rows, key=lambda row: -(frame == row["label"]).sum())[:number]:
        inside = frame == row["label"]
        while True:
            padded = np.pad(inside, 1)
            smaller = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
            if not smaller.any():
                break
            inside = smaller
        y, x = np.argwhere(inside)[0] + 0.5
        best.append((row["label"], float(x / frame.shape[1]), float(y / frame.shape[0])))
    return best


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "vue"])
def frontend(chromium: Any, server: Server, request: pytest.FixtureRequest) -> Iterator[Frontend]:
    """A graph that has run once, with nothing picked."""
    opened = Frontend(chromium, server, vue=request.param)
    version = str(opened.page.evaluate("window.__COMFYUI_FRONTEND_VERSION__"))
    if request.param and tuple(int(part) for part in version.split(".")[:2]) < FIRST_VUE:
        opened.page.close()
        pytest.skip(f"frontend {version}: its Vue nodes are an experiment that does not show opened workflows")
    opened.page.evaluate("graph => app.loadApiJson(graph, 'pick')", GRAPH)
    opened.page.wait_for_timeout(1000)
    workflow = opened.page.evaluate("app.graph.serialize()")
    for number, node in enumerate(workflow["nodes"]):
        picker = node["type"] == "PickRegions"
        node["pos"], node["size"] = ([0, 0], [460, 760]) if picker else ([2000 + 350 * number, 0], node["size"])
    opened.load(workflow)
    assert not any(mask.any() for mask in opened.run())
    yield opened
    opened.page.close()


@pytest.fixture
def places(frontend: Frontend, server: Server) -> list[tuple[int, float, float]]:
    """Three regions, each with a point on it, and a picker in which nothing is picked."""
    frontend.page.keyboard.press("Escape")
    frontend.press("Clear")
    assert frontend.text == ""
    return spots(server, 3)


def test_clicked_and_named_regions_are_the_mask_of_all_frames_also_after_loading(
    frontend: Frontend, server: Server, places: list[tuple[int, float, float]], tmp_path: Path
) -> None:
    page = frontend.page
    (dog, *at_dog), (cat, *at_cat), _ = places
    frontend.click(*at_dog)
    frontend.click(*at_cat)
    frontend.click(*at_cat, button="right")
    page.locator(".vidseg-menu input").fill("cat")
    page.keyboard.press("Enter")
    name = page.locator(f"[data-key=name-{dog}]")
    name.fill("a dog")
    name.press("Tab")
    lines = frontend.text.splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["a dog", "cat"], lines
    assert "Run to update the masks." in frontend.notes()

    masks, maps = frontend.run(), label_maps(server)
    assert len(masks) == len(maps) == shown(server)["numFrames"]
    for mask, labeled in zip(masks, maps, strict=True):
        small = Image.fromarray(mask).resize(labeled.shape[::-1], Image.Resampling.NEAREST)
        assert np.array_equal(np.array(small) > 127, np.isin(labeled, (dog, cat)))
    assert frontend.notes() == ""
    assert frontend.status().startswith("Picked: ")
    assert {"a dog", "cat"} == set(frontend.status().removeprefix("Picked: ").split(", "))
    frontend.press("Undo")
    assert frontend.text.splitlines() == [lines[0].removesuffix(" a dog"), lines[1]]
    assert "Run to update the masks." in frontend.notes()
    name.fill("a dog")
    name.press("Tab")

    saved = tmp_path / "workflow.json"
    saved.write_text(json.dumps(page.evaluate("app.graph.serialize()")))
    frontend.open()
    frontend.load(json.loads(saved.read_text()))
    assert frontend.text.splitlines() == lines
    again = frontend.run()
    assert all(np.array_equal(*pair) for pair in zip(masks, again, strict=True))
    assert frontend.complaints == []


def test_another_number_of_regions_is_shown_at_once(frontend: Frontend, server: Server) -> None:
    before = set(server.get("/history"))
    counts = {}
    for number in (2, 9, 0):
        frontend.page.evaluate(
            """number => {
                const node = app.graph._nodes.find(node => node.type === "PickRegions");
                const widget = node.widgets.find(widget => widget.name === "num_regions");
                widget.value = number;
                widget.callback?.(number);
            }""",
            number,
        )
        frontend.page.wait_for_timeout(300)
        counts[number] = frontend.page.locator(".vidseg-row").count()
    assert (counts[2], counts[0]) == (2, 5)
    assert 5 < counts[9] <= 9
    assert set(server.get("/history")) == before


def test_pointing_at_a_region_tells_what_it_is(frontend: Frontend, places: list[tuple[int, float, float]]) -> None:
    for label, *at in places:
        frontend.page.mouse.move(*frontend.place(*at))
        assert f"id {label} " in frontend.status()
        assert "% of this frame" in frontend.status()
    frontend.page.mouse.move(100, 900)
    assert frontend.status().startswith("Click regions")


def test_menu_merges_splits_and_hides_and_undo_takes_it_back(
    frontend: Frontend, places: list[tuple[int, float, float]]
) -> None:
    (_, *first), (_, *second), _ = places
    frontend.click(*first)
    picked = frontend.text
    frontend.click(*second, button="right")
    frontend.press("Merge with ")
    one, other = frontend.text.splitlines()
    assert other.startswith("name ")
    assert one.split(" ", 2)[2] == other.split(" ", 3)[3]
    frontend.click(*first, button="right")
    frontend.press("Split again")
    assert frontend.text == picked
    frontend.click(*first, button="right")
    frontend.press("Hide")
    assert frontend.text == f"hide {picked}"
    for _ in range(3):
        frontend.press("Undo")
    assert frontend.text == picked
    frontend.click(*first)
    assert frontend.text == ""
    assert frontend.complaints == []


def test_dragging_picks_all_regions_on_the_way(frontend: Frontend, places: list[tuple[int, float, float]]) -> None:
    (one, *start), (other, *stop), _ = places
    frontend.page.mouse.move(*frontend.place(*start))
    frontend.page.mouse.down()
    frontend.page.mouse.move(*frontend.place(*stop), steps=4)
    frontend.page.mouse.up()
    labels = {frontend.page.locator(f"[data-key=pick-{label}]").is_checked() for label in (one, other)}
    assert labels == {True}
    frontend.press("Undo")
    assert frontend.text == ""


def test_a_menu_and_a_pinch_pick_nothing(frontend: Frontend, places: list[tuple[int, float, float]]) -> None:
    page, ((_, *at), (_, *other), _) = frontend.page, places
    page.keyboard.down("Control")  # opens the menu on a Mac
    frontend.click(*at)
    page.keyboard.up("Control")
    assert frontend.text == ""

    x, y = frontend.place(*at)
    page.mouse.move(x, y)
    page.mouse.down()
    page.evaluate(  # what a long press gives
        "([clientX, clientY]) => document.querySelector('.vidseg-picture').dispatchEvent("
        "new MouseEvent('contextmenu', {clientX, clientY, bubbles: true, cancelable: true}))",
        [x, y],
    )
    page.mouse.up()
    assert page.locator(".vidseg-menu").is_visible()
    page.keyboard.press("Escape")
    assert frontend.text == ""

    touch = page.context.new_cdp_session(page)
    fingers = [
        {"id": number, "x": x, "y": y} for number, (x, y) in enumerate((frontend.place(*at), frontend.place(*other)))
    ]
    apart = [finger | {"x": finger["x"] + 10} for finger in fingers]
    for kind, points in (
        ("touchStart", fingers[:1]), ("touchStart", fingers), ("touchMove", apart), ("touchEnd", []),
    ):  # fmt: skip
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_timeout(100)
    assert frontend.text == ""
    assert frontend.complaints == []


def test_all_of_it_by_keyboard(frontend: Frontend, places: list[tuple[int, float, float]]) -> None:
    page = frontend.page
    slider = page.locator(".vidseg-slider")
    slider.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert page.locator(".vidseg-number").inner_text().startswith("1 / ")
    page.keyboard.press("Home")
    (one, *_), (other, *_), _ = places
    page.locator(f"[data-key=pick-{one}]").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.type("thing")
    page.keyboard.press("Tab")
    assert frontend.text.endswith(" thing")
    page.locator(f"[data-key=more-{other}]").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert [line.endswith(" thing") for line in frontend.text.splitlines()] == [True, True]
    assert frontend.text.count("name ") == 1


def test_text_written_by_hand_is_shown(frontend: Frontend, places: list[tuple[int, float, float]]) -> None:
    label, x, y = places[0]
    text = f"0 {x:.4f},{y:.4f} by hand\nnonsense\n999 0.5,0.5 late"
    frontend.page.locator("textarea").first.fill(text)
    assert frontend.text == text
    frontend.page.wait_for_timeout(500)
    assert frontend.page.locator(f"[data-key=name-{label}]").input_value() == "by hand"
    assert "Not understood: nonsense" in frontend.notes()
    assert "Found when you run: frame 999, late" in frontend.notes()


def test_running_again_brings_back_files_that_were_removed(frontend: Frontend, server: Server) -> None:
    frontend.press("Clear")
    frontend.run()
    shutil.rmtree(server.base / "temp" / "vidseg_picker")
    last = shown(server)["frames"][-1]
    frontend.page.locator("textarea").first.fill(f"{last} 0.5,0.5 late")
    frontend.page.wait_for_timeout(500)
    assert f"Found when you run: frame {last}, late" in frontend.notes()
    frontend.press("Clear")
    frontend.run()
    slider = frontend.page.locator(".vidseg-slider")
    slider.focus()
    frontend.page.keyboard.press("End")
    frontend.page.wait_for_timeout(500)
    assert frontend.notes() == ""
    frontend.page.keyboard.press("Home")
    assert len(label_maps(server)) > 1
    assert frontend.complaints == []


def test_undo_of_the_frontend_keeps_the_picture(frontend: Frontend, places: list[tuple[int, float, float]]) -> None:
    frontend.page.wait_for_timeout(500)
    frontend.click(*places[0][1:])
    assert frontend.text != ""
    frontend.page.wait_for_timeout(500)
    frontend.page.mouse.move(40, 600)
    frontend.page.evaluate("document.activeElement.blur()")
    frontend.page.keyboard.press("Control+z")
    frontend.page.wait_for_timeout(2500)
    assert frontend.text == ""
    assert frontend.page.locator(".vidseg-row").count() > 1
    assert frontend.complaints == []
