"""Corrections in the host: no pass of the model, and errors before the graph runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from vidseg.core.backbones.comfy import denoiser as comfy_denoiser
from vidseg.core.types import InputError
from vidseg.nodes.demo_model import LoadedModel

from .graphs import NODE, call, coarse_labels, wired


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with each pass of the UNet."""
    counted: list[int] = []
    original = comfy_denoiser.HostDenoiser._denoised

    def count(self: Any, *arguments: Any, **options: Any) -> Tensor:
        counted.append(1)
        return original(self, *arguments, **options)

    monkeypatch.setattr(comfy_denoiser.HostDenoiser, "_denoised", count)
    return counted


def test_a_correction_runs_no_pass_of_the_model(
    loaded: LoadedModel, frames: Tensor, features: Any, calls: list[int]
) -> None:
    labels = coarse_labels(features)
    call("ExtractDiffusionFeatures", **wired(loaded), frames=frames[:1])
    passes = len(calls)
    assert passes > 0, "passes are counted"
    corrected, report = call("CorrectRegions", labels=labels, features=features, corrections="new 1 0.4,0.5 square")
    assert len(calls) == passes
    assert report == "All corrections were applied."
    assert "square" in [region.name for region in corrected.regions]
    assert bool((corrected.maps != labels.maps).any())
    assert corrected.scan is None


def test_corrections_fit_between_the_other_nodes(features: Any, frames: Tensor) -> None:
    labels = coarse_labels(features)
    painted = torch.zeros(1, 64, 128)
    painted[:, 16:48, 20:60] = 1
    corrected, _ = call("CorrectRegions", labels=labels, features=features, mask=painted, mask_name="square")
    mask = call("RegionsToMask", labels=corrected, regions="square")
    assert mask.shape == frames.shape[:3]
    assert float(mask[0, 24:40, 30:50].mean()) > 0.9
    full = replace(labels, maps=labels.full().maps)
    again, _ = call("CorrectRegions", labels=full, features=features, mask=painted, mask_name="square")
    assert again.maps.dtype == torch.uint8


def test_what_is_not_found_is_reported(features: Any) -> None:
    labels = coarse_labels(features)
    same, report = call("CorrectRegions", labels=labels, features=features, corrections="9 0.5,0.5 road")
    assert "line 1 (road): there is no frame 9, the last one is 2." in report
    assert torch.equal(same.maps, labels.maps)


def test_the_report_says_that_nothing_was_asked(features: Any) -> None:
    labels = coarse_labels(features)
    same, report = call("CorrectRegions", labels=labels, features=features, corrections=" \n")
    assert report.startswith("Nothing was asked")
    assert torch.equal(same.maps, labels.maps)


def test_a_mask_of_another_size_is_said_to_be_stretched(features: Any) -> None:
    labels, painted = coarse_labels(features), torch.zeros(1, 32, 32)
    painted[:, 8:24, 8:24] = 1
    _, report = call("CorrectRegions", labels=labels, features=features, mask=painted)
    height, width = labels.frame_size
    assert f"The mask of 32x32 was stretched to the frames, {width}x{height}." in report


def test_wrong_text_is_refused_before_the_graph_runs(features: Any) -> None:
    node = NODE["CorrectRegions"]
    assert "points in [0, 1]" in node.validate_inputs(corrections="0 5,5 road")
    assert node.validate_inputs(corrections="0 0.5,0.5 road") is True
    with pytest.raises(InputError, match="one mask"):
        call("CorrectRegions", labels=coarse_labels(features), features=features, mask=torch.ones(2, 8, 8))
