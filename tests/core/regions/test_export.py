"""What other programs get is what the label maps say."""

from __future__ import annotations

import doctest
import json
from itertools import accumulate
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from vidseg.core.files.video import write_id_video
from vidseg.core.regions import export as handover
from vidseg.core.regions.export import find_boxes, make_coco, make_segs, take_masks
from vidseg.core.types import InputError, LabelMaps, Region

REGIONS = (Region(0, "ground"), Region(2, "dog"), Region(200, "never"))


@pytest.fixture
def labels() -> LabelMaps:
    maps = torch.zeros(3, 20, 30, dtype=torch.uint8)
    maps[0, 4:9, 10:14] = 2
    maps[2, 6:12, 20:30] = 2
    return LabelMaps(maps, REGIONS)


def test_examples_in_the_documentation() -> None:
    assert doctest.testmod(handover).failed == 0


def test_boxes(labels: LabelMaps) -> None:
    assert find_boxes(labels, [2]) == [[(10, 4, 4, 5)], [], [(20, 6, 10, 6)]]
    assert find_boxes(labels, [0, 2])[1] == [(0, 0, 30, 20)]


def test_first_masks(labels: LabelMaps) -> None:
    masks, missing = take_masks(labels, [2, 200, 0], 0)
    assert masks.shape == (2, 20, 30)
    assert torch.equal(masks[0] > 0, labels.maps[0] == 2)
    assert missing == [200]
    with pytest.raises(InputError, match="frame 1 has none"):
        take_masks(labels, [2], 1)
    with pytest.raises(InputError, match=r"\[0, 2\]"):
        take_masks(labels, [2], 3)


def test_segments_hold_the_masks_of_all_frames(labels: LabelMaps) -> None:
    size, (dog,) = make_segs(labels, [2, 200], margin=1.5)
    assert size == (20, 30)
    assert (dog.label, dog.bbox, dog.crop_region) == ("dog", (10, 4, 30, 12), (5, 2, 30, 14))
    whole = torch.zeros(3, 20, 30)
    left, top, right, bottom = dog.crop_region
    whole[:, top:bottom, left:right] = dog.cropped_mask
    assert torch.equal(whole > 0, labels.maps == 2)
    single = make_segs(LabelMaps(labels.maps[:1], REGIONS), [2])[1][0]
    assert isinstance(single.cropped_mask, np.ndarray)
    assert single.cropped_mask.ndim == 2
    assert dog._fields == (
        *("cropped_image", "cropped_mask", "confidence", "crop_region", "bbox", "label", "control_net_wrapper"),
    )


def test_run_lengths_give_the_masks_back(labels: LabelMaps) -> None:
    record = make_coco(labels)
    assert [(category["id"] - 1, category["name"]) for category in record["categories"]] == list(REGIONS)
    assert [image["file_name"] for image in record["images"]] == [f"labels/0000{n}.png" for n in range(3)]
    assert len({each["id"] for each in record["annotations"]}) == len(record["annotations"]) == 5
    for each in record["annotations"]:
        counts = each["segmentation"]["counts"]
        edges = list(accumulate(counts))
        flat = torch.zeros(edges[-1], dtype=torch.bool)
        for start, stop in zip(edges[::2], edges[1::2], strict=False):
            flat[start:stop] = True
        mask = flat.reshape(30, 20).T
        assert torch.equal(mask, labels.maps[each["image_id"] - 1] == each["track_id"])
        assert each["area"] == int(mask.sum())
        assert each["iscrowd"] == 0


@pytest.mark.filterwarnings("ignore")
def test_the_coco_file_is_perfect_against_itself(labels: LabelMaps, tmp_path: Path) -> None:
    """What evaluations and training read with pycocotools: average precision 1, no crowds, ids from 1."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    (tmp_path / "coco.json").write_text(json.dumps(make_coco(labels)))
    truth = coco.COCO(str(tmp_path / "coco.json"))
    assert min(*truth.imgs, *truth.anns, *truth.cats) == 1
    assert len(truth.getAnnIds(iscrowd=False)) == len(truth.anns) == 5
    for each in truth.anns.values():
        mask = labels.maps[each["image_id"] - 1] == each["track_id"]
        assert np.array_equal(truth.annToMask(each), mask.numpy())
    again = truth.loadRes([{**each, "score": 1.0} for each in truth.anns.values()])
    evaluation = cocoeval.COCOeval(truth, again, "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == 1.0


def test_the_video_of_ids_is_lossless(labels: LabelMaps, tmp_path: Path) -> None:
    maps = torch.randint(0, 256, (4, 33, 47), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    write_id_video(tmp_path / "ids.mkv", maps, 23.976)
    with av.open(str(tmp_path / "ids.mkv")) as container:
        read = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert np.array_equal(np.stack(read), maps.numpy())
    with pytest.raises(OSError, match="No such file"):
        write_id_video(tmp_path / "nowhere" / "ids.mkv", maps, 24)
