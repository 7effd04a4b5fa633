"""Run the paper's published code on a clip, and ours beside it on the same weights and frames; one scorer for all.

Usage: python benchmarks/paper_code.py CHECKOUT CLIP --model FILE --out DIR [--max-frames 14] [--max-side 256]

CHECKOUT is a checkout of github.com/QianWangX/VidSeg_diffusion (tried at 3e96366), of which nothing is copied. CLIP
holds ``frames/`` and ``masks/``. Its first frames are written to DIR in a size that all three take as it is; then come
the published `sample()` with the options of its README, our ``reference`` preset, which repeats it, and our default.
One row each is printed and written to DIR/rows.md. Needs einops, opencv-python-headless, matplotlib, torchvision, tqdm.

The published code wants SD 2.1's full size and open_clip; here its own UNet, autoencoder, sampler and denoiser are
built in the sizes that the model file states, and the embedding of the empty prompt is the one we use. Its packages
for training, watermarks and content filters need not be installed. On the CPU its autocast to bfloat16 is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import inspect
import os
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from counting import clock
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from vidseg.core.backbones.diffusers.load import load_diffusers
from vidseg.core.checkpoints.describe import describe_model
from vidseg.core.checkpoints.sizes import UNET_PREFIX, VAE_PREFIX
from vidseg.core.config.frame import FrameConfig
from vidseg.core.config.settings import Settings
from vidseg.core.evaluation.bench.dataset import BenchClip, ClipFrames
from vidseg.core.evaluation.bench.layouts import open_folders
from vidseg.core.evaluation.bench.methods import Job, list_methods
from vidseg.core.evaluation.bench.run import run_job
from vidseg.core.evaluation.bench.tables import Table, make_main_table
from vidseg.core.evaluation.bench.tally import Tally, compute_scores, tally_clip
from vidseg.core.files.label_images import make_label_image, read_label_values
from vidseg.core.method.frames import fit_size

UNUSED = frozenset(
    {"pytorch_lightning", "omegaconf", "open_clip", "kornia", "xformers", "webdataset", "fsspec", "torchdata", "fire"}
    | {"imwatermark", "clip", "lightning", "wandb", "streamlit", "kmeans_pytorch", "rembg", "taming"}
)
"""Packages that the published modules import and this path does not use; stood in for where they are not installed."""
EXPERIMENT = "clip"
"""Name of the clip's folder in the published code's output."""


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives empty modules for packages of `UNUSED`. Put it last, so that installed ones win."""

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """Claim a module of a package that is not there."""
        package = name.split(".", maxsplit=1)[0]
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if package in UNUSED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:  # noqa: ANN401, a module of anything
        """Return a module that has every name."""
        module = MagicMock(name=spec.name)
        module.__path__ = []
        module.__spec__ = spec
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


