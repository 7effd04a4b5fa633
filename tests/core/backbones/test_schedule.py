"""Noise levels, noise and the Euler step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vidseg.core.backbones.schedule import make_sigmas, make_timesteps, make_training_sigmas
from vidseg.core.method.published import draw_window_noise
from vidseg.core.method.sampling import add_noise, draw_frame_noise, step_euler
from vidseg.core.types import InputError

from ...golden_data import golden_dir

SPECIFIED_SIGMAS = [
    *(14.614641, 11.542771, 9.237423, 7.485421, 6.137461, 5.087763, 4.260557, 3.600989, 3.068943, 2.634796),
    *(2.276463, 1.977332, 1.724794, 1.509191, 1.323061, 1.160578, 1.017146, 0.889085, 0.773392, 0.667538),
    *(0.569285, 0.476454, 0.386565, 0.295942, 0.196303, 0.0),
]


def test_training_sigmas_equal_a_loop():
    acp, expected = 1.0, []
    for step in range(1000):
        root = 0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * step / 999
        acp *= 1 - root**2
        expected.append(((1 - acp) / acp) ** 0.5)
    sigmas = make_training_sigmas()
    assert sigmas.shape == (1000,)
    assert sigmas.dtype == torch.float64
    assert bool((sigmas.diff() > 0).all())
    np.testing.assert_allclose(sigmas, expected, rtol=1e-10)


def test_sampling_sigmas_of_25_steps():
    np.testing.assert_allclose(make_sigmas(make_training_sigmas(), 25), SPECIFIED_SIGMAS, atol=6e-7)
    assert make_timesteps(25) == tuple(999 - 40 * step for step in range(25))


@pytest.mark.parametrize("num_steps", [1, 2, 7, 50, 999, 1000])
def test_sampling_sigmas_fall_from_the_largest_to_zero(num_steps):
    sigmas = make_sigmas(make_training_sigmas(), num_steps)
    assert len(sigmas) == num_steps + 1
    assert float(sigmas[0]) == float(make_training_sigmas()[-1])
    assert float(sigmas[-1]) == 0
    assert bool((sigmas.diff() < 0).all())


@pytest.mark.parametrize("num_steps", [0, -1, 1001])
def test_refuses_a_number_of_steps_outside_the_schedule(num_steps):
    with pytest.raises(InputError, match=r"`num_steps` must lie in \[1, 1000\], but got"):
        make_sigmas(make_training_sigmas(), num_steps)


def test_add_noise_and_euler_step_invert_each_other():
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    noised = add_noise(latents, noise, 0.5)
    torch.testing.assert_close(noised, latents + 0.5 * noise)
    torch.testing.assert_close(step_euler(noised, latents, 0.5, 0.2), add_noise(latents, noise, 0.2))
    torch.testing.assert_close(step_euler(noised, latents, 0.5, 0.0), latents)
    assert torch.equal(step_euler(noised, latents, 0.5, 0.5), noised)


def test_add_noise_refuses_other_shapes():
    with pytest.raises(InputError, match="`noise` must have the shape"):
        add_noise(torch.zeros(2, 4, 8, 8), torch.zeros(1, 4, 8, 8), 1.0)


@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_euler_step_refuses_a_level_that_is_not_positive(sigma):
    with pytest.raises(InputError, match="`sigma` must be positive"):
        step_euler(torch.zeros(1), torch.zeros(1), sigma, 0.0)


def test_frame_noise_depends_on_seed_and_frame_alone():
    shape = (4, 8, 16)
    clip = draw_frame_noise(1, range(20), shape)
    assert clip.shape == (20, *shape)
    assert clip.dtype == torch.float32
    assert torch.equal(draw_frame_noise(1, range(6, 9), shape), clip[6:9])
    assert torch.equal(draw_frame_noise(1, [19, 3], shape), clip[[19, 3]])
    assert not torch.equal(draw_frame_noise(2, [3], shape)[0], clip[3])
    assert not torch.equal(draw_frame_noise(0, [1], shape), draw_frame_noise(1, [0], shape))
    assert len(torch.unique(clip[:, 0, 0, 0])) == 20
    assert abs(float(clip.mean())) < 0.03
    assert abs(float(clip.std()) - 1) < 0.03


def test_frame_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    draw_frame_noise(1, [0], (4, 8, 8))
    draw_window_noise(1, (1, 4, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)


def test_frame_noise_takes_the_largest_seed():
    assert bool(draw_frame_noise(2**32 - 1, [10**6], (4, 8, 8)).isfinite().all())


@pytest.mark.parametrize(("seed", "frames"), [(-1, [0]), (0, [-1]), (0, [])])
def test_frame_noise_refuses(seed, frames):
    with pytest.raises(InputError, match="`frames` must"):
        draw_frame_noise(seed, frames, (4, 8, 8))


def test_window_noise_is_two_draws_of_one_generator():
    posterior_noise, noise = draw_window_noise(3, (2, 4, 8, 8))
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(posterior_noise, torch.randn(2, 4, 8, 8, generator=generator))
    assert torch.equal(noise, torch.randn(2, 4, 8, 8, generator=generator))


@pytest.mark.parametrize("name", ["sd_default", "sd_windows_0", "sd_windows_1", "sd_windows_2"])
def test_golden_noise_and_levels(name):
    golden = np.load(golden_dir() / f"{name}.npz")
    sigmas = make_sigmas(make_training_sigmas(), 25)
    np.testing.assert_allclose(sigmas, golden["sigmas"], rtol=1e-6)
    latents = torch.from_numpy(golden["latents_clean"])
    _, noise = draw_window_noise(1, latents.shape)
    np.testing.assert_array_equal(noise, golden["noise_eps"])
    np.testing.assert_allclose(add_noise(latents, noise, float(sigmas[22])), golden["latents_noised"], atol=2e-6)
