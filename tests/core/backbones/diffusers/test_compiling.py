"""torch.compile captures the parts that passes call, and changes nothing but rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters
from vidseg.core.backbones.diffusers.compiling import compile_networks
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.types import InputError

from ..narrow_models import narrow_model


def test_results_stay(tmp_path: Path) -> None:
    backbone = load_diffusers(narrow_model(tmp_path / "model.safetensors"), device="cpu")
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    sigma = float(backbone.training_sigmas[119])

    def results() -> list[torch.Tensor]:
        (queries,) = backbone.run(lambda denoiser: denoiser.queries(latents, sigma, (4,)), 5.0, latents.shape)
        return [queries, backbone.decode(latents)]

    plain = results()
    counters.clear()
    backbone.compile(backend="eager")
    compiled = results()
    assert counters["stats"]["unique_graphs"] >= 8
    for before, after in zip(plain, compiled, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_a_machine_without_compiler_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    with pytest.raises(InputError, match=r"`--compile` must find a compiler for cpu.* Leave it out"):
        compile_networks(torch.nn.Identity(), torch.nn.Identity(), device=torch.device("cpu"))
