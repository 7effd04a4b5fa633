"""The overlay that is written beside a run is the one that is written after it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from vidseg.core.files.clip import Clip, open_clip
from vidseg.core.files.overlay import OVERLAY_STAGE, OverlayWriter, write_overlay
from vidseg.core.files.result_folder import OVERLAY_FILE, ResultFolder
from vidseg.core.files.video import write_video
from vidseg.core.types import InputError, LabelMaps, Region, no_progress

FRAMES = 6
REGIONS = (Region(0, "road"), Region(3, "sky"))


@pytest.fixture
def clip(tmp_path: Path) -> Iterator[Clip]:
    pictures = torch.randint(0, 256, (FRAMES, 48, 64, 3), generator=torch.Generator().manual_seed(1)).byte()
    write_video(tmp_path / "clip.mp4", iter(pictures))
    with open_clip(tmp_path / "clip.mp4") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> ResultFolder:
    result = ResultFolder(tmp_path / "out")
    result.prepare(FRAMES * 48 * 64)
    return result


def label(folder: ResultFolder, start: int, stop: int) -> None:
    maps = torch.zeros(stop - start, 48, 64, dtype=torch.uint8)
    maps[:, :, 32:] = 3
    folder.write_label_maps(start, LabelMaps(maps, REGIONS))


def test_is_the_same_whether_written_beside_a_run_or_after_it(clip: Clip, folder: ResultFolder) -> None:
    calls: list[tuple[str, int, int]] = []
    with OverlayWriter(folder, clip) as overlay:
        for start in range(0, FRAMES, 2):
            label(folder, start, start + 2)
            overlay.show(start + 2)
            clip.read(start, start + 2)  # what the run reads meanwhile
        overlay.finish(lambda *call: calls.append(call))
    assert calls[-1] == (OVERLAY_STAGE, FRAMES, FRAMES)
    path = folder.path / OVERLAY_FILE
    beside = path.read_bytes()
    write_overlay(folder, clip, no_progress)
    assert path.read_bytes() == beside


def test_frames_are_drawn_while_the_run_goes_on(clip: Clip, folder: ResultFolder) -> None:
    drawn = threading.Event()
    maps = folder.read_label_maps

    def watch(stop: int) -> Iterator[torch.Tensor]:
        for number, label_map in enumerate(maps(stop)):
            if number == 2:
                drawn.set()
            yield label_map

    folder.read_label_maps = watch  # type: ignore[method-assign, assignment]
    with OverlayWriter(folder, clip) as overlay:
        label(folder, 0, 3)
        overlay.show(3)
        assert drawn.wait(30)
        label(folder, 3, FRAMES)
        overlay.show(FRAMES)
        overlay.finish(no_progress)


def test_a_run_that_ends_early_leaves_none(clip: Clip, folder: ResultFolder) -> None:
    def stop_early() -> None:
        with OverlayWriter(folder, clip) as overlay:
            label(folder, 0, 2)
            overlay.show(2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_early()
    assert not [path for path in folder.path.iterdir() if OVERLAY_FILE in path.name]


def test_a_fault_is_told_at_the_end(clip: Clip, folder: ResultFolder) -> None:
    label(folder, 0, FRAMES)
    (folder.labels / "00004.png").write_bytes(b"no picture")
    with OverlayWriter(folder, clip) as overlay, pytest.raises(InputError, match=r"00004\.png"):
        overlay.show(FRAMES)
        overlay.finish(no_progress)
    assert not [path for path in folder.path.iterdir() if OVERLAY_FILE in path.name]
