"""What every backbone of a video model must do, whatever library runs it (core/backbones/__init__.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from vidseg.core.backbones.protocol import Backbone, Denoiser
from vidseg.core.config.parts import ATTENTION_BLOCKS, ModulationConfig, Variant, VideoConfig
from vidseg.core.config.settings import preset
from vidseg.core.types import Conditioning, InputError

from .adapters import ADAPTERS
from .narrow_models import SVD, narrow_model
from .test_contract import close

FRAMES = 3
SHAPE = (FRAMES, 4, 8, 16)
"""Latents of a window of 64x128 frames; coarse grid 4x8."""
GUIDANCE = 2.5
SIGMA = 1.273
VIDEO = preset("default", "svd").video
KEEP = ModulationConfig(block=8)
WHOLE = torch.arange(FRAMES)

Run = Callable[..., Any]


@pytest.fixture(scope="module", params=list(ADAPTERS))
def backbone(request: Any, tmp_path_factory: Any) -> Backbone:
    path: Path = tmp_path_factory.mktemp("model") / "svd.safetensors"
    return ADAPTERS[request.param](narrow_model(path, SVD))


@pytest.fixture(scope="module")
def conditioning(backbone: Backbone) -> Conditioning:
    generator = torch.Generator().manual_seed(5)
    frame = torch.rand(64, 128, 3, generator=generator)
    return backbone.condition(frame, torch.randn(3, 64, 128, generator=generator), VIDEO)


@pytest.fixture(scope="module")
def latents() -> Tensor:
    return 1.6 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def run(backbone: Backbone, conditioning: Conditioning) -> Run:
    def call(
        job: Callable[[Denoiser], Any],
        guidance: float = GUIDANCE,
        config: VideoConfig = VIDEO,
        variant: Variant = "paper",
    ) -> Any:
        return backbone.conditioned(conditioning, config, variant).run(job, guidance, SHAPE)

    return call


def replay(
    run: Run,
    latents: Tensor,
    offset: Tensor | None,
    *,
    keep: ModulationConfig = KEEP,
    again: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Return the plain prediction, and its repetition with an offset or on other latents, in whole windows."""

    def job(denoiser: Denoiser) -> tuple[Tensor, Tensor]:
        plain = denoiser.predict(latents, SIGMA, keep=keep)
        assert plain.cache is not None
        windows = 1 if offset is None else len(offset) // FRAMES
        start = (latents if again is None else again).repeat(windows, 1, 1, 1)
        return plain.denoised, denoiser.replay(start, SIGMA, plain.cache, WHOLE.repeat(windows), offset)

    return run(job, **options)


def test_kind_is_told(backbone: Backbone) -> None:
    assert backbone.info.kind == "svd"
    assert backbone.info.prediction == "v_prediction"
    assert backbone.info.kind == "svd"


def test_training_sigmas_span_the_sampled_ones(backbone: Backbone) -> None:
    sigmas = backbone.training_sigmas
    assert (sigmas.shape, sigmas.dtype) == ((1000,), torch.float64)
    assert bool((sigmas.diff() > 0).all())
    assert [float(sigmas[0]), float(sigmas[-1])] == pytest.approx([0.002, 700])


def test_frames_are_encoded_and_decoded_one_by_one(backbone: Backbone, latents: Tensor) -> None:
    frames = torch.rand(2, 64, 128, 3, generator=torch.Generator().manual_seed(2))
    encoded = backbone.encode(frames)
    assert (encoded.shape, encoded.dtype, encoded.device.type) == ((2, 4, 8, 16), torch.float32, "cpu")
    close(backbone.encode(frames[1:]), encoded[1:])
    decoded = backbone.decode(latents[:2])
    assert decoded.shape == (2, 64, 128, 3)
    close(backbone.decode(latents[1:2]), decoded[1:])


def test_encode_samples_with_given_noise(backbone: Backbone) -> None:
    frames = torch.rand(1, 64, 128, 3, generator=torch.Generator().manual_seed(2))
    mode = backbone.encode(frames)
    noise = torch.randn(mode.shape, generator=torch.Generator().manual_seed(3))
    up, down = backbone.encode(frames, noise), backbone.encode(frames, -noise)
    assert not torch.allclose(up, mode)
    close((up + down) / 2, mode, 1e-4)


