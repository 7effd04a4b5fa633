from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from vidseg.core.files.checks import read_anchor_mask
from vidseg.core.types import InputError


@pytest.mark.parametrize(("value", "new_regions"), [(0, False), (3, False), (255, False), (255, True)])
def test_a_mask_of_one_value_is_refused(tmp_path: Path, value: int, new_regions: bool) -> None:
    Image.new("L", (4, 4), value).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=f"a.png, of which every pixel is {value}"):
        read_anchor_mask(tmp_path / "a.png", new_regions=new_regions)


def test_an_empty_scene_may_be_of_one_class_where_things_can_enter(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 3).save(tmp_path / "a.png")
    labels, digest = read_anchor_mask(tmp_path / "a.png", new_regions=True)
    assert labels is not None
    assert labels.unique().tolist() == [3]
    assert len(digest or "") == 64
    assert read_anchor_mask(None, new_regions=False) == (None, None)
