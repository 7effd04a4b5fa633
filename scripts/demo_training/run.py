"""One training run in a folder: autoencoder, then noise predictor, then the exported file."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from vidseg.core.checkpoints.describe import CONDITIONING_KEY
from vidseg.core.checkpoints.sizes import ModelSizes

from . import export, pictures
from .photos import Photo, PhotoBank, list_photos
from .session import Session
from .shapes import DEMO, build_unet, build_vae, prompt_table
from .trainer import NUM_REPORTS, StageSettings, Trainer
from .unet_stage import (
    BUCKETS,
    Bucket,
    UNetBatches,
    UNetObjective,
    encode,
    encode_bucket,
    latents_of,
    validation_losses,
)
from .vae_stage import CROP_SCALES, VAEBatches, VAEObjective, normalize_latents, validation_psnr

STREET_BOOST = {"camvid_0006R0": 2.0}
"""Street scenes are few among the photos, so they are drawn twice as often."""
SNAPSHOT_REPORTS = (1, 2, 6, 12, NUM_REPORTS)
"""Reports at which the UNet is kept: after 5, 10, 30, 60 and 100 % of the steps."""
CURVE_REPORTS = 2
"""The curve is drawn at every second report."""
NUM_SHOWN = 6
NUM_JUDGED = 48
"""Held-out photos that reconstructions are judged on while training."""
NUM_NORMALIZED = 2048
"""Crops that the mean and deviation of the latents are measured on."""


@dataclass(frozen=True)
class RunSettings:
    """Everything that a run is made from."""

    photos: Path
    folder: Path
    vae: StageSettings
    unet: StageSettings
    device: torch.device
    sizes: ModelSizes = DEMO
    seed: int = 0
    vae_batch: int = 40
    unet_batch: int = 256
    crop: tuple[int, int] = (192, 256)
    buckets: tuple[Bucket, ...] = BUCKETS
    start_from: Path | None = None
    """Weights that the UNet starts from, when a run was lost."""

    @property
    def precision(self) -> torch.dtype:
        """Number type of matrix products."""
        return torch.bfloat16 if self.unet.bf16 else torch.float32


class DemoRun:
    """Stages of one run; each goes on from its checkpoint."""

    def __init__(self, settings: RunSettings, session: Session) -> None:
        self._settings, self._session = settings, session
        photos = list_photos(settings.photos)
        self._training = [photo for photo in photos if not photo.held_out]
        self._held_out = [photo for photo in photos if photo.held_out]
        self._table = prompt_table(settings.sizes.unet)

    @cached_property
    def _bank(self) -> PhotoBank:
        return self._load(self._training)

    @cached_property
    def _validation(self) -> Tensor:
        """Held-out photos, (B,3,H,W) in [-1,1]."""
        bank, size = self._load(self._held_out), self._settings.buckets[-1].pixels
        return torch.cat([bank.center_crop(index, size) for index in range(len(self._held_out))])

    @cached_property
    def _shown(self) -> Tensor:
        """Held-out photos that may be redistributed, (B,3,H,W) in [-1,1]."""
        free = [index for index, photo in enumerate(self._held_out) if photo.redistributable]
        return self._validation[(free or list(range(len(self._held_out))))[:NUM_SHOWN]]

    def _load(self, photos: Sequence[Photo]) -> PhotoBank:
        return PhotoBank(self._settings.photos, photos, self._settings.device, STREET_BOOST)

    def _prepared(self, network: nn.Module) -> nn.Module:
        return network.to(self._settings.device, memory_format=torch.channels_last)

    def train_vae(self) -> bool:
        """Train the autoencoder, give its latents SD's scale and write it; return whether it is done."""
        settings, path = self._settings, self._settings.folder / "vae.safetensors"
        if path.exists():
            return True
        vae = self._prepared(build_vae(settings.sizes.vae, settings.seed))
        trainer = Trainer(vae, VAEObjective(vae), settings.vae, settings.folder)
        self._bank.require(settings.crop, CROP_SCALES[0])
        batches = VAEBatches(self._bank, settings.crop, settings.vae_batch, settings.seed)
        if not trainer.run(batches, self._report_vae, self._session):
            return False
        normalize_latents(trainer.average, self._bank, settings.crop, NUM_NORMALIZED, settings.seed)
        weights = export.original_vae_weights(trainer.average, settings.sizes.vae)
        export.save_weights(path, weights, settings.sizes, {"vae": _summary(trainer)})
        return True

    def _report_vae(self, trainer: Trainer) -> dict[str, Any]:
        figures = {"validation_psnr": validation_psnr(trainer.average, self._validation[:NUM_JUDGED])}
        print(f"vae: step {trainer.step} held-out PSNR {figures['validation_psnr']:.2f} dB", flush=True)
        folder = self._settings.folder / "pictures"
        if trainer.history and _report_number(trainer) % CURVE_REPORTS == 0:
            pictures.curves(folder / "vae_curve.png", trainer.history, "Autoencoder")
        if _report_number(trainer) in SNAPSHOT_REPORTS:
            pictures.reconstructions(folder / "reconstructions.png", trainer.average, self._shown)
        return figures

    def train_unet(self) -> bool:
        """Train the noise predictor on latents encoded once; return whether it is done."""
        settings = self._settings
        for bucket in settings.buckets:
            self._bank.require(bucket.pixels, bucket.scales[0])
        vae = self.load_vae()
        latents = latents_of(
            settings.folder / "latents.pt", settings.buckets,
            lambda bucket: encode_bucket(vae, self._bank, bucket, settings.seed, settings.precision), settings.device,
        )  # fmt: skip
        unet = self._prepared(build_unet(settings.sizes.unet, settings.seed))
        if settings.start_from:
            export.load_unet(unet, export.read_weights(settings.start_from)[0], settings.sizes.unet)
        trainer = Trainer(unet, UNetObjective(unet), settings.unet, settings.folder)
        batches = UNetBatches(latents, settings.buckets, self._table, settings.unet_batch, settings.seed)
        noise = torch.zeros(len(self._validation), 4, *settings.buckets[-1].cells, device=settings.device)
        held_out = encode(vae, self._validation, noise, settings.precision)
        done = trainer.run(batches, lambda state: self._report_unet(state, vae, held_out), self._session)
        self._keep(trainer, "unet.safetensors")
        return done

    def _report_unet(self, trainer: Trainer, vae: AutoencoderKL, held_out: Tensor) -> dict[str, Any]:
        settings, folder = self._settings, self._settings.folder / "pictures"
        with torch.autocast(settings.device.type, torch.bfloat16, enabled=settings.unet.bf16):
            figures = validation_losses(trainer.average, held_out, self._table, settings.seed)
        shown = " ".join(f"{name.removeprefix('validation_')} {value:.4f}" for name, value in figures.items())
        print(f"unet: step {trainer.step} held-out loss: {shown}", flush=True)
        if trainer.history and _report_number(trainer) % CURVE_REPORTS == 0:
            pictures.curves(folder / "unet_curve.png", trainer.history, "Noise predictor")
        if _report_number(trainer) in SNAPSHOT_REPORTS:
            self._keep(trainer, f"unet_step_{trainer.step:06}.safetensors")
            pictures.samples(folder / "samples.png", trainer.average, vae, self._table, settings.buckets[-1].cells)
            pictures.denoisings(folder / "denoisings.png", trainer.average, vae, self._table, self._shown)
        return figures

    def _keep(self, trainer: Trainer, name: str) -> None:
        sizes = self._settings.sizes
        weights = export.original_unet_weights(trainer.average, sizes.unet)
        export.save_weights(self._settings.folder / name, weights, sizes, {"unet": _summary(trainer)})

    def load_vae(self) -> AutoencoderKL:
        """Return the trained autoencoder."""
        weights, _ = export.read_weights(self._settings.folder / "vae.safetensors")
        vae = build_vae(self._settings.sizes.vae, self._settings.seed)
        export.load_vae(vae, weights, self._settings.sizes.vae)
        return self._prepared(vae).eval().requires_grad_(False)

    def provenance(self) -> dict[str, Any]:
        """Return where the weights come from."""
        settings = self._settings
        folders = sorted({photo.name.split("/")[0] for photo in (*self._training, *self._held_out)})
        return {
            "data": folders,
            "photos": len(self._training),
            "held_out_photos": len(self._held_out),
            "seed": settings.seed,
            "batch": {"vae": settings.vae_batch, "unet": settings.unet_batch},
            "crop": list(settings.crop),
            "buckets": [[bucket.height, bucket.width, bucket.count] for bucket in settings.buckets],
            "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        }


def join(vae: Path, unet: Path, target: Path, provenance: dict[str, Any]) -> None:
    """Write one file from the weights of both networks, the prompt table and the provenance."""
    vae_weights, vae_header = export.read_weights(vae)
    unet_weights, unet_header = export.read_weights(unet)
    sizes = export.sizes_of(unet_header)
    for header in (vae_header, unet_header):
        provenance = {**json.loads(header["vidseg.provenance"]), **provenance}
    table = {CONDITIONING_KEY: prompt_table(sizes.unet).half()}
    export.save_weights(target, {**vae_weights, **unet_weights, **table}, sizes, provenance)


def _report_number(trainer: Trainer) -> int:
    if trainer.total is None or trainer.finished:
        return NUM_REPORTS
    return trainer.step // max(1, trainer.total // NUM_REPORTS)


def _summary(trainer: Trainer) -> dict[str, Any]:
    last = trainer.history[-1] if trainer.history else {}
    return {
        "steps": trainer.step,
        "planned_steps": trainer.total,
        "minutes": round(trainer.elapsed / 60, 2),
        "peak_learning_rate": trainer.settings.peak_rate,
        "losses": {name: round(value, 5) for name, value in last.items()},
        "hardware": _hardware(trainer.device),
    }


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {torch.get_num_threads()} threads"
