"""What every backbone must do that gives features alone, whatever its layers are called; one case for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from vidseg.core.backbones.protocol import FeatureBackbone, Prediction
from vidseg.core.config.settings import Settings
from vidseg.core.method.estimate import estimate_frame_seconds, measure_costs
from vidseg.core.method.pipeline import segment
from vidseg.core.types import InputError

from .adapters import diffusers
from .narrow_models import SD2, XL, narrow_model

SHAPE = (4, 8, 16)
"""Latents of 64x128 frames; coarse grid 4x8."""


class Case(NamedTuple):
    """A model to test: its kind, shapes by layer of a frame of 64x128, and layers that it has not."""

    kind: str
    shapes: dict[Any, tuple[int, int]]
    unknown: tuple[Any, ...]
    backbone: Any = None


SD_CASE = Case("sd", {6: (32, 64), 3: (8, 128), 11: (128, 32), 8: (32, 64)}, (2, "3.0.query"))
XL_CASE = Case(
    "sdxl",
    {
        "3.0.cross_query": (32, 64),
        "0.5.output": (8, 64),
        "5.1.key": (32, 64),
        "3.0.query": (32, 64),
        "0.7.output": (8, 64),
        "0.9.query": (8, 64),
    },
    (7, "3.2.query", "6.0.query", "3.0.value"),
)
CASES = {"sd": (SD_CASE, SD2), "sdxl": (XL_CASE, XL)}


@pytest.fixture(scope="module", params=list(CASES))
def case(request: Any, tmp_path_factory: Any) -> Case:
    case, sizes = CASES[request.param]
    path: Path = tmp_path_factory.mktemp("model") / f"{request.param}.safetensors"
    return case._replace(backbone=diffusers(narrow_model(path, sizes)))


@pytest.fixture(scope="module")
def latents() -> Tensor:
    return torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def sigma() -> float:
    return 0.2


def run(backbone: FeatureBackbone, job: Callable[[Any], Any], guidance: float = 5.0) -> Any:
    return backbone.run(job, guidance, (4, *SHAPE))


def predict(backbone: FeatureBackbone, latents: Tensor, sigma: float, guidance: float = 5.0) -> Prediction:
    return run(backbone, lambda denoiser: denoiser.predict(latents, sigma), guidance)


def read(
    backbone: FeatureBackbone, latents: Tensor, sigma: float, layers: tuple[Any, ...], guidance: float = 5.0
) -> Any:
    return run(backbone, lambda denoiser: denoiser.queries(latents, sigma, layers), guidance)


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    error = float((actual - expected).abs().max() / expected.abs().max())
    assert error <= tolerance, error


def test_info_names_the_kind(case: Case) -> None:
    assert case.backbone.info.kind == case.kind
    assert case.backbone.info.name


def test_layers_come_in_the_order_asked(case: Case, latents: Tensor, sigma: float) -> None:
    layers = (*case.shapes, next(iter(case.shapes)))
    found = read(case.backbone, latents, sigma, layers)
    assert [tuple(each.shape) for each in found[:-1]] == [(2, *shape) for shape in case.shapes.values()]
    assert all(each.dtype == torch.float32 for each in found)
    assert torch.equal(found[0], found[-1])
    for layer, each in zip(layers, found, strict=True):
        close(read(case.backbone, latents, sigma, (layer,))[0], each)


def test_layers_are_those_of_the_conditional_half(case: Case, latents: Tensor, sigma: float) -> None:
    layers = tuple(case.shapes)
    for guided, alone in zip(
        read(case.backbone, latents, sigma, layers), read(case.backbone, latents, sigma, layers, 1.0), strict=True
    ):
        close(alone, guided)


def test_one_frame_alone_equals_the_same_frame_in_a_batch(case: Case, latents: Tensor, sigma: float) -> None:
    both, alone = (read(case.backbone, part, sigma, tuple(case.shapes)) for part in (latents, latents[1:]))
    for together, one in zip(both, alone, strict=True):
        close(one, together[1:])
    close(predict(case.backbone, latents[1:], sigma).denoised, predict(case.backbone, latents, sigma).denoised[1:])


def test_guidance_is_linear_in_its_scale(case: Case, latents: Tensor, sigma: float) -> None:
    one, two, three = (predict(case.backbone, latents, sigma, scale).denoised for scale in (1.0, 2.0, 3.0))
    assert not torch.allclose(one, two, atol=1e-4)
    close(three - one, 2 * (two - one), 1e-4)


def test_unknown_layers_are_refused(case: Case, latents: Tensor, sigma: float) -> None:
    for layer in (*case.unknown, None):
        with pytest.raises(InputError, match="must name"):
            read(case.backbone, latents, sigma, () if layer is None else (layer,))


def test_model_is_unchanged_after_a_job(case: Case, latents: Tensor, sigma: float) -> None:
    before = read(case.backbone, latents, sigma, tuple(case.shapes))
    with pytest.raises(ZeroDivisionError):
        run(case.backbone, lambda _denoiser: 1 / 0)
    predict(case.backbone, latents, sigma)
    assert all(map(torch.equal, read(case.backbone, latents, sigma, tuple(case.shapes)), before))


def test_batch_size_is_bounded_by_memory(case: Case) -> None:
    small, large = (case.backbone.batch_size((4, side, side)) for side in (8, 512))
    assert 1 <= large <= small <= 64


def test_a_clip_is_segmented_and_its_time_told_before(case: Case) -> None:
    frames = torch.rand(3, 64, 128, 3, generator=torch.Generator().manual_seed(3))
    source = SimpleNamespace(num_frames=3, read=lambda start, stop: frames[start:stop])
    settings = Settings.of("default", "draft", kind=case.kind, num_clusters=3, length=2)
    assert segment(case.backbone, source, settings).maps.shape == (3, 64, 128)
    costs = measure_costs(case.backbone, (64, 128), settings)
    assert estimate_frame_seconds(costs, settings, 3) > 0


def test_settings_of_another_kind_are_refused(case: Case) -> None:
    frames = torch.rand(1, 64, 128, 3)
    source = SimpleNamespace(num_frames=1, read=lambda start, stop: frames[start:stop])
    other = "sdxl" if case.kind == "sd" else "sd"
    with pytest.raises(InputError, match=r"feature\.layers.* must"):
        segment(case.backbone, source, Settings.of("default", "fast", kind=other))
