"""A video file has the same colors in the host's own nodes, in ours, and in the command."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from comfy_api.input_impl import VideoFromFile
from vidseg.core.files.clip import open_clip
from vidseg.nodes.host.frames import convert_frames, open_source

FORMATS = {
    "of 8 bits": ("libx264", "yuv420p", 96),
    "of odd width": ("libx264", "yuv420p", 90),
    "of full range": ("mjpeg", "yuvj420p", 90),
    "of 10 bits": ("ffv1", "yuv444p10le", 70),
    "of RGB": ("png", "rgb24", 70),
    "with alpha": ("png", "rgba", 70),
    "with a palette": ("gif", "rgb8", 70),
}
SUFFIXES = {"gif": ".gif", "png": ".mov"}


def write(path: Path, codec: str, pixels: str, width: int) -> None:
    """Write three frames of noise."""
    generator = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = width, 50, pixels
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(generator.integers(0, 256, (50, width, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("name", FORMATS)
def test_the_host_and_we_see_the_same_colors(name: str, tmp_path: Path) -> None:
    if "gbrpf32le" not in inspect.getsource(VideoFromFile):
        pytest.skip("this host rounds colors to 256 levels first")
    codec, pixels, width = FORMATS[name]
    path = (tmp_path / "clip").with_suffix(SUFFIXES.get(codec, ".mkv"))
    write(path, codec, pixels, width)
    expected = convert_frames(VideoFromFile(str(path)).get_components().images)
    with open_clip(path) as clip:
        assert torch.equal(clip.read(0, 3), expected)
    with open_source(None, VideoFromFile(str(path)), lambda *_: None) as (source, size):
        assert torch.equal(source.read(0, 3), expected)
        assert size == (50, width)


def test_values_beyond_one_are_clipped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    frames = torch.tensor([-0.5, 0.25, 4.0]).reshape(1, 1, 3, 1).expand(1, 1, 3, 3)
    with caplog.at_level(logging.WARNING):
        assert convert_frames(frames)[0, 0, :, 0].tolist() == [0, 0.25, 1]
    assert "values from -0.5 to 4;" in caplog.text
    caplog.clear()
    convert_frames(frames.clamp(0, 1))
    assert not caplog.text