def test_conditioning_of_a_frame(backbone: Backbone, conditioning: Conditioning) -> None:
    assert conditioning.embedding.shape == (1, 64)
    assert conditioning.image.shape == (4, 8, 16)
    assert conditioning.numbers == (14, 127, 0.02)
    frame, noise = torch.rand(64, 128, 3), torch.randn(3, 64, 128)
    clean = backbone.condition(frame, noise, VideoConfig(frames=14, augmentation=0))
    close(clean.image, backbone.encode(frame[None])[0] / 0.18215, 1e-4)
    noisy = backbone.condition(frame, noise, VIDEO)
    assert float((noisy.image - clean.image).abs().max()) > 1e-4


def test_queries_are_those_of_the_conditional_half_in_the_order_asked(run: Run, latents: Tensor) -> None:
    read = run(lambda denoiser: denoiser.queries(latents, SIGMA, (8, 3, 11, 8)))
    assert [tuple(query.shape) for query in read] == [(3, 32, 64), (3, 8, 128), (3, 128, 32), (3, 32, 64)]
    assert torch.equal(read[0], read[3])
    close(run(lambda denoiser: denoiser.queries(latents, SIGMA, (8,)), 1.0)[0], read[0])


def test_temporal_queries_are_others(run: Run, latents: Tensor) -> None:
    config = VideoConfig(frames=14, query_layer="temporal")
    spatial = run(lambda denoiser: denoiser.queries(latents, SIGMA, (7, 4)))
    temporal = run(lambda denoiser: denoiser.queries(latents, SIGMA, (7, 4)), config=config)
    assert [query.shape for query in temporal] == [query.shape for query in spatial]
    assert float((temporal[0] - spatial[0]).abs().max()) > 1e-2


def test_temporal_queries_tell_frames_apart_that_are_equal(run: Run, latents: Tensor) -> None:
    still = latents[:1].repeat(FRAMES, 1, 1, 1)
    config = VideoConfig(frames=14, query_layer="temporal")
    first, *_, last = run(lambda denoiser: denoiser.queries(still, SIGMA, (8,)), config=config)[0]
    assert float((first - last).abs().max()) > 1e-3


def test_frames_of_a_window_depend_on_each_other(run: Run, latents: Tensor) -> None:
    other = latents.clone()
    other[-1] = -other[-1]
    one, two = (run(lambda denoiser, x=x: denoiser.predict(x, SIGMA).denoised) for x in (latents, other))
    assert float((one[0] - two[0]).abs().max()) > 1e-4


def test_same_input_gives_the_same_output(run: Run, latents: Tensor) -> None:
    first, second = (run(lambda denoiser: denoiser.predict(latents, SIGMA).denoised) for _ in range(2))
    assert first.dtype == torch.float32
    assert torch.equal(first, second)


def test_guidance_rises_linearly_over_the_frames(run: Run, latents: Tensor) -> None:
    one, two, three = (run(lambda d: d.predict(latents, SIGMA).denoised, scale) for scale in (1.0, 2.0, 3.0))
    close(two[0], one[0])
    assert float((two[-1] - one[-1]).abs().max()) > 1e-3
    close(three[-1] - one[-1], 2 * (two[-1] - one[-1]), 1e-4)
    middle = FRAMES // 2  # its scale is 1.5 where the last frame has 2, and 2 where that has 3
    close(three[middle] - one[middle], 2 * (two[middle] - one[middle]), 1e-4)
    alone = run(lambda d: d.predict(latents, SIGMA).denoised, 1.5)
    close(alone[-1] - one[-1], (two[-1] - one[-1]) / 2, 1e-4)


@pytest.mark.parametrize("block", [3, 5, 8, 11])
def test_zero_modulation_changes_nothing(run: Run, latents: Tensor, block: int) -> None:
    plain, again = replay(run, latents, torch.zeros(FRAMES, 4, 8), keep=ModulationConfig(block=block))
    close(again, plain)


