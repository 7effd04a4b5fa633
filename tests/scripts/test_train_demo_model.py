"""A tiny run of the training script on the CPU: interrupted and resumed, exported, read back."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

pytest.importorskip("diffusers")
pytest.importorskip("matplotlib")
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from demo_training import export, pictures, run
from demo_training.noise import add_noise, remove_noise, sample, signal_levels
from demo_training.photos import Photo, PhotoBank, list_photos
from demo_training.session import Session
from demo_training.shapes import DEMO, build_unet, build_vae, prompt_table
from demo_training.trainer import StageSettings, learning_rate
from demo_training.unet_stage import Bucket
from demo_training.vae_stage import encode_moments, reconstruct, rescale_latents
from diffusers.loaders import single_file_utils as theirs
from diffusers.models.attention_processor import Attention

SIZES = replace(
    DEMO,
    unet=replace(DEMO.unet, model_channels=32, channel_mult=(1, 1, 1, 1)),
    vae=replace(DEMO.vae, ch_mult=(1, 1, 1, 1)),
)
FREE = "CC BY 2.0; author Someone"
CPU = torch.device("cpu")


class Interrupted(Session):
    """A session that is over after a number of looks at it, as a signal would end it."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    @property
    def is_over(self) -> bool:
        self._looks -= 1
        return self._looks < 0


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    with (folder / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "source", "license"))
        for number in range(12):
            name = f"set/{number}.jpg"
            (folder / "set").mkdir(exist_ok=True)
            blocks = Image.fromarray(draw.integers(0, 256, (5, 6, 3), dtype=np.uint8))
            blocks.resize((200, 170), Image.Resampling.BICUBIC).save(folder / name)
            rows.writerow((name, "made here", FREE))
    return folder


def settings_in(folder: Path, photos: Path) -> run.RunSettings:
    vae = StageSettings("vae", 3, 1.0, 1e-3, warmup_steps=2, ema_decay=0.9, seed=0)
    return run.RunSettings(
        photos, folder, vae, replace(vae, name="unet"), CPU, sizes=SIZES, vae_batch=1, unet_batch=1, crop=(32, 32),
        buckets=(Bucket(16, 16, 3, 1.0),),
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def tiny() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "NUM_SAMPLE_STEPS", 1)
        patch.setattr(pictures, "NUM_SAMPLES", 1)
        patch.setattr(run, "NUM_NORMALIZED", 4)
        patch.setattr(run, "NUM_SHOWN", 1)
        patch.setattr(run, "SNAPSHOT_REPORTS", (run.NUM_REPORTS,))
        yield


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    whole = run.DemoRun(settings_in(folder, photos), Session())
    assert whole.train_vae()
    assert whole.train_unet()
    return folder


def test_interrupted_run_ends_with_the_same_weights(photos: Path, finished: Path, tmp_path: Path) -> None:
    for looks, stages in ((2, (False,)), (9, (True, True))):
        part = run.DemoRun(settings_in(tmp_path, photos), Interrupted(looks))
        assert part.train_vae() == stages[0]
    for looks, done in ((1, False), (9, True)):
        assert run.DemoRun(settings_in(tmp_path, photos), Interrupted(looks)).train_unet() == done
    for name in ("vae", "unet"):
        whole, parts = (load_file(folder / f"{name}.safetensors") for folder in (finished, tmp_path))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_run_leaves_pictures_curves_and_snapshots(finished: Path) -> None:
    drawn = {path.name for path in (finished / "pictures").iterdir()}
    assert drawn == {"reconstructions.png", "samples.png", "denoisings.png", "vae_curve.png", "unet_curve.png"}
    history = json.loads((finished / "unet_history.json").read_text())["history"]
    assert [row["step"] for row in history] == [1, 2, 3]
    assert (finished / "unet_step_000003.safetensors").exists()
    assert not list(finished.glob("*.unfinished"))


