"""The diffusers adapter against diffusers' own forward pass, its loading, conditioning and memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from vidseg.core.backbones import memory
from vidseg.core.backbones.diffusers import backbone as diffusers_unet
from vidseg.core.backbones.diffusers import denoiser as diffusers_denoiser
from vidseg.core.backbones.diffusers.backbone import DiffusersBackbone
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.config.parts import ATTENTION_BLOCKS, ModulationConfig
from vidseg.core.types import InputError

from ..narrow_models import narrow_model

GUIDANCE = 5.0


def oracle(backbone: DiffusersBackbone, latents: Tensor, timestep: int) -> Tensor:
    """Denoise by diffusers' own forward pass, with the formulas of the paper's samplers written out."""
    sigma = float(backbone.training_sigmas[timestep])
    inputs = torch.cat([latents, latents]) / (1 + sigma**2) ** 0.5
    context = backbone._conditioning.repeat_interleave(len(latents), 0)
    with torch.no_grad():
        negative, positive = backbone._unet(inputs, timestep, context).sample.chunk(2)
    output = negative + GUIDANCE * (positive - negative)
    if backbone.info.prediction == "epsilon":
        return latents - sigma * output
    alpha, beta = 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5
    return alpha * (latents * alpha) - beta * output


def attention(backbone: DiffusersBackbone, block: int) -> Any:
    return backbone._unet.up_blocks[block // 3].attentions[block % 3].transformer_blocks[0]


@contextmanager
def hooked(hooks: list[tuple[Any, Any]]) -> Iterator[None]:
    with ExitStack() as stack:
        for module, hook in hooks:
            stack.callback(module.register_forward_hook(hook).remove)
        yield


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    error = float((actual - expected).abs().max() / expected.abs().max())
    assert error <= tolerance, error


def test_prediction_equals_that_of_diffusers(backbone: DiffusersBackbone, latents: Tensor) -> None:
    sigma = float(backbone.training_sigmas[119])
    queries: dict[int, Tensor] = {}
    hooks = [
        (attention(backbone, block).attn1.to_q, lambda _m, _i, out, block=block: queries.update({block: out[2:]}))
        for block in ATTENTION_BLOCKS
    ]
    with hooked(hooks):
        expected = oracle(backbone, latents, 119)
    ours = backbone.run(lambda d: d.predict(latents, sigma), GUIDANCE, latents.shape)
    close(ours.denoised, expected, 2e-6)
    ours = backbone.run(lambda d: d.queries(latents, sigma, ATTENTION_BLOCKS), GUIDANCE, latents.shape)
    for block, query in zip(ATTENTION_BLOCKS, ours, strict=True):
        close(query, queries[block], 1e-5)


@pytest.mark.parametrize("kind", ["cross", "self"])
@pytest.mark.parametrize("block", ATTENTION_BLOCKS)
def test_closed_form_of_modulation_equals_the_explicit_pass(
    backbone: DiffusersBackbone, latents: Tensor, block: int, kind: str
) -> None:
    sigma = float(backbone.training_sigmas[119])
    keep = ModulationConfig(block=block, inject=False)
    offset = 50 * (torch.rand(2, 4, 8, generator=torch.Generator().manual_seed(2)) > 0.5).float()
    offset[1] *= -1
    scale = {3: 0.5, 4: 0.5, 5: 0.5, 6: 1, 7: 1, 8: 1}.get(block, 2)
    grid = torch.nn.functional.interpolate(offset[:, None], scale_factor=scale, mode="nearest").flatten(1)
    module = getattr(attention(backbone, block), {"cross": "attn2", "self": "attn1"}[kind])
    with hooked([(module, lambda _m, _i, out: out + grid.repeat(2, 1)[..., None])]):
        explicit = oracle(backbone, latents, 119)

    def job(denoiser: Any) -> Tensor:
        cache = denoiser.predict(latents, sigma, keep=keep).cache
        return denoiser.replay(latents, sigma, cache, torch.arange(2), offset)

    plain = oracle(backbone, latents, 119)
    assert float((explicit - plain).abs().max()) > 1e-2
    close(backbone.run(job, GUIDANCE, latents.shape), explicit, 2e-6)


def test_injection_equals_hooks_on_queries_and_keys(backbone: DiffusersBackbone, latents: Tensor) -> None:
    sigma, other = float(backbone.training_sigmas[79]), latents.flip(-1)
    kept: dict[Any, Tensor] = {}
    projections = [
        getattr(getattr(attention(backbone, block), attn), name)
        for block in ATTENTION_BLOCKS
        for attn in ("attn1", "attn2")
        for name in ("to_q", "to_k")
    ]
    with hooked([(module, lambda m, _i, out: kept.update({m: out})) for module in projections]):
        oracle(backbone, latents, 79)
    with hooked([(module, lambda m, _i, _out: kept[m]) for module in projections]):
        expected = oracle(backbone, other, 79)

    def job(denoiser: Any) -> Tensor:
        cache = denoiser.predict(latents, sigma, keep=ModulationConfig()).cache
        return denoiser.replay(other, sigma, cache, torch.arange(2), None)

    close(backbone.run(job, GUIDANCE, latents.shape), expected, 2e-6)


def test_results_on_the_cpu_do_not_depend_on_the_batch(backbone: DiffusersBackbone, latents: Tensor) -> None:
    sigma = float(backbone.training_sigmas[79])
    both, alone = (
        backbone.run(lambda d, x=x: (d.predict(x, sigma).denoised, d.queries(x, sigma, (7,))[0]), GUIDANCE, x.shape)
        for x in (latents, latents[1:])
    )
    assert all(torch.equal(of_both[1:], of_one) for of_both, of_one in zip(both, alone, strict=True))
    assert torch.equal(backbone.decode(latents)[1:], backbone.decode(latents[1:]))


def test_exhausted_memory_halves_the_batch(
    backbone: DiffusersBackbone, latents: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sigma = float(backbone.training_sigmas[79])
    expected = backbone.run(lambda d: d.predict(latents, sigma), GUIDANCE, latents.shape).denoised
    sizes = []

    def limited(unet: Any, inputs: Tensor, *rest: Any) -> Any:
        sizes.append(len(inputs))
        if len(inputs) > 2:
            raise torch.OutOfMemoryError
        return run_encoder(unet, inputs, *rest)

    run_encoder = diffusers_denoiser.run_encoder
    monkeypatch.setattr(diffusers_denoiser, "run_encoder", limited)
    monkeypatch.setattr(diffusers_unet, "CPU_COMPUTE_BATCH", 2)
    first, again = backbone.run(
        lambda d: [d.predict(latents, sigma, keep=ModulationConfig()) for _ in range(2)], GUIDANCE, latents.shape
    )
    assert sizes == [4, 2, 2, 2, 2], "the size that failed was tried again"
    assert torch.equal(first.denoised, expected)
    assert torch.equal(again.denoised, expected)


def test_other_errors_are_not_taken_for_exhausted_memory(
    backbone: DiffusersBackbone, latents: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(diffusers_denoiser, "run_encoder", broken)
    with pytest.raises(RuntimeError, match="broken"):
        backbone.run(lambda d: d.predict(latents, 1.0), GUIDANCE, latents.shape)


def test_what_says_that_memory_ran_out() -> None:
    assert memory.is_out_of_memory(torch.OutOfMemoryError())
    assert memory.is_out_of_memory(MemoryError())
    assert memory.is_out_of_memory(RuntimeError("MPS backend out of memory"))
    assert memory.is_out_of_memory(RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"))
    assert not memory.is_out_of_memory(RuntimeError("shapes differ"))
    assert not memory.is_out_of_memory(ValueError("out of memory"))


def test_budget_without_a_number_of_free_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(memory.os, "sysconf", raising=False)
    assert memory.find_budget(torch.device("cpu")) == memory.CPU_BUDGET_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep memory in other ways")
def test_freed_memory_is_not_fetched_anew() -> None:
    from resource import RUSAGE_SELF, getrusage  # noqa: PLC0415, not on Windows

    memory.keep_freed_memory()
    pages = []
    for _ in range(2):
        before = getrusage(RUSAGE_SELF).ru_minflt
        torch.ones(1 << 21)  # 8 MiB, two thousand pages
        pages.append(getrusage(RUSAGE_SELF).ru_minflt - before)
    assert pages[1] < 200, pages


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close(tmp_path: Path, latents: Tensor, dtype: torch.dtype) -> None:
    path = narrow_model(tmp_path / "m.safetensors")
    sigma = 0.386565

    def job(denoiser: Any) -> Tensor:
        plain = denoiser.predict(latents, sigma, keep=ModulationConfig())
        assert plain.denoised.dtype == denoiser.queries(latents, sigma, (7,))[0].dtype == torch.float32
        return denoiser.replay(latents, sigma, plain.cache, torch.arange(2), torch.full((2, 4, 8), 50.0))

    exact, half = (
        load_diffusers(path, device="cpu", dtype=t).run(job, 1.0, latents.shape) for t in (torch.float32, dtype)
    )
    close(half, exact, 0.05)


def test_inputs_are_checked(backbone: DiffusersBackbone, latents: Tensor) -> None:
    sigma = float(backbone.training_sigmas[79])

    def job(denoiser: Any) -> None:
        for wrong in (latents[:, :3], latents[..., :5], latents[:0]):
            with pytest.raises(InputError, match="`latents`"):
                denoiser.predict(wrong, sigma)
        cache = denoiser.predict(latents, sigma, keep=ModulationConfig()).cache
        frames = torch.arange(2)
        with pytest.raises(InputError, match="`cache`"):
            denoiser.replay(latents, sigma * 2, cache, frames, None)
        with pytest.raises(InputError, match="`frames`"):
            denoiser.replay(latents, sigma, cache, frames[:1], None)
        with pytest.raises(InputError, match="`offset`"):
            denoiser.replay(latents, sigma, cache, frames, torch.zeros(1, 4, 8))
        with pytest.raises(TypeError, match="cache"):
            denoiser.replay(latents, sigma, object(), frames, None)

    backbone.run(job, GUIDANCE, latents.shape)
    with pytest.raises(InputError, match="multiples of 8"):
        backbone.encode(torch.zeros(1, 60, 64, 3))
    with pytest.raises(InputError, match="posterior_noise"):
        backbone.encode(torch.zeros(1, 64, 64, 3), torch.zeros(1, 4, 4, 4))
    with pytest.raises(InputError, match="at least one frame"):
        backbone.decode(torch.zeros(0, 4, 8, 8))
