"""Pictures of the model card, drawn from the finished file."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from vidseg.core.checkpoints.describe import CONDITIONING_KEY

from . import export, pictures
from .photos import PhotoBank, list_photos
from .shapes import build_unet, build_vae

SHOWN_SIZE = (192, 288)
"""Size in pixels of the photos shown."""
NUM_SHOWN = 5
TITLES = {"vae": "Autoencoder", "unet": "Noise predictor"}


@torch.no_grad()
def draw_card(photos: Path, run: Path, model: Path, folder: Path) -> None:
    """Write curves, reconstructions, denoisings, samples and the credits of the photos shown.

    All photos shown were held out from training and may be redistributed.
    """
    for stage, title in TITLES.items():
        history = json.loads((run / f"{stage}_history.json").read_text(encoding="utf-8"))["history"]
        pictures.curves(folder / f"{stage}_curve.png", history, title)
    weights, header = export.read_weights(model)
    sizes = export.sizes_of(header)
    unet, vae = build_unet(sizes.unet, 0), build_vae(sizes.vae, 0)
    export.load_unet(unet, weights, sizes.unet)
    export.load_vae(vae, weights, sizes.vae)
    for network in (unet, vae):
        network.eval().to(memory_format=torch.channels_last)
    shown = [photo for photo in list_photos(photos) if photo.held_out and photo.redistributable][:NUM_SHOWN]
    bank = PhotoBank(photos, shown, torch.device("cpu"), {})
    frames = torch.cat([bank.center_crop(index, SHOWN_SIZE) for index in range(len(shown))])
    table = weights[CONDITIONING_KEY].float()
    pictures.reconstructions(folder / "reconstructions.jpg", vae, frames)
    pictures.denoisings(folder / "denoisings.jpg", unet, vae, table, frames)
    credit = "".join(f"{number}. {photo.license}\n" for number, photo in enumerate(shown, start=1))
    (folder / "CREDITS.txt").write_text("Photos from left to right:\n" + credit, encoding="utf-8")
    pictures.samples(folder / "samples.jpg", unet, vae, table, (32, 40))
