"""Memory goes back to the host: nothing of a node's work outlives it but its result."""

from __future__ import annotations

import gc
import logging
import re
from typing import Any

import comfy.model_management
import comfy.model_patcher
import pytest
from torch import Tensor
from vidseg.core.types import InputError
from vidseg.nodes.demo_model import LoadedModel

from .graphs import call, coarse_labels, wired

OPTIONS = {"max_side": 64, "seed": 3}


def patchers() -> int:
    """Return how many model patchers exist, clones included."""
    gc.collect()
    return sum(isinstance(thing, comfy.model_patcher.ModelPatcher) for thing in gc.get_objects())


def run(loaded: LoadedModel, frames: Tensor) -> Any:
    features = call("ExtractDiffusionFeatures", **wired(loaded), frames=frames[:1], **OPTIONS)
    labels = coarse_labels(features, num_clusters=2)
    return call("MaskedModulationUpsample", **wired(loaded), features=features, labels=labels, modulation_step=24)


def test_clones_are_dropped_after_each_node(loaded: LoadedModel, frames: Tensor) -> None:
    run(loaded, frames)
    before, held = patchers(), len(comfy.model_management.current_loaded_models)
    for _ in range(2):
        run(loaded, frames)
    assert patchers() == before
    assert len(comfy.model_management.current_loaded_models) == held


def test_the_host_is_told_how_much_memory_a_call_takes(
    loaded: LoadedModel, frames: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, float]] = []
    load = comfy.model_management.load_models_gpu

    def spy(models: list[Any], memory_required: float = 0, **options: Any) -> Any:
        asked.extend((model.model, memory_required) for model in models)
        return load(models, memory_required=memory_required, **options)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", spy)
    run(loaded, frames)
    assert {id(model) for model, _ in asked} >= {id(loaded.model.model), id(loaded.vae.first_stage_model)}
    assert all(size > 0 for model, size in asked if model is loaded.model.model)


def test_everything_can_be_unloaded_between_nodes(loaded: LoadedModel, frames: Tensor) -> None:
    expected = run(loaded, frames)
    comfy.model_management.unload_all_models()
    comfy.model_management.cleanup_models()
    assert (run(loaded, frames).maps == expected.maps).all()


def test_peak_memory_is_logged_after_each_long_node(loaded: LoadedModel, frames: Tensor, caplog: Any) -> None:
    pytest.importorskip("resource")
    with caplog.at_level(logging.INFO):
        run(loaded, frames)
        call("SegmentVideo", **wired(loaded), frames=frames[:1], num_clusters=2, max_side=64, quality="draft")
        with pytest.raises(InputError):
            call("ExtractDiffusionFeatures", **wired(loaded), frames=frames[:1], blocks="1")
    told = [record.getMessage() for record in caplog.records if "peak of this process" in record.getMessage()]
    pattern = r"VidSeg: (.+): peak of this process (\d+\.\d\d) GB of main memory \(reached (here|earlier)\)"
    found = [re.fullmatch(pattern, text) for text in told]
    names = ["Extract Diffusion Features", "Masked Modulation Upsample", "Segment Video", "Extract Diffusion Features"]
    assert [match and match[1] for match in found] == names
    assert all(match and float(match[2]) > 0.1 for match in found)
