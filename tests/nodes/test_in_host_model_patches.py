"""The host's own nodes that patch a model, before ours: honored, left out, or refused in clear words."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import comfy.patcher_extension
import comfy_extras
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from vidseg.core.backbones.comfy.backbone import ComfyBackbone
from vidseg.core.backbones.protocol import Denoiser
from vidseg.core.config.parts import ModulationConfig
from vidseg.core.types import InputError
from vidseg.nodes.demo_model import LoadedModel

from .graphs import NODE, defaults, wired

EXTRAS = Path(next(iter(comfy_extras.__path__)))
LEAST_AGREEMENT = 0.5


def patched(model: Any, module: str, name: str, **widgets: Any) -> Any:
    """Return what a node of the host makes of ``model``, its widgets as they are in a new node."""
    if not (EXTRAS / f"{module}.py").is_file():
        pytest.skip(f"this host has no {name}")
    node = getattr(__import__(f"comfy_extras.{module}", fromlist=[name]), name)
    if hasattr(node, "INPUT_TYPES") and not hasattr(node, "define_schema"):
        spec = node.INPUT_TYPES()["required"]
        values = {key: entry[1]["default"] for key, entry in spec.items() if "default" in entry[-1]}
        return getattr(node(), node.FUNCTION)(model, **{**values, **widgets})[0]
    sockets = node.define_schema().inputs
    values = {socket.id: _value(socket) for socket in sockets if socket.id != "model"}
    result = node.execute(model=model, **{**values, **widgets})
    return result[0] if isinstance(result, tuple) else result.args[0]


def _value(socket: Any) -> Any:
    """Return what a widget holds at first."""
    default = getattr(socket, "default", None)
    return socket.options[0] if default is None and getattr(socket, "options", None) else default


class Case(NamedTuple):
    """A patch, and what becomes of it: a word of the log, or of the refusal."""

    module: str
    name: str
    widgets: dict[str, Any]
    said: str = ""
    refused: str = ""


EDM = "nodes_model_advanced"
CASES = {
    "EasyCache": Case("nodes_easycache", "EasyCacheNode", {"start_percent": 0.0, "reuse_threshold": 3.0}, "EasyCache"),
    "LazyCache": Case("nodes_easycache", "LazyCacheNode", {"start_percent": 0.0, "reuse_threshold": 3.0}, "LazyCache"),
    "context windows": Case(
        "nodes_context_windows", "ContextWindowsManualNode",
        {"context_length": 2, "context_overlap": 1, "fuse_method": "pyramid", "context_schedule": "standard_static"},
        "context windows",
    ),
    "ToMe": Case("nodes_tomesd", "TomePatchModel", {"ratio": 0.5}, "ToMe"),
    "HyperTile": Case("nodes_hypertile", "HyperTile", {"tile_size": 32, "max_depth": 1}, "HyperTile"),
    "Deep Shrink to the end": Case(
        "nodes_model_downscale", "PatchModelAddDownscale", {"end_percent": 1.0}, refused="Deep Shrink"
    ),
    "Deep Shrink": Case("nodes_model_downscale", "PatchModelAddDownscale", {}),
    "continuous eps": Case(
        EDM, "ModelSamplingContinuousEDM", {"sampling": "eps", "sigma_max": 120.0, "sigma_min": 0.002},
        refused="noise levels",
    ),
    "continuous v": Case(
        EDM, "ModelSamplingContinuousEDM", {"sampling": "v_prediction", "sigma_max": 120.0, "sigma_min": 0.002},
        refused="noise levels",
    ),
    "lcm": Case(EDM, "ModelSamplingDiscrete", {"sampling": "lcm", "zsnr": False}, refused="1000 noise levels"),
    "zsnr": Case(EDM, "ModelSamplingDiscrete", {"sampling": "eps", "zsnr": True}),
    "rescaled guidance": Case(EDM, "RescaleCFG", {"multiplier": 0.7}),
    "PAG": Case("nodes_pag", "PerturbedAttentionGuidance", {}),
    "SAG": Case("nodes_sag", "SelfAttentionGuidance", {}),
    "FreeU": Case("nodes_freelunch", "FreeU", {}),
    "FreeU 2": Case("nodes_freelunch", "FreeU_V2", {}),
    "NAG": Case("nodes_nag", "NAGuidance", {}),
}  # fmt: skip


LATENTS = torch.randn((2, 4, 8, 16), generator=torch.Generator().manual_seed(1))


def calls(loaded: LoadedModel) -> list[Tensor]:
    """Return what each kind of call gives that any quality makes: queries, a prediction, and it modulated."""
    backbone = ComfyBackbone(*loaded)
    offset = torch.zeros(2, 4, 8)
    offset[:, 1:3, 2:6] = 50.0

    def job(denoiser: Denoiser) -> list[Tensor]:
        sigma = float(backbone.training_sigmas[119])
        kept = denoiser.predict(LATENTS, sigma, keep=ModulationConfig())
        assert kept.cache is not None
        modulated = denoiser.replay(LATENTS, sigma, kept.cache, torch.tensor([0, 1]), offset)
        return [*denoiser.queries(LATENTS, sigma, (6, 7, 8)), kept.denoised, modulated]

    return backbone.run(job, 5.0, (2, 4, 8, 16))


@pytest.fixture(scope="module")
def plain_calls(loaded: LoadedModel) -> list[Tensor]:
    """What the model gives as it is."""
    return calls(loaded)


@pytest.mark.parametrize("name", CASES)
def test_patch_is_honored_left_out_or_refused(
    loaded: LoadedModel, plain_calls: list[Tensor], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    case = CASES[name]
    model = patched(loaded.model, case.module, case.name, **case.widgets)
    wrappers = {kind: set(found) for kind, found in model.wrappers.items()}
    if case.refused:
        with pytest.raises(InputError, match=f"^`model` must .*{case.refused}"):
            calls(loaded._replace(model=model))
        return
    with caplog.at_level(logging.WARNING):
        found = calls(loaded._replace(model=model))
    assert all(bool(tensor.isfinite().all()) for tensor in found)
    assert case.said in caplog.text
    assert bool(case.said) == ("left out" in caplog.text)
    if case.said:
        assert all(map(torch.equal, found, plain_calls))
    assert {kind: set(found) for kind, found in model.wrappers.items()} == wrappers, "the user's model was changed"


@pytest.fixture(scope="module")
def demo() -> tuple[LoadedModel, Tensor]:
    """The bundled model and small frames of its clip."""
    *parts, frames = NODE["LoadDemoModel"].execute().args
    small = torch.nn.functional.interpolate(frames[:9:4].movedim(-1, 1), (64, 128), mode="area").movedim(1, -1)
    return LoadedModel(*parts), small


def labels_of(loaded: LoadedModel, frames: Tensor) -> Tensor:
    """Return the maps of the quickest quality."""
    widgets = {**defaults("SegmentVideo"), "num_clusters": 4, "quality": "draft"}
    maps: Tensor = NODE["SegmentVideo"].execute(**{**widgets, **wired(loaded), "frames": frames}).args[0].maps
    return maps


HONORED = ("zsnr", "FreeU 2", "NAG")
"""Patches that reach the queries; the others change what a sampler makes of the model's answers."""


