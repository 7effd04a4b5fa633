"""Peak memory and time of `vidseg segment` with an SDXL of its true size: random weights in half precision.

Usage: python benchmarks/full_size_xl.py [--frames 2] [--size 576x1024] [--device cpu] [--dtype fp16] [--keep FILE]

The file of 5.3 GB is made on the spot (2.6 billion parameters of the UNet, and the autoencoder) and removed at the end
unless it is kept. Labels mean nothing; memory and time are those of real weights.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from vidseg.core.checkpoints.describe import describe_model
from vidseg.core.checkpoints.sizes import XL_SCALE_FACTOR, ModelSizes, UNetSizes, VAESizes

ROOT = Path(__file__).parents[1]
FULL_XL = ModelSizes(
    UNetSizes(
        model_channels=320, channel_mult=(1, 2, 4), attention_resolutions=(4, 2), num_head_channels=64,
        context_dim=2048, transformer_depth=(0, 2, 10), adm_in_channels=2816,
    ),
    VAESizes(),
    XL_SCALE_FACTOR,
)  # fmt: skip
"""Sizes of SDXL base."""
GAIN = 0.6
"""Standard deviation of a layer's output over that of its input, as in the tests' narrow models."""
BLOCK = 1 << 22
"""Random values that are drawn once, and repeated: drawing 2.6 billion would take minutes."""


def write_model(path: Path) -> None:
    """Write the file tensor by tensor, in little memory."""
    sys.path.insert(0, str(ROOT))
    from tests.narrow_checkpoint import list_shapes  # noqa: PLC0415, the tests are no package that is installed

    shapes = dict(list_shapes(FULL_XL))
    entries, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + 2 * math.prod(shape)
        entries[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries).encode()
    drawn = np.random.Generator(np.random.PCG64(1)).standard_normal(BLOCK, np.float32)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name, shape in shapes.items():
            count = math.prod(shape)
            if len(shape) == 1:
                values = np.full(count, float(name.endswith("weight")), np.float16)
            else:
                scaled = (drawn * (GAIN / math.prod(shape[1:]) ** 0.5)).astype(np.float16)
                values = np.resize(np.roll(scaled, len(name)), count)
            file.write(values.tobytes())


def main() -> None:
    """Make model and frames, run the command in a process of its own, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--size", default="576x1024")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp16")
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    height, width = map(int, arguments.size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = arguments.keep or folder / "xl.safetensors"
        if not model.exists():
            write_model(model)
        sys.stdout.write(f"parameters: {describe_model(model).num_parameters}\n")
        (folder / "clip").mkdir()
        for number in range(arguments.frames):
            picture = torch.rand(9, 16, 3, generator=torch.Generator().manual_seed(number)).movedim(-1, 0)[None]
            picture = torch.nn.functional.interpolate(picture, (height, width), mode="bicubic").clamp(0, 1)
            pixels = (picture[0].movedim(0, -1) * 255).byte().numpy()
            Image.fromarray(pixels).save(folder / "clip" / f"{number:05}.png")
        command = [
            sys.executable, "-m", "vidseg", "segment", folder / "clip", "--out", folder / "out", "--model", model,
            "--quality", "fast", "--device", arguments.device, "--dtype", arguments.dtype,
        ]  # fmt: skip
        begin = time.perf_counter()
        done = subprocess.Popen([str(word) for word in command])  # noqa: S603
        _, status, used = os.wait4(done.pid, 0)
        if status:
            sys.exit(f"the command failed: {status}")
        seconds, peak = time.perf_counter() - begin, used.ru_maxrss * 1024 / 1e9
        of_processor = used.ru_utime + used.ru_stime
        told = f"{peak:.1f} GB, {seconds:.0f} s, {of_processor:.0f} s of the processor"
        sys.stdout.write(f"{arguments.frames} frames of {width}x{height}: {told}\n")


if __name__ == "__main__":
    main()
