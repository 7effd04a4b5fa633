"""A real server on a GPU: memory comes back, and little memory changes nothing; skipped where there is no GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import REASON
from .host import REPOSITORY, Graph, Server, running_server
from .test_server import saved_labels

SLACK = 16 * 2**20
"""Bytes by which the memory that torch holds on the GPU may differ: workspaces of its libraries."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(REASON), reason=REASON or "-"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("comfyui") / "gpu", REPOSITORY, "--normalvram") as running:
        yield running


def graph(server: Server, seed: int) -> Graph:
    """Segment the bundled clip with the bundled model."""
    wires: dict[str, Any] = {name: ["1", slot] for slot, name in enumerate(("model", "vae", "positive", "negative"))}
    widgets = {**server.widgets("SegmentVideo"), "num_clusters": 4, "max_side": 192, "window_length": 8}
    segment = {**wires, "frames": ["1", 4], **widgets, "seed": seed}
    return {
        "1": {"class_type": "LoadDemoModel", "inputs": {}},
        "2": {"class_type": "SegmentVideo", "inputs": segment},
        "3": {"class_type": "SaveRegions", "inputs": {"labels": ["2", 0], "filename_prefix": f"vidseg/{seed}"}},
    }


def held_after_unloading(server: Server) -> int:
    """Unload all models and return the memory that torch still holds on the GPU, bytes."""
    server.fetch("/free", {"unload_models": True, "free_memory": True})
    held: list[int] = []
    while len(held) < 20 and (len(held) < 2 or held[-1] != held[-2] or held[-1] > SLACK):
        time.sleep(0.5)
        held.append(int(server.get("/system_stats")["devices"][0]["torch_vram_total"]))
    return held[-1]


def test_memory_on_the_gpu_comes_back(server: Server) -> None:
    server.run(graph(server, 1))
    before = held_after_unloading(server)
    server.run(graph(server, 2))
    server.run(graph(server, 3))
    assert abs(held_after_unloading(server) - before) <= SLACK


@pytest.mark.parametrize("option", ["--lowvram", "--novram"])
def test_little_memory_gives_the_same_labels(server: Server, tmp_path: Path, option: str) -> None:
    expected = saved_labels(server, server.run(graph(server, 1)))
    with running_server(tmp_path / "base", REPOSITORY, option) as other:
        assert saved_labels(other, other.run(graph(other, 1))) == expected != []
