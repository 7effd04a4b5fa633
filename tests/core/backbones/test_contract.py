"""What every backbone must do, whatever library runs it (core/backbones/protocol.py), in the two steps of the protocol.

The first part, over `feature_backbone`, is all that features need; the second, over `backbone`, modulation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from vidseg.core.backbones.protocol import Backbone, Denoiser, FeatureBackbone, Prediction
from vidseg.core.backbones.schedule import make_training_sigmas
from vidseg.core.config.parts import ATTENTION_BLOCKS, ModulationConfig
from vidseg.core.config.settings import Settings, replace_parts, with_quality
from vidseg.core.method.pipeline import segment
from vidseg.core.types import InputError

from .adapters import ADAPTERS, FEATURE_ADAPTERS, FeaturesOnly
from .narrow_models import SD1, SD2, narrow_model

SHAPE = (4, 8, 16)
"""Latents of 64x128 frames; coarse grid 4x8."""
GUIDANCE = 5.0
KEEP = ModulationConfig()
LISTED = "3, 4, 5, 6, 7, 8, 9, 10, 11"


def opened(adapters: Any, request: Any, folders: Any) -> Any:
    name, sizes = request.param
    path: Path = folders.mktemp("model") / f"{sizes}.safetensors"
    return adapters[name](narrow_model(path, SD2 if sizes == "SD2" else SD1))


def cases(adapters: Any) -> dict[str, Any]:
    return {"params": [(name, sizes) for name in adapters for sizes in ("SD2", "SD1")], "ids": "-".join}


@pytest.fixture(scope="module", **cases({**ADAPTERS, **FEATURE_ADAPTERS}))
def feature_backbone(request: Any, tmp_path_factory: Any) -> FeatureBackbone:
    return opened({**ADAPTERS, **FEATURE_ADAPTERS}, request, tmp_path_factory)


@pytest.fixture(scope="module", **cases(ADAPTERS))
def backbone(request: Any, tmp_path_factory: Any) -> Backbone:
    return opened(ADAPTERS, request, tmp_path_factory)


@pytest.fixture(scope="module")
def latents() -> Tensor:
    return torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def sigma() -> float:
    return float(make_training_sigmas()[119])


def run(backbone: Any, job: Callable[[Denoiser], Any], guidance: float = GUIDANCE) -> Any:
    return backbone.run(job, guidance, (4, *SHAPE))


def predict(backbone: FeatureBackbone, latents: Tensor, sigma: float, **options: Any) -> Prediction:
    return run(backbone, lambda denoiser: denoiser.predict(latents, sigma, **options))


def read_queries(
    backbone: FeatureBackbone, latents: Tensor, sigma: float, blocks: tuple[int, ...]
) -> tuple[Tensor, ...]:
    return run(backbone, lambda denoiser: denoiser.queries(latents, sigma, blocks))


def replay(
    backbone: Backbone,
    latents: Tensor,
    sigma: float,
    frames: list[int],
    offset: Tensor | None,
    *,
    keep: ModulationConfig = KEEP,
    again: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the plain prediction, and its repetition with an offset or on other latents."""

    def job(denoiser: Denoiser) -> tuple[Tensor, Tensor]:
        plain = denoiser.predict(latents, sigma, keep=keep)
        assert plain.cache is not None
        index = torch.tensor(frames)
        start = latents[index] if again is None else again
        return plain.denoised, denoiser.replay(start, sigma, plain.cache, index, offset)

    return run(backbone, job)


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    error = float((actual - expected).abs().max() / expected.abs().max())
    assert error <= tolerance, error


def test_info_names_the_model(feature_backbone: FeatureBackbone) -> None:
    assert feature_backbone.info.kind == "sd"
    assert feature_backbone.info.name
    assert feature_backbone.info.prediction in ("epsilon", "v_prediction")


def test_training_sigmas_rise(feature_backbone: FeatureBackbone) -> None:
    sigmas = feature_backbone.training_sigmas
    assert sigmas.shape == (1000,)
    assert sigmas.dtype == torch.float64
    assert bool((sigmas.diff() > 0).all())
    assert float(sigmas[119]) == pytest.approx(0.386565, abs=1e-6)


def test_encode_gives_scaled_latents_on_the_cpu(feature_backbone: FeatureBackbone) -> None:
    frames = torch.rand(2, 64, 128, 3)
    latents = feature_backbone.encode(frames)
    assert latents.shape == (2, *SHAPE)
    assert latents.dtype == torch.float32
    assert latents.device.type == "cpu"
    close(feature_backbone.encode(frames[1:]), latents[1:])