class Conditioner:
    """Gives the embedding of the empty prompt, and zeros for the unconditional half, as the published call asks."""

    def __init__(self, positive: Tensor) -> None:
        self._positive = positive
        self.embedders = [types.SimpleNamespace(input_key="txt")]

    def to(self, _device: str) -> Conditioner:
        """Stay."""
        return self

    def get_unconditional_conditioning(
        self,
        batch: dict[str, Any],
        **_: Any,  # noqa: ANN401, the published signature
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return both halves, ``(T,77,C)`` each."""
        positive = self._positive.expand(len(batch["txt"]), -1, -1)
        return {"crossattn": positive}, {"crossattn": torch.zeros_like(positive)}


class Engine:
    """The published UNet, autoencoder, sampler and denoiser with the weights of our model file."""

    def __init__(self, path: Path, device: str) -> None:
        sizes = describe_model(path).sizes
        weights = load_file(path)
        part = importlib.import_module
        unet = part("sgm.modules.diffusionmodules.openaimodel").UNetModel(
            **{name: value for name, value in vars(sizes.unet).items() if value is not None and name != "num_heads"}
        )
        _load(unet, weights, UNET_PREFIX)
        self.model = part("sgm.modules.diffusionmodules.wrappers").OpenAIWrapper(unet).to(device).eval()
        blocks = part("sgm.modules.diffusionmodules.model")
        options = {**vars(sizes.vae), "attn_resolutions": []}
        self.encoder, self.decoder = blocks.Encoder(**options), blocks.Decoder(**options)
        self.quant_conv, self.post_quant_conv = torch.nn.Conv2d(8, 8, 1), torch.nn.Conv2d(4, 4, 1)
        for name in ("encoder", "decoder", "quant_conv", "post_quant_conv"):
            module = getattr(self, name)
            _load(module, weights, f"{VAE_PREFIX}{name}.")
            module.to(device).eval()
        self._scale, self._posterior = sizes.scale_factor, part("sgm.modules.distributions.distributions")
        schedule = {"target": "sgm.modules.diffusionmodules.discretizer.LegacyDDPMDiscretization"}
        self.denoiser = part("sgm.modules.diffusionmodules.denoiser").DiscreteDenoiser(
            scaling_config={"target": "sgm.modules.diffusionmodules.denoiser_scaling.EpsScaling"},
            num_idx=1000,
            discretization_config=schedule,
        )
        self.denoiser.to(device)
        self.sampler = part("sgm.modules.diffusionmodules.sampling").EulerEDMSampler(
            discretization_config=schedule,
            guider_config={"target": "sgm.modules.diffusionmodules.guiders.VanillaCFG", "params": {"scale": 5}},
            num_steps=25,
            s_churn=0,
            s_tmin=0,
            s_tmax=999,
            s_noise=1,
            device=device,
        )

    @torch.no_grad()
    def encode_first_stage(self, frames: Tensor) -> Tensor:
        """Return scaled latents drawn from the posterior."""
        moments = self.quant_conv(self.encoder(frames))
        return self._scale * self._posterior.DiagonalGaussianDistribution(moments).sample()

    @torch.no_grad()
    def decode_first_stage(self, latents: Tensor) -> Tensor:
        """Return frames in [-1, 1]."""
        return self.decoder(self.post_quant_conv(latents / self._scale))


def _load(module: torch.nn.Module, weights: dict[str, Tensor], prefix: str) -> None:
    """Fill a module with the tensors below a prefix; all must fit."""
    module.load_state_dict(
        {name[len(prefix) :]: value.float() for name, value in weights.items() if name.startswith(prefix)}
    )


def published_modules(checkout: Path, device: str) -> types.ModuleType:
    """Import the published pipeline, its defaults of device set to ours."""
    sys.path.insert(0, str(checkout))
    sys.meta_path.append(StandIns())
    pipeline = importlib.import_module("scripts.sampling.sd_pipeline_vspw")
    for name in ("feature_extraction", "process_output"):
        module = importlib.import_module(f"scripts.sampling.{name}")
        for function in vars(module).values():
            if inspect.isfunction(function) and function.__defaults__:
                function.__defaults__ = tuple(device if value == "cuda" else value for value in function.__defaults__)
    return pipeline


@contextlib.contextmanager
def in_folder(path: Path) -> Iterator[None]:
    """Run in a folder: the published code writes beside itself."""
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def run_published(arguments: argparse.Namespace, clip: BenchClip, positive: Tensor) -> tuple[Tensor, float]:
    """Run the published code on a prepared clip; return label maps ``(T,H,W)`` uint8, and seconds without loading."""
    work = arguments.out / "published"
    origin, masks = work / "data" / EXPERIMENT / "origin", work / "data" / EXPERIMENT / "mask"
    scripts = arguments.checkout / "scripts"  # the published code reads its palette beside where it is started
    links = ((origin, clip.frames[0].parent), (masks, clip.masks[0].parent), (work / "scripts", scripts))
    for folder, source in links:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.exists():
            folder.symlink_to(source.resolve(), target_is_directory=True)
    pipeline: Any = published_modules(arguments.checkout.resolve(), arguments.device)
    engine = Engine(arguments.model.resolve(), arguments.device)
    engine.conditioner = Conditioner(positive.float().to(arguments.device))  # type: ignore[attr-defined]
    pipeline.model, pipeline.exp_name = engine, EXPERIMENT
    if arguments.device == "cpu":
        torch.autocast = lambda *_, **__: contextlib.nullcontext()  # type: ignore[assignment, misc]
    start = clock()
    with in_folder(work):
        pipeline.sample(
            input_video_path=str(origin.relative_to(work)),
            seed=1,
            num_frames=arguments.window,
            num_steps=25,
            device=arguments.device,
            modulate_lambda_start=50.0,
            modulate_lambda_end=50.0,
            num_masks=arguments.clusters,
            is_injected_features=True,
            is_latent_blending=True,
            is_refine_mask=True,
            is_aggre_attn=True,
            feature_folder="features",
        )
    seconds = clock() - start
    maps = sorted(work.glob(f"features/{EXPERIMENT}/segmentation_map_raw_f_0.7/000000_l_50.0/*.png"))
    return torch.stack([read_label_values(path, "published") for path in maps]), seconds


def prepared(clip: BenchClip, out: Path, max_side: int) -> BenchClip:
    """Write the clip in a size that all take as it is; return what was written."""
    size = fit_size(ClipFrames(clip).frame_size, Settings(frame=FrameConfig(max_side), variant="published"))
    small = clip._replace(size=size)
    frames, masks = out / "clip" / "frames", out / "clip" / "masks"
    if out.resolve() in clip.frames[0].resolve().parents:
        raise SystemExit("CLIP must not lie in --out, whose earlier results are removed. Choose another folder.")
    for earlier in ("clip", "published"):
        shutil.rmtree(out / earlier, ignore_errors=True)
    for folder in (frames, masks):
        folder.mkdir(parents=True)
    for number in range(len(clip.frames)):
        pixels = (ClipFrames(small).read(number, number + 1)[0] * 255).round().to(torch.uint8)
        Image.fromarray(pixels.numpy()).save(frames / f"{number:05d}.png")
        if number in clip.masks:
            make_label_image(small.read_mask(number)).save(masks / f"{number:05d}.png")
    (written,) = open_folders(out / "clip").clips
    return written._replace(classes=clip.classes, fps=clip.fps, name=clip.name)


def main() -> None:
    """Run all three and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-frames", type=int, default=14)
    parser.add_argument("--max-side", type=int, default=256)
    parser.add_argument("--window", type=int, default=14)
    parser.add_argument("--clusters", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    dataset = open_folders(arguments.clip).shorten(arguments.max_frames)
    clip = prepared(dataset.clips[0], arguments.out, arguments.max_side)
    backbone = load_diffusers(arguments.model, device=arguments.device)
    tallies: dict[str, Tally] = {}
    common = (f"cluster.num_clusters={arguments.clusters}", f"window.length={arguments.window}", "frame.max_side=0")
    for method in list_methods(["default", "reference"], ablation=False, baselines=False):
        result = run_job(Job(method, clip, method.settings(dataset, common)), backbone)
        tallies[method.title] = Tally.from_json(result.record["tally"])
    numbers = sorted(clip.masks)
    published, _ = run_published(arguments, clip, backbone._conditioning[1:])
    truth = torch.stack([clip.read_mask(number) for number in numbers])
    rows = {"the paper's code": tally_clip(published[numbers], truth, numbers, clip.classes, clip.fps), **tallies}
    table: Table = make_main_table(
        f"{clip.name}: {len(clip.frames)} frames of {truth.shape[2]}x{truth.shape[1]}, {arguments.model.name}",
        "folders",
        {name: compute_scores([tally]) for name, tally in rows.items()},
    )
    (arguments.out / "rows.md").write_text(table.to_markdown(), encoding="utf-8")
    print(table.to_markdown())


if __name__ == "__main__":
    main()