@pytest.mark.parametrize("block", [5, 7, 8, 10])
def test_modulation_acts_with_opposite_signs(run: Run, latents: Tensor, block: int) -> None:
    offset = torch.zeros(2 * FRAMES, 4, 8)
    offset[:FRAMES, :2, :4], offset[FRAMES:, :2, :4] = 50.0, -50.0
    plain, modulated = replay(run, latents, offset, keep=ModulationConfig(block=block))
    plus, minus = modulated.chunk(2)
    assert min(float((a - b).abs().max()) for a, b in ((plus, plain), (minus, plain), (plus, minus))) > 1e-3


def test_each_window_of_a_call_is_by_itself(run: Run, latents: Tensor) -> None:
    offset = torch.randn((2 * FRAMES, 4, 8), generator=torch.Generator().manual_seed(4))
    _, both = replay(run, latents, offset)
    for part in (slice(FRAMES), slice(FRAMES, None)):
        close(both[part], replay(run, latents, offset[part])[1])


def test_frames_that_are_no_whole_windows_are_refused(run: Run, latents: Tensor) -> None:
    def job(denoiser: Denoiser, frames: list[int]) -> None:
        cache = denoiser.predict(latents, SIGMA, keep=KEEP).cache
        assert cache is not None
        denoiser.replay(latents[: len(frames)], SIGMA, cache, torch.tensor(frames), None)

    for frames in ([0, 1], [1, 0, 2]):
        with pytest.raises(InputError, match="whole windows of 3 frames"):
            run(lambda denoiser, frames=frames: job(denoiser, frames))


def test_replay_without_offset_repeats_the_call(run: Run, latents: Tensor) -> None:
    plain, again = replay(run, latents, None)
    close(again, plain)


def test_injected_queries_and_keys_act_on_other_latents(run: Run, latents: Tensor) -> None:
    other = latents.flip(-1)
    recomputed = run(lambda denoiser: denoiser.predict(other, SIGMA).denoised)
    _, without = replay(run, latents, None, keep=ModulationConfig(inject=False), again=other)
    close(without, recomputed)
    _, everywhere = replay(run, latents, None, again=other)
    _, over_time = replay(run, latents, None, again=other, variant="published")
    assert min(float((x - recomputed).abs().max()) for x in (everywhere, over_time)) > 1e-4
    assert float((everywhere - over_time).abs().max()) > 1e-4


def test_everything_works_without_guidance(run: Run, latents: Tensor) -> None:
    plain, again = replay(run, latents, torch.zeros(FRAMES, 4, 8), guidance=1.0)
    close(again, plain)


def test_model_is_unchanged_after_a_job(run: Run, latents: Tensor) -> None:
    before = run(lambda denoiser: denoiser.predict(latents, SIGMA).denoised)
    replay(run, latents, torch.full((FRAMES, 4, 8), 50.0))
    with pytest.raises(ZeroDivisionError):
        run(lambda denoiser: 1 / 0)
    assert torch.equal(run(lambda denoiser: denoiser.predict(latents, SIGMA).denoised), before)


def test_inputs_are_not_written_to(run: Run) -> None:
    latents, offset = torch.ones(SHAPE), torch.ones(FRAMES, 4, 8)
    replay(run, latents, offset)
    assert bool((latents == 1).all() & (offset == 1).all())


def test_block_without_attention_is_refused_with_the_list(run: Run, latents: Tensor) -> None:
    listed = ", ".join(map(str, ATTENTION_BLOCKS))
    with pytest.raises(InputError, match=listed):
        run(lambda denoiser: denoiser.queries(latents, SIGMA, (7, 2)))
    with pytest.raises(InputError, match=listed):
        run(lambda denoiser: denoiser.predict(latents, SIGMA, keep=ModulationConfig(block=12)))


def test_a_backbone_without_a_window_is_refused(backbone: Backbone) -> None:
    with pytest.raises(InputError, match="`conditioned` on a window"):
        backbone.run(lambda denoiser: None, GUIDANCE, SHAPE)


def test_a_conditioning_of_another_size_is_refused(
    backbone: Backbone, conditioning: Conditioning, latents: Tensor
) -> None:
    with pytest.raises(InputError, match=r"conditioning\.image"):
        backbone.conditioned(conditioning, VIDEO).run(lambda denoiser: None, GUIDANCE, (FRAMES, 4, 16, 16))
