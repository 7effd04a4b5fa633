"""The command `vidseg info`: what a file or folder is, and which qualities it serves."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..backbones.protocol import PIXELS_PER_CELL
from ..checkpoints.describe import ModelDescription, describe_model
from ..checkpoints.vision import VisionDescription, describe_features, is_vision_folder
from ..config.settings import QUALITIES, preset

FEATURES_ALONE = "features alone, no modulation"


def info(arguments: argparse.Namespace, _words: list[str]) -> int:
    """Run the command; return its exit code."""
    facts = list_facts(arguments.model)
    sys.stdout.write(json.dumps(facts, indent=1) + "\n" if arguments.json else format_facts(facts))
    return 0


def list_facts(path: Path) -> dict[str, Any]:
    """Return what is known of a model without loading it, by name."""
    model = describe_features(path) if is_vision_folder(path) else describe_model(path)
    facts = {"name": model.path.name, "family": model.family, **_list_shared(model)}
    if isinstance(model, VisionDescription):
        return {
            **facts,
            "layout": "folder of transformers: give it as --features",
            "patch": f"{model.patch} pixels, resized to a cell",
            "channels": model.channels,
            "parameters": model.num_parameters,
            "bytes": model.num_bytes,
            "fingerprint": model.fingerprint,
        }
    return {**facts, **_list_diffusion(model)}


def _list_shared(model: ModelDescription | VisionDescription) -> dict[str, Any]:
    """Return what a user asks first: qualities, cells, and layers where they have names."""
    alone = "" if len(model.qualities) == len(QUALITIES) else f" ({FEATURES_ALONE})"
    layers = preset("default", model.kind).feature.layers
    return {
        "qualities": ", ".join(model.qualities) + alone,
        "cell": f"{PIXELS_PER_CELL} pixels",
        **({"layers": ", ".join(layers)} if layers else {}),
    }


def _list_diffusion(model: ModelDescription) -> dict[str, Any]:
    return {
        "layout": model.layout,
        "prediction": model.sizes.prediction_type + (", zero terminal SNR" if model.sizes.zero_snr else ""),
        "empty prompt": model.conditioning,
        "type of weights": model.dtype,
        **({"frames seen together": model.num_frames or "not told: 14"} if model.sizes.unet.is_video else {}),
        "parameters": model.num_parameters,
        "bytes": model.num_bytes,
        "fingerprint": model.fingerprint,
        "blocks": {str(block.block): f"{block.channels} channels, 1/{block.grid_divisor}" for block in model.blocks},
    }


def format_facts(facts: Mapping[str, Any]) -> str:
    """Return facts as lines for people."""
    lines = []
    for name, value in facts.items():
        rows = value.items() if isinstance(value, dict) else [("", value)]
        lines += [f"{f'{name} {key}'.strip():<24} {item}\n" for key, item in rows]
    return "".join(lines)
