"""Wrong graphs are answered in words that a beginner understands, before long work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import comfy.ldm.flux.model
import comfy.model_sampling
import comfy.supported_models
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor
from vidseg.core.method.scene import choose_scene
from vidseg.core.types import Features, InputError
from vidseg.nodes import demo_model
from vidseg.nodes.demo_model import LoadedModel

from .graphs import call, wired

UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": (1, 2, 4, 4), "num_head_channels": 32, "use_spatial_transformer": True, "context_dim": 64,
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "use_linear_in_transformer": True,
    "device": "meta",
}  # fmt: skip


TEMPORAL = {"use_temporal_attention": True, "merge_strategy": "learned_with_images", "merge_factor": 0.0}


def foreign(kind: str, unet: Any) -> Any:
    """Return a MODEL of another family, without weights."""
    config = object.__new__(getattr(comfy.supported_models, kind))
    return SimpleNamespace(
        model=SimpleNamespace(diffusion_model=unet, model_config=config), get_model_object=lambda _name: None
    )


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "SDXL": (
        lambda: foreign("SDXL", UNetModel(**UNET, num_classes="sequential", adm_in_channels=16)),
        "got Stable Diffusion XL",
    ),
    "SV3D": (
        lambda: foreign(
            "SV3D_u",
            UNetModel(**{**UNET, "in_channels": 8}, **TEMPORAL, num_classes="sequential", adm_in_channels=256),
        ),
        r"got Stable Video 3D \(it is told 256 numbers instead of 768\)",
    ),
    "temporal": (lambda: foreign("SD15", UNetModel(**UNET, **TEMPORAL)), "takes 4 channels in"),
    "inpainting": (lambda: foreign("SD20", UNetModel(**{**UNET, "in_channels": 9})), "takes 9 channels in"),
    "flux": (lambda: foreign("Flux", torch.nn.Linear(1, 1)), "got Flux"),
    "shallow": (
        lambda: foreign(
            "SD15", UNetModel(**{**UNET, "num_res_blocks": [1, 1, 1, 1], "transformer_depth": [1, 1, 1, 0],
                                 "transformer_depth_output": [1, 1, 1, 1, 1, 1, 0, 0]})
        ),
        "8 decoder blocks",
    ),
    "no model": (lambda: "model.safetensors", "must be a MODEL"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("node_id", ["ExtractDiffusionFeatures", "SegmentVideo"])
def test_other_models_are_refused_with_what_is_supported(
    loaded: LoadedModel, frames: Tensor, node_id: str, name: str
) -> None:
    make, message = MODELS[name]
    inputs = {**wired(loaded), "model": make(), "frames": frames}
    with pytest.raises(InputError, match=message) as error:
        call(node_id, **inputs)
    assert "Load Demo Model" in str(error.value) or "Image Only Checkpoint Loader" in str(error.value)


def extraction(change: dict[str, Any]) -> Callable[[LoadedModel, Tensor, Features], Any]:
    return lambda loaded, frames, _: call("ExtractDiffusionFeatures", **{**wired(loaded), "frames": frames, **change})


FLUX_VAE = SimpleNamespace(first_stage_model=None, latent_channels=16, downscale_ratio=8)


def flow_model(loaded: LoadedModel) -> Any:
    class Flow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    model = loaded.model.clone()
    model.add_object_patch("model_sampling", Flow(model.model.model_config))
    return model


def other_features(features: Features) -> Features:
    return features._replace(latents=features.latents + 1)


def seeds_of(features: Features) -> Any:
    return call("KMeansInit", features=features, num_clusters=3)


def knn(features: Features) -> Any:
    return call("SceneContextKNN", features=features, anchor_labels=seeds_of(features))


def other_labels(features: Features) -> Any:
    return seeds_of(features)._replace(cluster_map=torch.zeros(2, 2).long())


def assigned(features: Features, mask: Tensor) -> Any:
    return call("AssignRegionsFromMask", anchor_labels=seeds_of(features), mask=mask)


def upsampled(loaded: LoadedModel, features: Features, labels: Any) -> Any:
    return call("MaskedModulationUpsample", **wired(loaded), features=features, labels=labels)


WRONG: dict[str, tuple[Callable[[LoadedModel, Tensor, Features], Any], str]] = {
    "flow sampling": (
        lambda m, f, _: call("ExtractDiffusionFeatures", **{**wired(m), "model": flow_model(m)}, frames=f),
        "must predict noise",
    ),
    "vae of flux": (extraction({"vae": FLUX_VAE}), "16 channels"),
    "prompt of another model": (extraction({"positive": [[torch.zeros(1, 77, 2048), {}]]}), "width 64 .* got 2048"),
    "prompt with controlnet": (extraction({"positive": [[torch.zeros(1, 77, 64), {"control": 1}]]}), "plain prompt"),
    "prompt for late steps": (extraction({"positive": [[torch.zeros(1, 77, 64), {"start_percent": 0.5}]]}), "start_pe"),
    "prompt for early steps": (
        extraction({"negative": [[torch.zeros(1, 77, 64), {"start_percent": 0.0, "end_percent": 0.2}]]}),
        "one with end_percent",
    ),
    "no prompt": (extraction({"negative": []}), "CLIP Text Encode"),
    "no frames": (extraction({"frames": torch.zeros(0, 64, 64, 3)}), "at least one image"),
    "broken frame": (extraction({"frames": torch.full((1, 64, 64, 3), torch.nan)}), "frame 0"),
    "a mask as frames": (extraction({"frames": torch.zeros(3, 64, 64)}), "batch of at least one image"),
    "blocks in words": (extraction({"blocks": "all"}), "numbers such as"),
    "blocks without attention": (extraction({"blocks": "0, 1"}), r"`blocks` must .*\[6, 8\], .* coarse grid"),
    "blocks of another grid": (extraction({"blocks": "3, 7"}), r"\[6, 8\], .* but got \(3, 7\)"),
    "matching on another grid": (extraction({"matching_block": 9}), r"`matching_block` must .*\[6, 8\], .* got 9"),
    "step beyond the last": (extraction({"feature_step": 25}), r"`feature_step` .* \[0, 24\], .* raise `steps`"),
    "start beyond the last": (extraction({"start_step": 25}), r"`start_step` must lie in \[0, 24\]"),
    "too few steps": (
        extraction({"steps": 20, "feature_step": 19}),
        r"`steps` must be at least 23 while `start_step` is -1, .* but got 20",
    ),
    "negative guidance": (extraction({"guidance_scale": -0.5}), "`guidance_scale` must lie in"),
    "more clusters than cells": (
        lambda _m, _f, x: call("KMeansInit", features=x.window(0, 1), num_clusters=255, window_length=1),
        "`num_clusters` must be at most .* 255",
    ),
    "anchor beyond the clip": (
        lambda _m, _f, x: call("KMeansInit", features=x, anchor_frame=3),
        r"`anchor_frame` must lie in \[0, 2\]",
    ),
    "more neighbors than cells": (
        lambda _m, _f, x: call("SceneContextKNN", features=x, anchor_labels=seeds_of(x), num_neighbors=999),
        r"`num_neighbors` must lie in \[1, ",
    ),
    "negative threshold": (
        lambda _m, _f, x: call("CorrespondenceRefine", labels=knn(x), spatial_threshold=-1),
        "`spatial_threshold` must lie in",
    ),
    "too many clusters in one box": (
        lambda m, f, _x: call("SegmentVideo", **wired(m), frames=f[:1], num_clusters=255, max_side=64),
        "`num_clusters` must be at most",
    ),
    "neighbors of a scene": (
        lambda _m, _f, x: call(
            "ApplyScene", features=x, scene=choose_scene(x, knn(x)), num_neighbors=1001
        ),
        r"`num_neighbors` must lie in \[1, 1000\]",
    ),
    "anchor_labels of another size": (
        lambda _m, _f, x: call("SceneContextKNN", features=x, anchor_labels=other_labels(x)),
        "`anchor_labels` must be of the same frames",
    ),
    "refinement of loaded labels": (
        lambda _m, _f, x: call("CorrespondenceRefine", labels=replace(knn(x), scan=None)),
        "right after Scene Context KNN",
    ),
    "upsampling twice": (
        lambda m, _f, x: upsampled(m, x, replace(knn(x), maps=knn(x).maps.to(torch.uint8))),
        "already in full resolution",
    ),
    "another number of frames": (lambda m, _f, x: upsampled(m, x.window(0, 2), knn(x)), "as many frames"),
    "features of another clip": (lambda m, _f, x: upsampled(m, other_features(x), knn(x)), "another clip"),
    "preview over other frames": (
        lambda _m, f, x: call("PreviewRegions", frames=f[:2], labels=knn(x)),
        "3 frames of 128x64 pixels",
    ),
    "mask of nothing": (lambda _m, _f, x: call("RegionsToMask", labels=knn(x)), "at least one region"),
    "mask of an unknown region": (lambda _m, _f, x: call("RegionsToMask", labels=knn(x), regions="cat"), "There are"),
    "names without colon": (lambda _m, _f, x: call("NameRegions", labels=knn(x), names="cat"), "and a colon"),
    "masks of all frames": (
        lambda _m, f, x: assigned(x, f[..., 0]),
        "one picture, that of frame 0",
    ),
    "empty mask": (
        lambda _m, _f, x: assigned(x, torch.zeros(1, 64, 64)),
        "empty or all the same",
    ),
    "a photo as label image": (
        lambda m, f, _x: call("SegmentVideo", **wired(m), frames=f, mask=torch.rand(1, 64, 64, 3)),
        "not a photo",
    ),
    "score of nothing": (lambda _m, _f, x: call("ScoreRegions", labels=replace(knn(x), scan=None)), "got neither"),
    "score with too few masks": (
        lambda _m, f, x: call("ScoreRegions", labels=knn(x), masks=f[:2, ..., 0]),
        "each of the 3 frames",
    ),
    "modulation after the last step": (
        lambda m, _f, x: call("MaskedModulationUpsample", **wired(m), features=x, labels=knn(x), modulation_step=25),
        r"`modulation_step` must lie in \[0, 24\]",
    ),
    "modulation with too few steps": (
        lambda m, _f, x: call("MaskedModulationUpsample", **wired(m), features=x, labels=knn(x), steps=20),
        "`steps` must be at least 23 while `modulation_step` is -1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_graph_gets_a_message(loaded: LoadedModel, frames: Tensor, features: Features, name: str) -> None:
    run, message = WRONG[name]
    with pytest.raises(InputError, match=message) as error:
        run(loaded, frames, features)
    assert str(error.value).startswith("`")
    assert str(error.value).endswith(".")


def test_missing_demo_model_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(demo_model, "DEMO_MODEL", tmp_path / "demo_model.safetensors")
    with pytest.raises(InputError, match="Install the node pack again"):
        call("LoadDemoModel")
