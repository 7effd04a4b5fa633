"""Run the node `SegmentVideo` once in this process, on a video file, with the bundled model on the CPU.

Usage: python benchmarks/in_host.py COMFYUI VIDEO MAX_SIDE, with the Python of that ComfyUI; scaling.py measures it.
"""

from __future__ import annotations

import importlib
import sys

import torch


def main() -> None:
    """Import the host, then load the model and segment the video at quality ``draft``."""
    host, video, side = sys.argv[1:]
    sys.path.insert(0, host)
    importlib.import_module("comfy.options")
    importlib.import_module("comfy.cli_args").args.cpu = True
    whole = importlib.import_module("vidseg.nodes.whole")
    source = importlib.import_module("comfy_api.input_impl").VideoFromFile(video)
    sockets = whole.SegmentVideo.define_schema().inputs
    widgets = {socket.id: socket.default for socket in sockets if getattr(socket, "default", None) is not None}
    options = {"video": source, "quality": "draft", "max_side": int(side)}
    with torch.inference_mode():
        *model, _frames = whole.LoadDemoModel.execute().args
        wired = dict(zip(("model", "vae", "positive", "negative"), model, strict=True))
        whole.SegmentVideo.execute(**{**widgets, **wired, **options})


if __name__ == "__main__":
    main()