def test_encode_samples_with_given_noise(feature_backbone: FeatureBackbone) -> None:
    frames = torch.rand(1, 64, 128, 3, generator=torch.Generator().manual_seed(2))
    mode = feature_backbone.encode(frames)
    noise = torch.randn(mode.shape, generator=torch.Generator().manual_seed(3))
    close(feature_backbone.encode(frames, torch.zeros_like(mode)), mode)
    up, down = feature_backbone.encode(frames, noise), feature_backbone.encode(frames, -noise)
    assert not torch.allclose(up, mode)
    close((up + down) / 2, mode, 1e-4)


def test_predict_gives_denoised_latents(feature_backbone: FeatureBackbone, latents: Tensor, sigma: float) -> None:
    denoised, cache = predict(feature_backbone, latents, sigma)
    assert denoised.shape == latents.shape
    assert denoised.dtype == torch.float32
    assert cache is None


def test_queries_come_in_the_order_asked(feature_backbone: FeatureBackbone, latents: Tensor, sigma: float) -> None:
    queries = read_queries(feature_backbone, latents, sigma, (8, 3, 11, 8))
    assert [tuple(query.shape) for query in queries] == [(2, 32, 64), (2, 8, 128), (2, 128, 32), (2, 32, 64)]
    assert all(query.dtype == torch.float32 for query in queries)
    assert torch.equal(queries[0], queries[3])


def test_queries_are_those_of_the_conditional_half(
    feature_backbone: FeatureBackbone, latents: Tensor, sigma: float
) -> None:
    with_guidance = read_queries(feature_backbone, latents, sigma, (7, 8))
    alone = run(feature_backbone, lambda denoiser: denoiser.queries(latents, sigma, (7,)), 1.0)
    close(alone[0], with_guidance[0])


def test_same_input_gives_the_same_output(feature_backbone: FeatureBackbone, latents: Tensor, sigma: float) -> None:
    first, second = (predict(feature_backbone, latents, sigma) for _ in range(2))
    assert torch.equal(first.denoised, second.denoised)
    first, second = (read_queries(feature_backbone, latents, sigma, (7,))[0] for _ in range(2))
    assert torch.equal(first, second)


def test_one_frame_alone_equals_the_same_frame_in_a_batch(
    feature_backbone: FeatureBackbone, latents: Tensor, sigma: float
) -> None:
    both, alone = (predict(feature_backbone, part, sigma).denoised for part in (latents, latents[1:]))
    close(alone, both[1:])
    both, alone = (read_queries(feature_backbone, part, sigma, (7,))[0] for part in (latents, latents[1:]))
    close(alone, both[1:])


def test_guidance_is_linear_in_its_scale(feature_backbone: FeatureBackbone, latents: Tensor, sigma: float) -> None:
    one, two, three = (
        run(feature_backbone, lambda denoiser: denoiser.predict(latents, sigma), scale).denoised
        for scale in (1.0, 2.0, 3.0)
    )
    assert not torch.allclose(one, two, atol=1e-4)
    close(three - one, 2 * (two - one), 1e-4)


def test_batch_size_is_bounded_by_memory(feature_backbone: FeatureBackbone) -> None:
    small, large = feature_backbone.batch_size((4, 8, 8)), feature_backbone.batch_size((4, 512, 512))
    assert 1 <= large <= small <= 64


@pytest.mark.parametrize("blocks", [(7, 2), ()])
def test_block_without_attention_is_not_read(
    feature_backbone: FeatureBackbone, latents: Tensor, sigma: float, blocks: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match=LISTED):
        read_queries(feature_backbone, latents, sigma, blocks)


def test_features_suffice_for_qualities_without_modulation(backbone: Backbone) -> None:
    frames = torch.rand(2, 64, 128, 3, generator=torch.Generator().manual_seed(3))
    source = SimpleNamespace(num_frames=2, read=lambda start, stop: frames[start:stop])
    settings = replace_parts(Settings(), cluster={"num_clusters": 2, "num_restarts": 1}, window={"length": 2})
    features = FeaturesOnly(backbone)
    draft = with_quality(settings, "draft")
    assert torch.equal(segment(features, source, draft).maps, segment(backbone, source, draft).maps)
    with pytest.raises(InputError, match=r"decode and repeat calls.*features only.*`draft`"):
        segment(features, source, settings)