def agreement(maps: Tensor, others: Tensor) -> float:
    """Return the part of the pixels that agree, whatever the ids."""
    counts = torch.zeros(4, 4)
    counts.index_put_((maps.flatten().long(), others.flatten().long()), torch.ones(maps.numel()), accumulate=True)
    rows, columns = linear_sum_assignment(counts.numpy(), maximize=True)
    return float(counts[rows, columns].sum()) / maps.numel()


def test_labels_agree_where_a_patch_is_honored(demo: tuple[LoadedModel, Tensor]) -> None:
    loaded, frames = demo
    expected, shares = labels_of(loaded, frames), {}
    for name in HONORED:
        case = CASES[name]
        if (EXTRAS / f"{case.module}.py").is_file():
            model = patched(loaded.model, case.module, case.name, **case.widgets)
            maps = labels_of(loaded._replace(model=model), frames)
            shares[name] = agreement(maps, expected)
    assert min(shares.values()) >= LEAST_AGREEMENT, shares


def test_a_wrapper_that_answers_for_the_model_is_refused(loaded: LoadedModel) -> None:
    answers: dict[Any, Tensor] = {}

    def remembering(executor: Any, x: Tensor, *rest: Any, **options: Any) -> Tensor:
        key = tuple(x.shape)
        answers[key] = answers[key] if key in answers else executor(x, *rest, **options)
        return answers[key]

    model = loaded.model.clone()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "other cache", remembering)
    with pytest.raises(InputError, match="must answer each call itself"):
        calls(loaded._replace(model=model))
