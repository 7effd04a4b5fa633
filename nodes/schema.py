"""Small differences between versions of the host, in one place; and what every node shares."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from comfy_api.latest import io

CATEGORY = "VidSeg"
MAX_SEED = 2**32 - 1
"""Largest seed of K-means."""
Features = io.Custom("VIDSEG_FEATURES")
Seeds = io.Custom("VIDSEG_SEEDS")
Labels = io.Custom("VIDSEG_LABELS")

_SCHEMA_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}
_Input = TypeVar("_Input", bound=io.Input)


def schema(**values: Any) -> io.Schema:
    """Return a schema without the fields that this version of the host does not know (such as search aliases)."""
    values.setdefault("category", CATEGORY)
    return io.Schema(**{name: value for name, value in values.items() if name in _SCHEMA_FIELDS})


def advanced(socket: _Input) -> _Input:
    """Mark an input as advanced: folded away where the host can do that."""
    socket.extra_dict = {**(socket.extra_dict or {}), "advanced": True}
    return socket


def model_inputs() -> list[io.Input]:
    """Return the inputs of nodes that run the UNet."""
    return [
        io.Model.Input(
            "model", tooltip="A Stable Diffusion 1.x or 2.x model, from Load Checkpoint or Load Demo Model."
        ),
        io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
    ]


def conditioning_inputs() -> list[io.Input]:
    """Return the optional prompts."""
    return [
        io.Conditioning.Input(
            "positive",
            optional=True,
            tooltip="The EMPTY prompt from CLIP Text Encode: the method needs no words. Not connected: zeros stand "
            "for it, the model runs without guidance, and regions are somewhat less distinct.",
        ),
        io.Conditioning.Input(
            "negative",
            optional=True,
            tooltip="Zeros, from Conditioning Zero Out (not an empty prompt). Not connected: zeros, which is right.",
        ),
    ]


def sampling_inputs(config: Any) -> list[io.Input]:
    """Return the inputs that must be the same in all nodes that run the UNet; ``config`` holds the defaults."""
    return [
        advanced(
            io.Int.Input(
                "steps",
                default=config.num_steps,
                min=1,
                max=1000,
                tooltip="Sampling steps of the whole schedule, of which only the last few run. Keep the same in "
                "Extract Diffusion Features and Masked Modulation Upsample.",
            )
        ),
        advanced(
            io.Float.Input(
                "guidance_scale",
                default=config.guidance_scale,
                min=0.0,
                max=30.0,
                step=0.1,
                tooltip="Classifier-free guidance between positive and negative. Keep the same in both nodes.",
            )
        ),
    ]
