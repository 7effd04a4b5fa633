"""Train the small model that ships with the pack, on a folder of photos.

    python scripts/train_demo_model.py timing --photos PHOTOS --work RUN
    python scripts/train_demo_model.py train --photos PHOTOS --work RUN --minutes-vae 4 --minutes-unet 15
    python scripts/train_demo_model.py export --photos PHOTOS --work RUN --output assets/demo_model.safetensors
    python scripts/train_demo_model.py pictures --photos PHOTOS --work RUN --model FILE --output assets/model_card
    python scripts/train_demo_model.py check-vae --model assets/demo_model.safetensors --frames CLIP/frames ...

Each stage plans its steps from the measured step rate, saves a checkpoint every two minutes and on SIGTERM, and goes on
from it when the same command is run again. With `--steps-vae` and `--steps-unet` in place of minutes a run on one
machine is repeatable by its seed.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from demo_training import export
from demo_training.card import draw_card
from demo_training.run import DemoRun, RunSettings, join
from demo_training.session import Session, in_words
from demo_training.shapes import DEMO, build_vae
from demo_training.timing import time_unet, time_vae
from demo_training.trainer import StageSettings
from demo_training.unet_stage import Bucket
from demo_training.vae_stage import psnr, reconstruct
from PIL import Image

CHECKED_WIDTH = 448
"""Width in pixels at which reconstructions of clips are checked."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("timing", "train", "export", "pictures", "check-vae"))
    parser.add_argument("--photos", type=Path, help="folder of .jpg photos, with a manifest.csv of licenses")
    parser.add_argument("--work", type=Path, help="folder of checkpoints and pictures")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes-vae", type=float, default=4.0)
    parser.add_argument("--minutes-unet", type=float, default=15.0)
    parser.add_argument("--steps-vae", type=int, default=0, help="exact number of steps in place of minutes")
    parser.add_argument("--steps-unet", type=int, default=0)
    parser.add_argument(
        "--session-minutes", type=float, default=0.0, help="save and stop after this; run again to go on"
    )
    parser.add_argument("--replan", action="store_true", help="plan the steps left anew after a resume")
    parser.add_argument("--batch-vae", type=int, default=40)
    parser.add_argument("--batch-unet", type=int, default=256)
    parser.add_argument("--rate-vae", type=float, default=8e-4)
    parser.add_argument("--rate-unet", type=float, default=8e-4)
    parser.add_argument("--model-channels", type=int, default=DEMO.unet.model_channels)
    parser.add_argument(
        "--compile", action="store_true", help="compile both networks (minutes of waiting, then faster)"
    )
    parser.add_argument("--fp32", action="store_true", help="no bf16 on a GPU; a CPU always uses fp32")
    parser.add_argument("--start-from", type=Path, help="weights that the UNet starts from")
    parser.add_argument("--stages", nargs="+", choices=("vae", "unet"), default=("vae", "unet"), help="timing: which")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="tiny crops and few latents, to try the script")
    parser.add_argument("--unet", type=Path, help="export: the UNet's weights, when not the last ones")
    parser.add_argument("--output", type=Path, help="export: the file to write; pictures: the folder")
    parser.add_argument("--model", type=Path, help="pictures, check-vae: the file to look at")
    parser.add_argument("--frames", type=Path, nargs="+", help="check-vae: folders of frames")
    return parser.parse_args(arguments)


def settings_of(given: argparse.Namespace) -> RunSettings:
    """Return the settings of a run."""
    device = torch.device(given.device)
    common = {
        "seed": given.seed, "compiled": given.compile, "replan": given.replan,
        "bf16": device.type == "cuda" and not given.fp32,
    }  # fmt: skip
    vae = StageSettings(
        "vae", given.steps_vae, given.minutes_vae, given.rate_vae, warmup_steps=200, ema_decay=0.999, **common
    )
    unet = StageSettings(
        "unet", given.steps_unet, given.minutes_unet, given.rate_unet, warmup_steps=600, ema_decay=0.9995, **common
    )
    settings = RunSettings(
        given.photos, given.work, vae, unet, device,
        sizes=replace(DEMO, unet=replace(DEMO.unet, model_channels=given.model_channels)), seed=given.seed,
        vae_batch=given.batch_vae, unet_batch=given.batch_unet, start_from=given.start_from,
    )  # fmt: skip
    if not given.small:
        return settings
    small = {"crop": (64, 64), "buckets": (Bucket(8, 8, 16, 0.5), Bucket(8, 16, 16, 0.5))}
    return RunSettings(**{**vars(settings), **small})


def timing(settings: RunSettings, stages: list[str]) -> None:
    """Print step rates and what they mean for a plan; compiled code is cached for a run that follows."""
    if "vae" in stages:
        rate = time_vae(settings)
        print(f"vae: {rate:.3f} steps/s; {settings.vae.minutes} min hold {int(rate * settings.vae.minutes * 60)} steps")
    if "unet" not in stages:
        return
    rates = time_unet(settings)
    print("unet: " + ", ".join(f"{size}: {value:.3f} steps/s" for size, value in rates.items()))
    mean = 1 / sum(bucket.share / value for bucket, value in zip(settings.buckets, rates.values(), strict=True))
    print(f"unet: {mean:.3f} steps/s; {settings.unet.minutes} min hold {int(mean * settings.unet.minutes * 60)} steps")


def train(settings: RunSettings, session: Session) -> None:
    """Train what is not trained yet."""
    run = DemoRun(settings, session)
    done = run.train_vae() and run.train_unet()
    print("done" if done else "stopped and saved; run the same command again to go on", flush=True)


def check_vae(model: Path, folders: list[Path]) -> None:
    """Print the mean PSNR of reconstructions of each folder's frames, scaled to `CHECKED_WIDTH`."""
    weights, header = export.read_weights(model)
    sizes = export.sizes_of(header).vae
    vae = build_vae(sizes, 0).eval().to(memory_format=torch.channels_last)
    export.load_vae(vae, weights, sizes)
    for folder in folders:
        values = []
        for path in sorted(folder.glob("*.jpg")) + sorted(folder.glob("*.png")):
            with Image.open(path) as image:
                height = round(CHECKED_WIDTH * image.height / image.width / 64) * 64
                scaled = image.convert("RGB").resize((CHECKED_WIDTH, height), Image.Resampling.BICUBIC)
            frame = torch.from_numpy(np.asarray(scaled).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
            values.append(float(psnr(reconstruct(vae, frame), frame)))
        print(
            f"{folder}: {np.mean(values):.2f} dB mean, {min(values):.2f} dB worst of {len(values)} frames", flush=True
        )


def main(arguments: list[str] | None = None) -> None:
    """Run one command."""
    given = parse(arguments)
    torch.set_float32_matmul_precision("high")
    if given.command == "check-vae":
        check_vae(given.model, given.frames)
        return
    settings = settings_of(given)
    session = Session(given.session_minutes)
    if given.command == "timing":
        timing(settings, given.stages)
    elif given.command == "pictures":
        draw_card(settings.photos, settings.folder, given.model, given.output)
    elif given.command == "train":
        session.stop_on_signals()
        print(f"plan: autoencoder {in_words(given.minutes_vae * 60)}, UNet {in_words(given.minutes_unet * 60)}")
        train(settings, session)
    else:
        unet = given.unet or given.work / "unet.safetensors"
        join(given.work / "vae.safetensors", unet, given.output, DemoRun(settings, session).provenance())


if __name__ == "__main__":
    main()
