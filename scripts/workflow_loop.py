"""Example workflow of a long clip, part by part, by the host's Start Loop and End Loop."""

from __future__ import annotations

from typing import Any

from workflow_examples import demo
from workflow_format import Graph, Node, Socket
from workflow_notes import LOOP_NOTE

FIRST, FIRST_FINE, EACH, EACH_FINE, RESULT = 340, 680, 1120, 1460, 1800
"""Left sides of the columns, pixels."""
PICKS = "0 0.28,0.6 rabbit"
LOOP_NODES: dict[str, Any] = {
    "StartLoop": {
        "input": {
            "required": {
                "mode": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {
                        "options": [
                            {"key": "simple", "inputs": {"required": {"num_iterations": ["INT", {"default": 4}]}}},
                            {
                                "key": "For",
                                "inputs": {
                                    "required": {
                                        "start_iteration_index": ["INT", {"default": 0}],
                                        "max_iteration": ["INT", {"default": 4}],
                                        "step": ["INT", {"default": 1}],
                                    }
                                },
                            },
                        ]
                    },
                ],
                "cache_iterations": ["BOOLEAN", {"default": False}],
            },
            "optional": {
                "parent_iteration": ["INT", {"forceInput": True}],
                "initial_iteration_value": ["*", {}],
            },
        },
        "output": ["INT", "BOOLEAN", "BOOLEAN", "*", "*"],
        "output_name": ["iteration_index", "is_first", "is_last", "list_item", "current_iteration_value"],
    },
    "EndLoop": {
        "input": {
            "required": {"accumulate": ["BOOLEAN", {"default": False}]},
            "optional": {
                "output_value": ["*", {}],
                "next_iteration_value": ["*", {}],
                "terminations": [
                    "COMFY_AUTOGROW_V3",
                    {"template": {"input": {"required": {"termination": ["*", {}]}}}},
                ],
            },
        },
        "output": ["*"],
        "output_name": ["outputs"],
    },
}
"""The two nodes as hosts from 0.36 on describe them, as far as a workflow needs it; older hosts lack them."""


def features_of(graph: Graph, frames: Socket, model: dict[str, Socket], place: tuple[int, int], **more: Any) -> Node:  # noqa: ANN401
    """Add the first stage, at the size for the demo model."""
    return graph.add("ExtractDiffusionFeatures", place, **model, frames=frames, max_side=256, **more)


def long_clip() -> Graph:
    """(o) A clip part by part, the scene handed from part to part."""
    graph = Graph("Segment a long clip in a loop")
    model, frames = demo(graph, LOOP_NOTE)
    length = graph.add("PrimitiveInt", (FIRST, 0), value=6, title="Frames of a part")
    part = graph.add("ImageFromBatch", (FIRST, 0), image=frames, batch_index=0, length=length[0], title="First part")
    features = features_of(graph, part[0], model.inputs, (FIRST, 0))
    anchor = graph.add("KMeansInit", (FIRST, 0), features=features[0], num_clusters=10, window_length=length[0])
    labels = graph.add("SceneContextKNN", (FIRST_FINE, 0), features=features[0], anchor_labels=anchor[0],
                       window_length=length[0])  # fmt: skip
    refined = graph.add("CorrespondenceRefine", (FIRST_FINE, 0), labels=labels[0])
    picked = graph.add("PickRegions", (FIRST_FINE, 0), frames=part[0], labels=refined[0], picks=PICKS, wide=360)
    scene = graph.add("SaveScene", (FIRST_FINE, 0), labels=picked[1], features=features[0], filename_prefix="")
    size = graph.add("GetImageSize", (EACH, 0), image=frames)
    begin = graph.add("StartLoop", (EACH, 0), mode="For", initial_iteration_value=scene[0],
                      **{"mode.max_iteration": size[2], "mode.step": length[0]})  # fmt: skip
    part = graph.add("ImageFromBatch", (EACH, 0), image=frames, batch_index=begin[0], length=length[0],
                     title="Part of this turn")  # fmt: skip
    features = features_of(graph, part[0], model.inputs, (EACH, 0), first_frame=begin[0])
    known = graph.add("ApplyScene", (EACH_FINE, 0), features=features[0], scene=begin[4], window_length=length[0])
    labels = graph.add("MaskedModulationUpsample", (EACH_FINE, 0), **model.inputs, features=features[0],
                       labels=known[0], quality="fast")  # fmt: skip
    mask = graph.add("RegionsToMask", (EACH_FINE, 0), labels=labels[0], regions="rabbit")
    color = graph.add("EmptyImage", (EACH_FINE, 0), color=0xE9A178, title="A color (or any image)")
    painted = graph.add("ImageCompositeMasked", (EACH_FINE, 0), destination=part[0], source=color[0], mask=mask[0],
                        resize_source=True)  # fmt: skip
    shown = graph.add("PreviewRegions", (RESULT, 0), frames=part[0], labels=labels[0], wide=340)
    end = graph.add("EndLoop", (RESULT, 0), output_value=painted[0], next_iteration_value=known[1], accumulate=True,
                    **{"terminations.termination0": shown[0]}, wide=340)  # fmt: skip
    whole = graph.add("RebatchImages", (RESULT, 0), images=end[0], batch_size=4096, title="All parts", wide=340)
    graph.add("SaveAnimatedWEBP", (RESULT, 0), images=whole[0], filename_prefix="vidseg/long", fps=8.0, lossless=False,
              wide=340)  # fmt: skip
    first = [node for node in graph.nodes if FIRST <= node.place[0] <= FIRST_FINE]
    inside = [node for node in graph.nodes if EACH <= node.place[0] <= RESULT and node.id <= end.id]
    graph.groups = {"The first part: choose and name": first, "Each part, one after another": inside}
    return graph


LOOPING: dict[str, Any] = {"15 Segment a long clip in a loop": long_clip}
"""By file name."""