def test_export_is_read_back_by_diffusers_own_converters(photos: Path, finished: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.safetensors"
    provenance = run.DemoRun(settings_in(finished, photos), Session()).provenance()
    run.join(finished / "vae.safetensors", finished / "unet.safetensors", target, provenance)
    weights, header = export.read_weights(target)
    assert export.sizes_of(header) == SIZES
    assert header["license"] == "demonstration and tests, non-commercial"
    assert json.loads(header["vidseg.provenance"])["unet"]["steps"] == 3
    assert torch.equal(weights["conditioning.positive"], prompt_table(SIZES.unet).half())
    unet, vae = build_unet(SIZES.unet, 1), build_vae(SIZES.vae, 1)
    export.load_unet(unet, weights, SIZES.unet)
    export.load_vae(vae, weights, SIZES.vae)
    converted = (
        (unet, theirs.convert_ldm_unet_checkpoint(dict(weights), dict(unet.config))),
        (vae, theirs.convert_ldm_vae_checkpoint(dict(weights), dict(vae.config))),
    )
    for network, state in converted:
        assert state.keys() == network.state_dict().keys()
        for name, value in network.state_dict().items():
            assert torch.equal(state[name].float().reshape(value.shape), value)


def test_heads_are_as_wide_as_the_sizes_say() -> None:
    heads = [module for module in build_unet(DEMO.unet, 0).modules() if isinstance(module, Attention)]
    assert {module.inner_dim // module.heads for module in heads} == {32}
    assert len(heads) == 2 * (6 + 1 + 9)


def test_rescaled_latents_leave_the_reconstruction() -> None:
    vae = build_vae(SIZES.vae, 3).eval()
    frames = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before, (mean, log_variance) = reconstruct(vae, frames), encode_moments(vae, frames)
    shift, scale = torch.tensor([0.5, -1.0, 0.0, 2.0]), torch.tensor([0.5, 2.0, 1.5, 0.1])
    rescale_latents(vae, shift, scale)
    after_mean, after_log_variance = encode_moments(vae, frames)
    torch.testing.assert_close(reconstruct(vae, frames), before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after_mean, (mean - shift[:, None, None]) / scale[:, None, None], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(after_log_variance, log_variance - 2 * scale.log()[:, None, None], atol=1e-5, rtol=1e-4)


def test_exact_noise_prediction_gives_the_clean_latents_back() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=generator)
    level = signal_levels(CPU)[torch.tensor([39, 500, 999])]
    noisy = add_noise(clean, noise, level)
    torch.testing.assert_close(remove_noise(noisy, noise, level), clean, atol=1e-4, rtol=1e-4)

    def exact(noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        here = signal_levels(CPU)[timesteps][:, None, None, None]
        return (noisy - here.sqrt() * clean) / (1 - here).sqrt()

    torch.testing.assert_close(sample(exact, noise, 4), clean, atol=1e-3, rtol=1e-3)


def test_crops_are_cut_from_the_photos(photos: Path) -> None:
    listed = list_photos(photos)
    bank = PhotoBank(photos, listed[:1], CPU, {})
    whole = bank.center_crop(0, (170, 200))
    crop = bank.crops(4, (40, 60), 1.0, torch.Generator().manual_seed(0))
    windows = whole[0].unfold(1, 40, 1).unfold(2, 60, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 40, 60)
    for one in crop:
        assert any((windows == view).flatten(1).all(dim=1).any() for view in (one, one.flip(2)))
    with pytest.raises(ValueError, match="`size` must fit in some photo, but none holds 400x400 pixels"):
        bank.require((200, 200), 0.5)


def test_held_out_photos_depend_on_the_name_alone(photos: Path) -> None:
    held_out = [photo.name for photo in list_photos(photos) if photo.held_out]
    assert held_out == [name for name in held_out if Photo(name, FREE).held_out]
    assert 0 < len(held_out) < 12


def test_learning_rate_warms_up_and_falls() -> None:
    settings = StageSettings("vae", 100, 1.0, 1.0, warmup_steps=10, ema_decay=0.9, seed=0)
    rates = [learning_rate(step, 100, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates.index(max(rates)) == 9
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[9:]))
    assert rates[-1] < 0.02
