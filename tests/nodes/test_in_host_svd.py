"""The contract of video backbones over the host's SVD; and what is particular to the host."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import comfy.model_sampling
import pytest
import torch
from torch import Tensor
from vidseg.core.backbones.comfy import tail as comfy_tail
from vidseg.core.backbones.comfy.attention import host_attention
from vidseg.core.backbones.comfy.load import model_kind, open_backbone
from vidseg.core.backbones.comfy.svd import ComfySvdBackbone
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.backbones.protocol import Backbone, Denoiser
from vidseg.core.config.parts import ModulationConfig, VideoConfig
from vidseg.core.config.settings import Settings, preset, replace_parts
from vidseg.core.method.features import extract_features
from vidseg.core.method.frames import HeldFrames
from vidseg.core.method.pipeline import segment
from vidseg.core.types import InputError, LabelMaps

from ..core.backbones import test_video_contract as contract
from ..core.backbones.narrow_models import SVD, narrow_model
from ..core.backbones.test_contract import close
from .graphs import call, coarse_labels, wired
from .narrow_svd import LoadedSvd, load_svd
from .narrow_svd import conditioning as host_conditioning

globals().update({name: test for name, test in vars(contract).items() if name.startswith("test_")})
conditioning, latents, run = contract.conditioning, contract.latents, contract.run
SETTINGS = replace_parts(
    preset("default", "svd"),
    cluster={"num_clusters": 2, "num_restarts": 1},
    window={"length": 2},
    video={"frames": 2},
    modulation={"step": 24},
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: Any) -> Path:
    return narrow_model(tmp_path_factory.mktemp("model") / "svd.safetensors", SVD)


@pytest.fixture(scope="module")
def svd(path: Path) -> LoadedSvd:
    return load_svd(path)


@pytest.fixture(scope="module")
def backbone(svd: LoadedSvd) -> Backbone:
    return ComfySvdBackbone(svd.model, svd.vae, clip_vision=svd.clip_vision)


def modulated(backbone: Backbone, conditioning: Any, latents: Tensor, keep: ModulationConfig) -> tuple[Tensor, Any]:
    """Return a modulated prediction and the denoiser."""
    offset = torch.zeros(len(latents), 4, 8)
    offset[:, 1:3, 2:6] = 50.0

    def job(denoiser: Denoiser) -> tuple[Tensor, Any]:
        cache = denoiser.predict(latents, contract.SIGMA, keep=keep).cache
        assert cache is not None
        return denoiser.replay(latents, contract.SIGMA, cache, torch.arange(len(latents)), offset), denoiser

    return backbone.conditioned(conditioning, contract.VIDEO).run(job, contract.GUIDANCE, latents.shape)


def test_same_features_and_labels_as_diffusers(path: Path, backbone: Backbone, frames: Tensor) -> None:
    other = load_diffusers(path, device="cpu")
    close(backbone.encode(frames), other.encode(frames), 1e-4)
    ours, theirs = (extract_features(model, frames, SETTINGS) for model in (backbone, other))
    assert [window[:3] for window in ours.video] == [window[:3] for window in theirs.video] == [(0, 2, 0), (1, 3, 2)]
    close(ours.queries, theirs.queries, 1e-4)
    close(ours.matching, theirs.matching, 1e-4)
    for window, same in zip(ours.video, theirs.video, strict=True):
        close(window.conditioning.image, same.conditioning.image, 1e-4)
        assert window.conditioning.numbers == same.conditioning.numbers
    labels, same_labels = (segment(model, HeldFrames(frames), SETTINGS).maps for model in (backbone, other))
    assert len(labels.unique()) > 1
    assert float((labels == same_labels).float().mean()) > 0.999


@pytest.mark.parametrize("block", [4, 5, 8, 10])
def test_short_call_equals_the_whole_one(
    backbone: Backbone, conditioning: Any, latents: Tensor, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = ModulationConfig(block=block)
    short, denoiser = modulated(backbone, conditioning, latents, keep)
    assert denoiser._short_calls
    monkeypatch.setattr("vidseg.core.backbones.comfy.denoiser.agree", lambda *_predictions: False)
    close(short, modulated(backbone, conditioning, latents, keep)[0], 1e-4)


def test_wrong_short_call_is_found_and_replaced(
    backbone: Backbone, conditioning: Any, latents: Tensor, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    right, _ = modulated(backbone, conditioning, latents, contract.KEEP)
    monkeypatch.setattr(comfy_tail, "_row_sums", lambda _transformer, like: like.new_ones(like.shape[1]) * 7)
    with caplog.at_level(logging.WARNING):
        close(modulated(backbone, conditioning, latents, contract.KEEP)[0], right, 1e-4)
    assert "full calls" in caplog.text


def test_as_many_frames_as_cells_are_told_apart(path: Path, backbone: Backbone) -> None:
    """Block 4 of 8 frames of 64x128 has 8 cells: spatial and temporal queries have the same shape there."""
    latents = torch.randn((8, 4, 8, 16), generator=torch.Generator().manual_seed(3))
    frame, noise = torch.rand(64, 128, 3), torch.randn(3, 64, 128)
    for layer in ("spatial", "temporal"):
        config = VideoConfig(frames=8, query_layer=layer)
        found = [
            model.conditioned(model.condition(frame, noise, config), config).run(
                lambda denoiser: denoiser.queries(latents, contract.SIGMA, (4,))[0], 1.0, latents.shape
            )
            for model in (backbone, load_diffusers(path, device="cpu"))
        ]
        close(found[0], found[1], 1e-4)


def test_halves_that_the_host_splits_give_the_same(
    backbone: ComfySvdBackbone, conditioning: Any, latents: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, _ = modulated(backbone, conditioning, latents, contract.KEEP)
    monkeypatch.setattr(type(backbone._model.model), "memory_required", lambda *_args, **_options: 1e15)
    close(modulated(backbone, conditioning, latents, contract.KEEP)[0], together)


def test_what_is_kept_may_lie_elsewhere(
    backbone: ComfySvdBackbone, conditioning: Any, latents: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, _ = modulated(backbone, conditioning, latents, contract.KEEP)
    monkeypatch.setattr(ComfySvdBackbone, "_cache_device", lambda *_args: torch.device("cpu"))
    close(modulated(backbone, conditioning, latents, contract.KEEP)[0], together)


def test_model_of_the_user_is_untouched(svd: LoadedSvd, backbone: Backbone, frames: Tensor) -> None:
    model = svd.model
    before = repr(model.model_options), repr(model.object_patches), sorted(model.patches)
    hooks = sum(len(module._forward_hooks) for module in svd.vae.first_stage_model.modules())
    settings = replace_parts(
        preset("reference", "svd"), video={"frames": 3}, window={"length": 3}, modulation={"step": 24}
    )
    extract_features(backbone, frames, settings)
    assert (repr(model.model_options), repr(model.object_patches), sorted(model.patches)) == before
    assert hooks == sum(len(module._forward_hooks) for module in svd.vae.first_stage_model.modules())


def test_patches_of_other_nodes_stay_in_force(
    svd: LoadedSvd, backbone: Backbone, conditioning: Any, latents: Tensor
) -> None:
    called = []

    def foreign(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        called.append(tuple(q.shape[1:]))
        return host_attention(q, k, v, extra)

    model = svd.model.clone()
    model.set_model_attn1_replace(foreign, "output", 7)
    other = ComfySvdBackbone(model, svd.vae, clip_vision=svd.clip_vision)
    predictions = [
        each.conditioned(conditioning, contract.VIDEO).run(
            lambda denoiser: denoiser.predict(latents, contract.SIGMA, keep=contract.KEEP).denoised, 2.5, latents.shape
        )
        for each in (backbone, other)
    ]
    close(predictions[1], predictions[0])
    assert called == [(32, 64), (3, 64)]


def test_merged_tokens_are_refused(svd: LoadedSvd, conditioning: Any, latents: Tensor) -> None:
    model = svd.model.clone()

    def merge(n: Tensor, context: Any, value: Any, extra: dict[str, Any]) -> tuple[Tensor, Any, Any]:
        return (n[:, ::2] if extra["block"] == ("output", 7) else n), context, value

    model.set_model_attn1_patch(merge)
    backbone = ComfySvdBackbone(model, svd.vae, clip_vision=svd.clip_vision)
    with pytest.raises(InputError, match="ToMe"):
        backbone.conditioned(conditioning, contract.VIDEO).run(
            lambda denoiser: denoiser.queries(latents, contract.SIGMA, (7,)), 1.0, latents.shape
        )


def test_interrupt_stops_within_a_window(backbone: Backbone, conditioning: Any, latents: Tensor) -> None:
    def job(denoiser: Denoiser) -> None:
        denoiser.predict(latents, contract.SIGMA)
        comfy.model_management.interrupt_current_processing()
        denoiser.predict(latents, contract.SIGMA)

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        backbone.conditioned(conditioning, contract.VIDEO).run(job, 2.5, latents.shape)


def test_conditioning_of_the_host_serves_all_windows(svd: LoadedSvd, backbone: Backbone, frames: Tensor) -> None:
    latent = svd.vae.encode(frames[:1])
    positive, negative = host_conditioning(svd, latent, fps=7, augmentation_level=0.1)
    other = ComfySvdBackbone(svd.model, svd.vae, positive, negative)
    noise = torch.randn(3, 64, 128)
    made = other.condition(frames[2], noise, SETTINGS.video)
    assert made.numbers == (6, 127, 0.1)
    close(made.image, latent[0].cpu())
    both = ComfySvdBackbone(svd.model, svd.vae, positive, negative, svd.clip_vision).condition(
        frames[2], noise, SETTINGS.video
    )
    assert both.numbers == (6, 127, 0.1)
    close(both.image, backbone.encode(frames[2:3] + 0.05 * noise.movedim(0, -1))[0] / 0.18215, 1e-4)


def test_what_does_not_belong_together_is_refused(svd: LoadedSvd, loaded: Any, frames: Tensor) -> None:
    assert (model_kind(svd.model), model_kind(loaded.model)) == ("svd", "sd")
    positive, negative = host_conditioning(svd, svd.vae.encode(frames[:1]))
    host, changed_model = comfy.model_sampling, svd.model.clone()
    kind = type("Changed", (host.ModelSamplingContinuousEDM, host.EDM), {})
    changed_model.add_object_patch("model_sampling", kind(svd.model.model.model_config))
    cases: list[tuple[str, tuple[Any, ...]]] = [
        ("its sampling was changed", (changed_model, svd.vae, None, None, svd.clip_vision)),
        ("must be connected for Stable Video Diffusion", (svd.model, svd.vae)),
        ("77 tokens of a prompt", (svd.model, svd.vae, loaded.positive)),
        ("must hold the conditioning of SVD", (svd.model, svd.vae, [])),
        ("Swap positive and negative", (svd.model, svd.vae, negative, positive)),
        ("`clip_vision` must be a CLIP_VISION", (svd.model, svd.vae, None, None, "text")),
        (
            "`clip_vision` must not be connected for an image model",
            (loaded.model, loaded.vae, None, None, svd.clip_vision),
        ),
        ("which mixes frames", (loaded.model, svd.vae)),
        ("concat_latent_image", (loaded.model, loaded.vae, positive)),
        ("VAE", (svd.model, object())),
    ]
    for message, parts in cases:
        with pytest.raises(InputError, match=message):
            open_backbone(*parts)
    assert open_backbone(svd.model, svd.vae, reads_frames=False).info.kind == "svd"
    assert open_backbone(svd.model, svd.vae, positive, negative).info.kind == "svd"


def five_stages(inputs: dict[str, Any], frames: Tensor, **options: Any) -> Any:
    """Return labels of the five nodes with few steps, for a model as inputs of nodes."""
    features = call("ExtractDiffusionFeatures", **inputs, frames=frames, start_step=24, video_frames=2, **options)
    del inputs["clip_vision"]
    labels = coarse_labels(features, num_clusters=2)
    return call("MaskedModulationUpsample", **inputs, features=features, labels=labels, modulation_step=24)


def test_two_kinds_of_models_side_by_side(svd: LoadedSvd, loaded: Any, frames: Tensor) -> None:
    frames = frames[:2]
    video = {"model": svd.model, "vae": svd.vae, "clip_vision": svd.clip_vision}
    image = {**wired(loaded), "clip_vision": None}
    first, between, again = (five_stages(dict(inputs), frames) for inputs in (image, video, image))
    for made in (first, between):
        assert made.maps.shape == (2, 64, 128)
        assert len(made.maps.unique()) > 1
    assert torch.equal(again.maps, first.maps)
    whole = call("SegmentVideo", **video, frames=frames, num_clusters=2, quality="fast", window_length=2)
    assert whole.maps.shape == (2, 64, 128)


def test_nodes_take_the_preset_of_the_kind(svd: LoadedSvd, frames: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def spy(name: str, result: Any) -> Any:
        def record(*arguments: Any, **_options: Any) -> Any:
            seen[name] = next(argument for argument in arguments if isinstance(argument, Settings))
            return result

        return record

    made = LabelMaps(torch.zeros(3, 64, 128, dtype=torch.uint8), ())
    monkeypatch.setattr("vidseg.nodes.model_stages.extract_features", spy("features", None))
    monkeypatch.setattr("vidseg.nodes.model_stages.upsample", spy("fine", made))
    monkeypatch.setattr("vidseg.nodes.segment_video._segmented", spy("whole", made))
    monkeypatch.setattr("vidseg.nodes.model_stages.require_features_of", lambda *_arguments: None)
    video = {"model": svd.model, "vae": svd.vae}
    stub = SimpleNamespace(maps=None, regions=(), scan=None, frame_size=(64, 128), num_frames=3)
    call("ExtractDiffusionFeatures", **video, frames=frames, clip_vision=svd.clip_vision)
    call("MaskedModulationUpsample", **video, features=stub, labels=stub)
    call("SegmentVideo", **video, frames=frames, clip_vision=svd.clip_vision, preset="paper", window_length=25)
    expected = preset("default", "svd")
    for settings in (seen["features"], seen["fine"]):
        assert settings.sampling.guidance_scale == 2.5
        assert (settings.start_step, settings.modulation.step) == (17, 17)
        assert (settings.video, settings.window.length) == (expected.video, 14)
    assert seen["fine"].modulation.block == 8
    assert (seen["whole"].video.frames, seen["whole"].window.length) == (25, 25)
    assert seen["whole"].feature.matching_block == preset("paper", "svd").feature.matching_block


def test_temporal_features_can_be_looked_at(svd: LoadedSvd, loaded: Any, frames: Tensor) -> None:
    video = {"model": svd.model, "vae": svd.vae, "clip_vision": svd.clip_vision, "frames": frames, "start_step": 24}
    spatial, temporal = (
        call("ExtractDiffusionFeatures", **video, video_frames=3, layer=layer) for layer in ("spatial", "temporal")
    )
    assert not torch.allclose(spatial.queries, temporal.queries)
    assert call("PreviewFeatures", features=temporal).shape == (3, 64, 128, 3)
    with pytest.raises(InputError, match="`layer` must be spatial for an image model"):
        call("ExtractDiffusionFeatures", **wired(loaded), frames=frames, layer="temporal")


def test_mixtures_are_refused_by_the_nodes(svd: LoadedSvd, loaded: Any, frames: Tensor) -> None:
    with pytest.raises(InputError, match="must be connected for Stable Video Diffusion"):
        call("ExtractDiffusionFeatures", model=svd.model, vae=svd.vae, frames=frames)
    with pytest.raises(InputError, match="77 tokens of a prompt"):
        call("SegmentVideo", model=svd.model, vae=svd.vae, frames=frames, positive=loaded.positive)
    features = call("ExtractDiffusionFeatures", **wired(loaded), frames=frames, start_step=24)
    labels = coarse_labels(features, num_clusters=3)
    with pytest.raises(InputError, match="a video model, but got those of an image model"):
        call("MaskedModulationUpsample", model=svd.model, vae=svd.vae, features=features, labels=labels)
