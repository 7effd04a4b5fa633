"""Example workflows in which regions are picked by clicking."""

from __future__ import annotations

from typing import Any

from workflow_examples import DEMO_MOTION, DEMO_SEED, DEMO_SIZE, coarse, demo, fine
from workflow_format import Graph
from workflow_notes import CORRECT_NOTE, PICK_NOTE

CORRECTIONS = """10 0.38,0.44 rabbit
15 0.36,0.17 rabbit"""


def pick_regions() -> Graph:
    """(h) Regions by clicking."""
    graph = Graph("Pick regions by clicking")
    model, frames = demo(graph, PICK_NOTE)
    features, refined = coarse(graph, model, frames, **DEMO_SIZE, motion=DEMO_MOTION, seed=DEMO_SEED)
    labels = fine(graph, model, features, refined, quality="fast")
    picked = graph.add("PickRegions", (1360, 0), frames=frames, labels=labels[0], picks="0 0.93,0.15 sky", wide=400)
    color = graph.add("EmptyImage", (1800, 0), color=0xE9A178, title="A color (or any image)", wide=240)
    painted = graph.add("ImageCompositeMasked", (1800, 0), destination=frames, source=color[0], mask=picked[0],
                        resize_source=True, wide=240)  # fmt: skip
    graph.add("SaveAnimatedWEBP", (1800, 0), images=painted[0], filename_prefix="vidseg/picked", fps=8.0,
              lossless=False, wide=240)  # fmt: skip
    graph.add("PreviewAny", (1800, 0), source=picked[2], title="What was picked", wide=240)
    return graph


def pick_and_correct() -> Graph:
    """(i) Picking and correcting."""
    graph = Graph("Pick and correct")
    model, frames = demo(graph, CORRECT_NOTE)
    features, refined = coarse(graph, model, frames, **DEMO_SIZE, motion=DEMO_MOTION, seed=DEMO_SEED)
    labels = fine(graph, model, features, refined, quality="fast")
    picked = graph.add("PickRegions", (1360, 0), frames=frames, labels=labels[0], picks="0 0.28,0.6 rabbit", wide=400)
    corrected = graph.add("CorrectRegions", (1800, 0), labels=picked[1], features=features[0],
                          corrections=CORRECTIONS, wide=260)  # fmt: skip
    graph.add("PreviewRegions", (1800, 0), frames=frames, labels=corrected[0], wide=260)
    mask = graph.add("RegionsToMask", (1800, 0), labels=corrected[0], regions="rabbit", wide=260)
    picture = graph.add("MaskToImage", (1800, 0), mask=mask[0], wide=260)
    graph.add("SaveAnimatedWEBP", (1360, 0), images=picture[0], filename_prefix="vidseg/rabbit", fps=8.0,
              lossless=False, wide=260, title="The mask")  # fmt: skip
    return graph


PICKING: dict[str, Any] = {
    "08 Pick regions by clicking": pick_regions,
    "09 Pick and correct": pick_and_correct,
}
"""By file name, after the examples of `workflow_examples`."""
