"""Label maps on disk come back as they were written, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from vidseg.core.files.disk import LabelStore
from vidseg.core.types import InputError


def test_what_is_written_comes_back_after_the_file_has_lost_its_name(tmp_path: Path) -> None:
    expected = torch.randint(0, 256, (5, 4, 6), dtype=torch.uint8)
    with LabelStore(tmp_path, 5, (4, 6)) as store:
        store.write(0, expected[:3])
        store.write(2, expected[2:])
        maps, changed = store.maps(), store.maps()
        changed[0] = 7  # in memory only
        assert torch.equal(store.maps(), expected)
    assert not list(tmp_path.iterdir())
    assert torch.equal(maps, expected)


def test_a_failed_run_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), LabelStore(tmp_path, 5, (4, 6)):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


def test_too_little_disk_and_wrong_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Free space, or cut the video"):
        LabelStore(tmp_path, 10**9, (10**4, 10**4))
    with LabelStore(tmp_path, 2, (4, 6)) as store, pytest.raises(InputError, match="`maps` must have shape"):
        store.write(0, torch.zeros(1, 6, 4, dtype=torch.uint8))