def test_decode_gives_frames(backbone: Backbone, latents: Tensor) -> None:
    frames = backbone.decode(latents)
    assert frames.shape == (2, 64, 128, 3)
    assert frames.dtype == torch.float32
    close(backbone.decode(latents[1:]), frames[1:])


@pytest.mark.parametrize("block", ATTENTION_BLOCKS)
def test_zero_modulation_changes_nothing(backbone: Backbone, latents: Tensor, sigma: float, block: int) -> None:
    plain, again = replay(backbone, latents, sigma, [0, 1], torch.zeros(2, 4, 8), keep=ModulationConfig(block=block))
    close(again, plain)


@pytest.mark.parametrize("block", ATTENTION_BLOCKS)
def test_modulation_acts_with_opposite_signs(backbone: Backbone, latents: Tensor, sigma: float, block: int) -> None:
    offset = torch.zeros(2, 4, 8)
    offset[0, :2, :4], offset[1, :2, :4] = 50.0, -50.0
    plain, modulated = replay(backbone, latents, sigma, [0, 0], offset, keep=ModulationConfig(block=block))
    plus, minus = modulated
    assert float((plus - plain[0]).abs().max()) > 1e-3
    assert float((minus - plain[0]).abs().max()) > 1e-3
    assert float((plus - minus).abs().max()) > 1e-3


def test_replay_repeats_the_frames_named(backbone: Backbone, latents: Tensor, sigma: float) -> None:
    offset = torch.randn(3, 4, 8)
    _, mixed = replay(backbone, latents, sigma, [1, 0, 1], offset)
    for element, frame in enumerate([1, 0, 1]):
        _, alone = replay(backbone, latents, sigma, [frame], offset[element : element + 1])
        close(mixed[element : element + 1], alone)


def test_replay_without_offset_repeats_the_call(backbone: Backbone, latents: Tensor, sigma: float) -> None:
    plain, again = replay(backbone, latents, sigma, [1, 0], None)
    close(again, plain.flip(0))


def test_injected_queries_and_keys_act_on_other_latents(backbone: Backbone, latents: Tensor, sigma: float) -> None:
    other = latents.flip(-1)
    recomputed = predict(backbone, other, sigma).denoised
    _, without = replay(backbone, latents, sigma, [0, 1], None, keep=ModulationConfig(inject=False), again=other)
    _, injected = replay(backbone, latents, sigma, [0, 1], None, again=other)
    close(without, recomputed)
    assert float((injected - recomputed).abs().max()) > 1e-4


def test_modulation_without_injection_works(backbone: Backbone, latents: Tensor, sigma: float) -> None:
    keep = ModulationConfig(inject=False)
    plain, again = replay(backbone, latents, sigma, [0, 1], torch.zeros(2, 4, 8), keep=keep)
    close(again, plain)
    offset = torch.zeros(2, 4, 8)
    offset[:, 1:3, 2:5] = 50.0
    assert float((replay(backbone, latents, sigma, [0, 1], offset, keep=keep)[1] - plain).abs().max()) > 1e-3


def test_everything_works_without_guidance(backbone: Backbone, latents: Tensor, sigma: float) -> None:
    def job(denoiser: Denoiser) -> tuple[Tensor, Tensor]:
        plain = denoiser.predict(latents, sigma, keep=KEEP)
        assert plain.cache is not None
        frames = torch.tensor([0, 1])
        return plain.denoised, denoiser.replay(latents, sigma, plain.cache, frames, torch.zeros(2, 4, 8))

    plain, again = run(backbone, job, 1.0)
    close(again, plain)


def test_model_is_unchanged_after_a_job(backbone: Backbone, latents: Tensor, sigma: float) -> None:
    before = predict(backbone, latents, sigma).denoised
    replay(backbone, latents, sigma, [0, 1], torch.full((2, 4, 8), 50.0))
    with pytest.raises(ZeroDivisionError):
        run(backbone, lambda denoiser: 1 / 0)
    assert torch.equal(predict(backbone, latents, sigma).denoised, before)


def test_inputs_are_not_written_to(backbone: Backbone, sigma: float) -> None:
    latents, offset = torch.ones(1, *SHAPE), torch.ones(1, 4, 8)
    replay(backbone, latents, sigma, [0], offset)
    assert bool((latents == 1).all() & (offset == 1).all())


def test_block_without_attention_is_not_modulated(backbone: Backbone, latents: Tensor, sigma: float) -> None:
    with pytest.raises(InputError, match=LISTED):
        predict(backbone, latents, sigma, keep=ModulationConfig(block=12))
