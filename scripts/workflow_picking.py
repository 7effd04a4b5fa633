"""Example workflows in which regions are picked by clicking."""

from __future__ import annotations

from typing import Any

from workflow_examples import ROW, checkpoint, coarse, fine, repainted, video
from workflow_format import Graph, Note
from workflow_notes import CORRECT_NOTE, PICK_NOTE

CORRECTIONS = """new 10 0.35,0.62 rabbit
new 10 0.37,0.4 rabbit
new 3 0.3,0.55 rabbit"""


def pick_regions() -> Graph:
    """(h) Regions by clicking."""
    graph = Graph("Pick regions by clicking")
    model, frames = checkpoint(graph), video(graph)
    features, refined = coarse(graph, model, frames, max_side=512, clusters=8)
    labels = fine(graph, model, features, refined)
    picked = graph.add("PickRegions", (1440, 0), frames=frames, labels=labels[0], picks="0 0.93,0.15 sky", wide=460)
    color = graph.add("EmptyImage", (1960, 0), color=0xE69F00, title="A color (or any image)")
    painted = graph.add("ImageCompositeMasked", (1960, 0), destination=frames, source=color[0], mask=picked[0],
                        resize_source=True)  # fmt: skip
    graph.add("SaveAnimatedWEBP", (1960, 0), images=painted[0], filename_prefix="vidseg/picked", fps=8.0,
              lossless=False, wide=400)  # fmt: skip
    graph.add("PreviewAny", (1440, 0), source=picked[2], title="What was picked", wide=460)
    graph.notes.append(Note(PICK_NOTE, (1080, ROW), (320, 210)))
    return graph


def pick_correct_repaint() -> Graph:
    """(i) Picking, correcting, painting."""
    graph = Graph("Pick, correct and repaint")
    model, frames = checkpoint(graph, paints=True), video(graph)
    sized = graph.add("ImageScale", (0, ROW), image=frames, upscale_method="lanczos", width=512, height=320,
                      crop="center")  # fmt: skip
    features, refined = coarse(graph, model, sized[0], max_side=0, clusters=8)
    labels = fine(graph, model, features, refined)
    picked = graph.add("PickRegions", (1440, 0), frames=sized[0], labels=labels[0], picks="0 0.78,0.5 wall", wide=420)
    corrected = graph.add("CorrectRegions", (1900, 0), labels=picked[1], features=features[0],
                          corrections=CORRECTIONS, wide=340)  # fmt: skip
    graph.add("PreviewRegions", (1900, 0), frames=sized[0], labels=corrected[0], wide=340)
    mask = graph.add("RegionsToMask", (1900, 0), labels=corrected[0], regions="wall", wide=340)
    grown = graph.add("GrowMask", (1900, 0), mask=mask[0], expand=6, wide=340)
    repainted(graph, model, sized[0], grown[0], words="a wall of white marble, detailed",
              places=((1440, ROW), (2280, 0)))  # fmt: skip
    graph.notes.append(Note(PICK_NOTE, (1080, ROW), (320, 210)))
    graph.notes.append(Note(CORRECT_NOTE, (1080, ROW), (320, 210)))
    return graph


PICKING: dict[str, Any] = {
    "8 Pick regions by clicking": pick_regions,
    "9 Pick, correct and repaint": pick_correct_repaint,
}
"""By file name, after the examples of `workflow_examples`."""
