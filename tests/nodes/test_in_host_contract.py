"""The contract suite of backbones, over the host's model; and what is particular to the host."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management
import pytest
import torch
from torch import Tensor
from vidseg.core.backbones.comfy import attention as comfy_attention
from vidseg.core.backbones.comfy import calls as comfy_calls
from vidseg.core.backbones.comfy import denoiser as comfy_denoiser
from vidseg.core.backbones.comfy import tail as comfy_tail
from vidseg.core.backbones.comfy.backbone import ComfyBackbone
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.backbones.doubling import Doubling
from vidseg.core.backbones.protocol import Denoiser
from vidseg.core.config.parts import ModulationConfig
from vidseg.core.config.settings import preset
from vidseg.core.method.features import extract_features
from vidseg.core.types import InputError
from vidseg.nodes.demo_model import LoadedModel, load_narrow_model

from ..core.backbones import test_contract as contract
from ..core.backbones.narrow_models import SD1, SD2, narrow_model

globals().update({name: test for name, test in vars(contract).items() if name.startswith("test_")})
latents, sigma = contract.latents, contract.sigma


@pytest.fixture(scope="module", params=["SD2", "SD1"])
def both(request: Any, tmp_path_factory: Any) -> tuple[Path, LoadedModel]:
    path: Path = tmp_path_factory.mktemp("model") / f"{request.param}.safetensors"
    narrow_model(path, SD2 if request.param == "SD2" else SD1)
    return path, load_narrow_model(path)


@pytest.fixture(scope="module")
def backbone(both: tuple[Path, LoadedModel]) -> ComfyBackbone:
    return ComfyBackbone(*both[1])


@pytest.fixture(scope="module")
def feature_backbone(backbone: ComfyBackbone) -> ComfyBackbone:
    return backbone


@pytest.fixture
def modulated(backbone: ComfyBackbone, latents: Tensor, sigma: float) -> Callable[..., Tensor]:
    """Return a modulated prediction; ``change`` may alter the denoiser before."""
    offset = torch.zeros(2, 4, 8)
    offset[:, 1:3, 2:6] = 50.0

    def run(keep: ModulationConfig, change: Callable[[Any], None] = lambda _: None) -> Tensor:
        def job(denoiser: Denoiser) -> Tensor:
            change(denoiser)
            cache = denoiser.predict(latents, sigma, keep=keep).cache
            assert cache is not None
            return denoiser.replay(latents, sigma, cache, torch.tensor([0, 1]), offset)

        return backbone.run(job, 5.0, (2, *contract.SHAPE))

    return run


def test_same_numbers_as_diffusers(
    both: tuple[Path, LoadedModel], backbone: ComfyBackbone, frames: Tensor, modulated: Callable[..., Tensor]
) -> None:
    other = load_diffusers(both[0], device="cpu")
    latents = other.encode(frames)
    assert torch.equal(backbone.encode(frames), latents)
    assert torch.equal(backbone.decode(latents), other.decode(latents))
    ours, theirs = (extract_features(model, frames, preset("default")) for model in (backbone, other))
    assert torch.equal(backbone.training_sigmas, other.training_sigmas)
    assert torch.equal(ours.queries, theirs.queries)
    assert torch.equal(ours.matching, theirs.matching)


@pytest.mark.parametrize("block", range(3, 12))
def test_short_call_equals_the_explicit_one(modulated: Callable[..., Tensor], block: int) -> None:
    keep = ModulationConfig(block=block)

    def explicit(denoiser: Any) -> None:
        denoiser._short_calls = False

    contract.close(modulated(keep), modulated(keep, explicit), 1e-4)


def test_wrong_short_call_is_found_and_replaced(
    modulated: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = modulated(ModulationConfig())
    monkeypatch.setattr(comfy_tail, "_row_sums", lambda _transformer, like: like.new_ones(like.shape[1]) * 7)
    with caplog.at_level(logging.WARNING):
        contract.close(modulated(ModulationConfig()), right, 1e-4)
    assert "full calls" in caplog.text


def test_model_of_the_user_is_untouched(both: tuple[Path, LoadedModel], frames: Tensor) -> None:
    model = both[1].model
    before = repr(model.model_options), repr(model.object_patches), sorted(model.patches)
    weights = {name: value.clone() for name, value in model.model.state_dict().items()}
    modules = sum(len(module._forward_hooks) for module in both[1].vae.first_stage_model.modules())
    backbone = ComfyBackbone(*both[1])
    extract_features(backbone, frames, preset("reference"))
    assert (repr(model.model_options), repr(model.object_patches), sorted(model.patches)) == before
    after = model.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in weights.items())
    assert modules == sum(len(module._forward_hooks) for module in both[1].vae.first_stage_model.modules())


def test_patches_of_other_nodes_stay_in_force(both: tuple[Path, LoadedModel], latents: Tensor, sigma: float) -> None:
    called = []

    def foreign(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        called.append(extra["block"])
        return comfy_attention.host_attention(q, k, v, extra)

    model = both[1].model.clone()
    model.set_model_attn1_replace(foreign, "output", 7)
    model.set_model_attn2_replace(foreign, "output", 7, 0)
    backbone = ComfyBackbone(model, *both[1][1:])
    contract.close(
        contract.predict(backbone, latents, sigma, keep=ModulationConfig()).denoised,
        contract.predict(ComfyBackbone(*both[1]), latents, sigma).denoised,
    )
    assert called == [("output", 7)] * 2 * len(latents)  # both attentions, frame by frame


def test_merged_tokens_are_refused(both: tuple[Path, LoadedModel], latents: Tensor, sigma: float) -> None:
    model = both[1].model.clone()
    model.set_model_attn1_patch(lambda n, context, value, _extra: (n[:, ::2], context, value))
    model.set_model_attn1_output_patch(lambda n, _extra: n.repeat_interleave(2, dim=1))
    with pytest.raises(InputError, match="ToMe"):
        contract.read_queries(ComfyBackbone(model, *both[1][1:]), latents, sigma, (7,))


def test_halves_that_the_host_splits_give_the_same(
    backbone: ComfyBackbone, modulated: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = modulated(ModulationConfig())
    monkeypatch.setattr(type(backbone._model.model), "memory_required", lambda *_args, **_options: 1e15)
    contract.close(modulated(ModulationConfig()), together)


def test_exhausted_memory_halves_the_batch(
    backbone: ComfyBackbone, modulated: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = modulated(ModulationConfig())
    original, sizes = comfy_denoiser.HostDenoiser._denoised, []

    def limited(self: Any, latents: Tensor, *rest: Any) -> Tensor:
        sizes.append(len(latents))
        if len(latents) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return original(self, latents, *rest)

    monkeypatch.setattr(comfy_denoiser.HostDenoiser, "_denoised", limited)
    monkeypatch.setattr(comfy_denoiser.HostDenoiser, "_on_cpu", False)
    monkeypatch.setattr(comfy.model_management, "OOM_EXCEPTION", torch.cuda.OutOfMemoryError, raising=False)
    contract.close(modulated(ModulationConfig()), whole, 1e-4)
    assert sizes[0] == 2
    assert set(sizes[1:]) == {1}, "the size that failed was tried again"


def test_interrupt_stops_within_a_call(backbone: ComfyBackbone, modulated: Callable[..., Tensor]) -> None:
    before = modulated(ModulationConfig())
    calls = []

    def job(denoiser: Denoiser) -> None:
        denoiser.predict(torch.zeros(1, *contract.SHAPE), 0.3)
        comfy.model_management.interrupt_current_processing()
        calls.append(1)
        denoiser.predict(torch.zeros(1, *contract.SHAPE), 0.3)
        calls.append(2)

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        backbone.run(job, 5.0, (1, *contract.SHAPE))
    assert calls == [1]
    assert torch.equal(modulated(ModulationConfig()), before)


def test_without_conditioning_both_halves_are_zeros(both: tuple[Path, LoadedModel], latents: Tensor) -> None:
    model, vae, _, negative = both[1]
    zeros = contract.predict(ComfyBackbone(model, vae), latents, 0.3).denoised
    contract.close(zeros, contract.predict(ComfyBackbone(model, vae, negative, negative), latents, 0.3).denoised)


def test_reading_ends_behind_the_last_block_that_is_read(
    both: tuple[Path, LoadedModel], latents: Tensor, sigma: float
) -> None:
    calls, unet = [], both[1].model.model.diffusion_model
    hooks = [
        block[0].register_forward_hook(lambda *_, number=number: calls.append(number))
        for number, block in enumerate(unet.output_blocks)
    ]
    try:
        short = contract.read_queries(ComfyBackbone(*both[1]), latents[:1], sigma, (8, 6))
        assert calls == list(range(9))
        calls.clear()
        watched = both[1].model.clone()
        kind = comfy_calls.AROUND_UNET
        watched.add_wrapper_with_key(kind, "other", lambda executor, *args, **options: executor(*args, **options))
        whole = contract.read_queries(ComfyBackbone(watched, *both[1][1:]), latents[:1], sigma, (8, 6))
        assert calls == list(range(12)), "another node may keep the answer"
    finally:
        for hook in hooks:
            hook.remove()
    assert all(map(torch.equal, short, whole))


def test_attention_is_not_computed_in_8_bits(both: tuple[Path, LoadedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    def attention_sage(*_args: Any, **_options: Any) -> Tensor:
        raise AssertionError

    q, k, v = torch.randn(3, 2, 5, 8)
    expected = comfy_attention.attention_pytorch(q, k, v, 2)
    assert torch.equal(comfy_attention.exact_attention(attention_sage, q, k, v, 2), expected)
    assert torch.equal(comfy_attention.exact_attention(comfy_attention.attention_pytorch, q, k, v, 2), expected)
    monkeypatch.setattr(comfy_denoiser.HostDenoiser, "_on_cpu", False)  # as on a GPU
    model = both[1].model.clone()
    for other in (None, attention_sage):
        if other:
            model.model_options["transformer_options"]["optimized_attention_override"] = other
        assert contract.predict(ComfyBackbone(model, *both[1][1:]), torch.zeros(1, *contract.SHAPE), 0.3)


@pytest.fixture
def doubling_layers(both: tuple[Path, LoadedModel]) -> list[Any]:
    decoder = both[1].vae.first_stage_model.decoder
    return [level.upsample for level in decoder.up if hasattr(level, "upsample")]


def test_layers_that_double_are_as_before(backbone: ComfyBackbone, doubling_layers: list[Any], latents: Tensor) -> None:
    seen: list[Any] = []
    hook = doubling_layers[0].register_forward_hook(lambda layer, *_rest: seen.append(layer.forward))
    backbone.decode(latents)
    hook.remove()
    assert isinstance(seen[0], Doubling)
    assert len(doubling_layers) == 3
    assert not any("forward" in vars(layer) for layer in doubling_layers)


def test_layers_that_double_are_as_before_after_an_interrupt(
    backbone: ComfyBackbone, doubling_layers: list[Any], latents: Tensor
) -> None:
    hook = doubling_layers[1].register_forward_hook(lambda *_: comfy.model_management.interrupt_current_processing())
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        backbone.decode(torch.cat([latents, latents]))
    hook.remove()
    assert not any("forward" in vars(layer) for layer in doubling_layers)


def test_patched_layers_that_double_are_left_to_their_patch(
    backbone: ComfyBackbone, doubling_layers: list[Any], latents: Tensor
) -> None:
    plain, layer = backbone.decode(latents), doubling_layers[2]
    layer.forward = lambda maps, *rest: -type(layer).forward(layer, maps, *rest)
    try:
        assert not torch.allclose(backbone.decode(latents), plain, atol=1e-3)
        assert "forward" in vars(layer)
    finally:
        del layer.forward
    assert torch.equal(backbone.decode(latents), plain)
