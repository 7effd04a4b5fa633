"""Call nodes as the host does, with the defaults of their widgets."""

from __future__ import annotations

from typing import Any

from vidseg.nodes import NODES
from vidseg.nodes.demo_model import LoadedModel

NODE = {node.define_schema().node_id: node for node in NODES}
STAGES = (
    "ExtractDiffusionFeatures",
    "KMeansInit",
    "SceneContextKNN",
    "CorrespondenceRefine",
    "MaskedModulationUpsample",
)


def defaults(node_id: str) -> dict[str, Any]:
    """Return the values of a node's widgets."""
    inputs = NODE[node_id].define_schema().inputs
    return {socket.id: socket.default for socket in inputs if getattr(socket, "default", None) is not None}


def call(node_id: str, **inputs: Any) -> Any:
    """Execute a node and return its only output, or all of them."""
    result = NODE[node_id].execute(**{**defaults(node_id), **inputs}).args
    return result[0] if len(result) == 1 else result


def wired(loaded: LoadedModel) -> dict[str, Any]:
    """Return a model as inputs of nodes."""
    return dict(zip(("model", "vae", "positive", "negative"), loaded, strict=True))


def coarse_labels(features: Any, num_clusters: int = 3, **options: Any) -> Any:
    """Return what the second to fourth stage make of features."""
    anchor_labels = call("KMeansInit", features=features, num_clusters=num_clusters, window_length=2)
    labels = call("SceneContextKNN", features=features, anchor_labels=anchor_labels, window_length=2, **options)
    return call("CorrespondenceRefine", labels=labels)
