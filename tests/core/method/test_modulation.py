"""Masked modulation against a loop version, on a small denoiser whose frames are independent."""

from __future__ import annotations

import doctest
import weakref
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from vidseg.core.backbones.protocol import REPLAYED_TOGETHER, Prediction
from vidseg.core.backbones.schedule import make_sigmas, make_training_sigmas
from vidseg.core.config.parts import Variant
from vidseg.core.config.settings import Settings, replace_parts
from vidseg.core.method import modulation
from vidseg.core.method.modulation import Batching, Inversion, UnitJob, blend_latents, make_offsets
from vidseg.core.method.modulation_jobs import plan_jobs
from vidseg.core.method.sampling import add_noise, sample_euler, step_euler
from vidseg.core.types import InputError

SIGMAS = make_sigmas(make_training_sigmas(), 25)
SETTINGS = replace_parts(Settings(), modulation={"factor": 3.0})


class Cache(NamedTuple):
    sigma: float
    latents: Tensor


class Pair(NamedTuple):
    frame: int
    label: int
    plus: Tensor
    minus: Tensor


class ToyDenoiser:
    """A smooth map of latents, frame by frame, that is disturbed by the offset and drawn to the cached pass."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, float, bool]] = []

    def predict(self, latents: Tensor, sigma: float, *, keep: Any = None) -> Prediction:
        self.calls.append(("predict", len(latents), sigma, keep is not None))
        return Prediction(
            torch.tanh(latents + latents.mean((2, 3), keepdim=True)) - 0.1 * sigma,
            Cache(sigma, latents) if keep else None,
        )

    def replay(self, latents: Tensor, sigma: float, cache: Cache, frames: Tensor, offset: Tensor | None) -> Tensor:
        assert cache.sigma == sigma
        assert frames.shape == (len(latents),)
        self.calls.append(("replay", len(latents), sigma, offset is not None))
        result = (
            torch.tanh(latents + latents.mean((2, 3), keepdim=True))
            - 0.1 * sigma
            + 0.2 * (cache.latents[frames] - latents)
        )
        if offset is not None:
            assert offset.shape == (len(latents), latents.shape[2] // 2, latents.shape[3] // 2)
            assert torch.equal(latents, cache.latents[frames])  # what the protocol demands of the modulated step
            spread = offset.repeat_interleave(2, 1).repeat_interleave(2, 2)
            result = result + 0.1 * (spread.roll(1, 2) + 2 * spread)[:, None] / (1 + latents.abs())
        return result


def clip(num_frames: int = 3, h: int = 3, w: int = 4, num_labels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(num_frames, 4, 2 * h, 2 * w, generator=generator)
    return latents, torch.randint(0, num_labels, (num_frames, h, w), generator=generator) * 10


def inverted(latents: Tensor, settings: Settings) -> Inversion:
    """Take noise from latents, so that sampling starts with them."""
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(4))
    return Inversion(latents - float(SIGMAS[settings.start_step]) * noise, noise, SIGMAS)


def modulate(toy: ToyDenoiser, latents: Tensor, maps: Tensor, settings: Settings, batch_size: int) -> list[Pair]:
    jobs = [UnitJob(frame, job) for frame, cells in enumerate(maps) for job in plan_jobs(cells[None], settings)]
    batching = Batching(batch_size, REPLAYED_TOGETHER)
    pairs = modulation.modulate(toy, inverted(latents, settings), jobs, settings, batching)
    return [
        Pair(frame, int(job.owner.unique()), pair.plus[0], pair.minus[0])
        for (frame, job), pair in zip(jobs, pairs, strict=True)
    ]


def plain_latents(latents: Tensor) -> Tensor:
    levels, (encoded, noise, _) = SIGMAS[SETTINGS.start_step :].tolist(), inverted(latents, SETTINGS)
    return list(sample_euler(ToyDenoiser().predict, add_noise(encoded, noise, levels[0]), levels))[-1].latents


def by_loop(latents: Tensor, maps: Tensor, settings: Settings) -> dict[tuple[int, int, int], Tensor]:
    """One frame, label and sign at a time, with Eq. 5 written as in the paper."""
    toy, config, results = ToyDenoiser(), settings.modulation, {}
    encoded, noise, _ = inverted(latents, settings)
    for frame in range(len(latents)):
        for label in sorted({int(value) for value in maps[frame].flatten()}):
            for sign in (1, -1):
                mask = (maps[frame] == label).float()[None]
                big = mask.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None]
                plain = latents[frame : frame + 1]
                for step in range(settings.start_step, config.step):
                    denoised = toy.predict(plain, float(SIGMAS[step])).denoised
                    plain = step_euler(plain, denoised, float(SIGMAS[step]), float(SIGMAS[step + 1]))
                x = plain
                for step in range(config.step, 25):
                    sigma, following = float(SIGMAS[step]), float(SIGMAS[step + 1])
                    prediction = toy.predict(plain, sigma, keep=config)
                    plain = step_euler(plain, prediction.denoised, sigma, following)
                    offset = sign * config.factor * mask if step == config.step else None
                    x = step_euler(
                        x, toy.replay(x, sigma, prediction.cache, torch.tensor([0]), offset), sigma, following
                    )
                    if config.blending != "none" and (settings.variant == "paper" or step <= config.step + 1):
                        outside = plain if config.blending == "all" else encoded[frame] + following * noise[frame]
                        x = x * big + outside * (1 - big)
                results[frame, label, sign] = x[0]
    return results


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7, 64])
def test_equals_the_loop_version_for_any_batch_size(batch_size: int) -> None:
    latents, maps = clip()
    expected = by_loop(latents, maps, SETTINGS)
    pairs = modulate(ToyDenoiser(), latents, maps, SETTINGS, batch_size)
    assert [(pair.frame, pair.label) for pair in pairs] == sorted({key[:2] for key in expected})
    for pair in pairs:
        torch.testing.assert_close(pair.plus, expected[pair.frame, pair.label, 1], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(pair.minus, expected[pair.frame, pair.label, -1], atol=1e-6, rtol=1e-6)
        assert (pair.plus - pair.minus).abs().max() > 0.05


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("modulation", {"blending": "none"}),
        ("modulation", {"blending": "encoded"}),
        ("modulation", {"step": 20}),
        ("modulation", {"step": 24}),
        ("feature", {"step": 20}),
        ("modulation", {"inject": False, "factor": 7.0}),
    ],
)
@pytest.mark.parametrize("variant", ["paper", "published"])
def test_equals_the_loop_version_for_other_settings(part: str, values: dict[str, Any], variant: Variant) -> None:
    settings = replace(replace_parts(SETTINGS, **{part: values}), variant=variant)
    latents, maps = clip()
    expected = by_loop(latents, maps, settings)
    for pair in modulate(ToyDenoiser(), latents, maps, settings, 4):
        torch.testing.assert_close(pair.plus, expected[pair.frame, pair.label, 1], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(pair.minus, expected[pair.frame, pair.label, -1], atol=1e-6, rtol=1e-6)


def test_blending_leaves_the_outside_as_it_was() -> None:
    latents, maps = clip(num_frames=1)
    plain = plain_latents(latents)[0]
    published, never = replace(SETTINGS, variant="published"), replace_parts(SETTINGS, modulation={"blending": "none"})
    for settings, untouched in ((SETTINGS, True), (published, False), (never, False)):
        for pair in modulate(ToyDenoiser(), latents, maps, settings, 8):
            outside = (maps[0] != pair.label).repeat_interleave(2, 0).repeat_interleave(2, 1)
            assert torch.equal(pair.plus[:, outside], plain[:, outside]) == untouched
    encoded = replace_parts(SETTINGS, modulation={"blending": "encoded"})
    for pair in modulate(ToyDenoiser(), latents, maps, encoded, 8):
        outside = (maps[0] != pair.label).repeat_interleave(2, 0).repeat_interleave(2, 1)
        assert torch.equal(pair.minus[:, outside], inverted(latents, encoded).latents[0][:, outside])


def test_one_step_compares_predictions_of_the_clean_latents() -> None:
    settings = replace_parts(SETTINGS, modulation={"steps": "first"})
    latents, maps = clip(num_frames=2)
    toy, sigma = ToyDenoiser(), float(SIGMAS[22])
    pairs = modulate(toy, latents, maps, settings, 3)
    assert {sigma for _, _, sigma, _ in toy.calls} == {sigma}
    for pair in pairs:
        start = latents[pair.frame : pair.frame + 1]
        plain = toy.predict(start, sigma, keep=settings.modulation)
        mask = maps[pair.frame : pair.frame + 1] == pair.label
        for sign, ours in ((1, pair.plus), (-1, pair.minus)):
            offset = sign * settings.modulation.factor * mask.float()
            denoised = toy.replay(start, sigma, plain.cache, torch.tensor([0]), offset)
            torch.testing.assert_close(ours, blend_latents(denoised, plain.denoised, mask)[0], atol=1e-6, rtol=1e-6)


def test_only_the_first_replayed_step_has_an_offset_and_keeps_start_at_the_modulated_step() -> None:
    toy = ToyDenoiser()
    latents, maps = clip(num_frames=1)
    settings = replace_parts(SETTINGS, feature={"step": 21})
    pairs = modulate(toy, latents, maps, settings, 64)
    predicted = [(sigma, keep) for kind, _, sigma, keep in toy.calls if kind == "predict"]
    replayed = [(sigma, offset) for kind, _, sigma, offset in toy.calls if kind == "replay"]
    assert predicted == [(float(SIGMAS[step]), step >= 22) for step in (21, 22, 23, 24)]
    assert replayed == [(float(SIGMAS[22]), True), (float(SIGMAS[23]), False), (float(SIGMAS[24]), False)]
    assert len(pairs) == len(maps.unique())


@pytest.mark.parametrize("batch_size", [1, 4, 9, 12, 64])
def test_a_cpu_repeats_the_same_elements_together_whatever_the_batch(batch_size: int) -> None:
    toy = ToyDenoiser()
    latents, maps = clip(num_frames=4)
    modulate(toy, latents, maps, SETTINGS, batch_size)
    sizes = [size for kind, size, _, _ in toy.calls if kind == "replay"]
    expected = {1: [4, 2] * 4, 4: [4, 2] * 4, 9: [6] * 4, 12: [12] * 2, 64: [24]}[batch_size]  # 3 labels in each frame
    assert sizes == expected * 3  # steps
    assert max(sizes) <= max(batch_size, REPLAYED_TOGETHER)


def test_absent_labels_and_uniform_frames_need_no_modulation() -> None:
    exact, published = SETTINGS, replace(SETTINGS, variant="published")
    for settings, expected in ((exact, [[], [1, 2], []]), (published, [[1], [1, 2], [2]])):
        for cells, labels in zip(torch.tensor([[[1, 1]], [[1, 2]], [[2, 2]]]), expected, strict=True):
            jobs = plan_jobs(cells[None], settings)
            assert [int(job.owner.unique()) for job in jobs] == labels
            assert all(torch.equal(job.mask[0], cells == label) for job, label in zip(jobs, labels, strict=True))


def test_a_window_is_modulated_as_a_whole_but_for_its_finished_frames() -> None:
    maps = torch.tensor([[[1, 2]], [[2, 2]]])
    jobs = plan_jobs(maps, SETTINGS, num_finished=1)
    assert [job.mask.tolist() for job in jobs] == [
        [[[False, False]], [[True, False]], [[False, False]]],
        [[[False, False]], [[False, True]], [[True, True]]],
    ]
    assert [job.scored for job in jobs] == [(1,), (1,)]
    blended_less = replace(replace_parts(SETTINGS, modulation={"blending": "none"}), variant="published")
    assert [job.scored for job in plan_jobs(maps, blended_less)] == [(0, 1), (0, 1)]


def test_relabeling_commutes() -> None:
    latents, maps = clip()
    plain = modulate(ToyDenoiser(), latents, maps, SETTINGS, 6)
    swapped = {(pair.frame, pair.label): pair for pair in modulate(ToyDenoiser(), latents, 200 - maps, SETTINGS, 6)}
    for pair in plain:
        torch.testing.assert_close(pair.plus, swapped[pair.frame, 200 - pair.label].plus)


def test_offsets_carry_the_sign() -> None:
    masks = torch.tensor([[[True, False]], [[False, True]]])
    assert make_offsets(masks, torch.tensor([1.0, -1.0]), 50.0).tolist() == [[[50.0, 0.0]], [[0.0, -50.0]]]


def test_blending_takes_two_by_two_latents_per_cell() -> None:
    masks = torch.tensor([[[True, False], [False, False]]])
    blended = blend_latents(torch.ones(1, 4, 4, 4), torch.zeros(1, 4, 4, 4), masks)
    assert blended[0, 0].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    with pytest.raises(InputError, match="`plain` must have shape"):
        blend_latents(torch.ones(1, 4, 4, 4), torch.zeros(1, 4, 4, 6), masks)


def test_a_video_model_holds_the_cache_of_one_step_at_a_time() -> None:
    class HeldCache:
        """Unlike a tuple it can be referred to weakly."""

    alive: list[int] = []
    caches: list[weakref.ref[HeldCache]] = []
    toy = ToyDenoiser()

    def predict(latents: Tensor, _sigma: float, *, keep: Any = None) -> Prediction:
        cache = HeldCache() if keep else None
        if cache is not None:
            caches.append(weakref.ref(cache))
            alive.append(sum(held() is not None for held in caches))
        return Prediction(latents, cache)

    toy.predict = predict  # type: ignore[method-assign]
    toy.replay = lambda latents, *_: latents  # type: ignore[method-assign]
    latents, maps = clip()
    settings = replace_parts(SETTINGS, modulation={"step": 21})
    jobs = [UnitJob(0, job) for job in plan_jobs(maps, settings)]
    modulation.modulate(toy, Inversion(latents, torch.zeros_like(latents), SIGMAS), jobs, settings, Batching(1))
    assert alive == [1, 1, 1, 1]


def test_bad_input_is_refused() -> None:
    latents, maps = clip()
    with pytest.raises(InputError, match="`size` must be at least 1, but got 0"):
        modulate(ToyDenoiser(), latents, maps, SETTINGS, 0)
    with pytest.raises(InputError, match=r"`latents` must have shape"):
        modulate(ToyDenoiser(), latents[:, :, :4], maps, SETTINGS, 1)
    start = Inversion(latents, torch.zeros_like(latents), SIGMAS[:-1])
    with pytest.raises(InputError, match="`sigmas` must have shape"):
        modulation.modulate(ToyDenoiser(), start, [UnitJob(0, plan_jobs(maps, SETTINGS)[0])], SETTINGS, Batching(1))


def test_a_denoiser_without_cache_is_an_error() -> None:
    toy = ToyDenoiser()
    toy.predict = lambda latents, sigma, **_: Prediction(latents, None)  # type: ignore[method-assign]
    latents, maps = clip()
    with pytest.raises(RuntimeError, match="no cache"):
        modulate(toy, latents, maps, SETTINGS, 2)


def test_doctests() -> None:
    assert doctest.testmod(modulation).failed == 0
