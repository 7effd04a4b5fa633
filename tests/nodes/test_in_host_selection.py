"""What people type is understood, or answered with what there is."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter
from vidseg.core.files.label_images import make_label_image, read_labels
from vidseg.core.regions.palette import PALETTE
from vidseg.core.types import InputError, Region
from vidseg.nodes.host import labels as selection
from vidseg.nodes.host.frames import convert_frames, convert_label_maps
from vidseg.nodes.host.labels import choose_labels, parse_class_names, parse_names_and_merges

REGIONS = (Region(1, "sky"), Region(3, "region 3"), Region(4, "a dog"), Region(7, "12"))


def test_examples_in_the_documentation() -> None:
    assert doctest.testmod(selection).failed == 0


@pytest.mark.parametrize(
    ("text", "labels"),
    [("1", (1,)), ("SKY, a Dog", (1, 4)), ("3-7", (3, 4, 7)), ("1\n3;4", (1, 3, 4)), ("12", (7,)), (" 4 - 4 ,", (4,))],
)
def test_choice(text: str, labels: tuple[int, ...]) -> None:
    assert choose_labels(text, REGIONS) == labels


@pytest.mark.parametrize("text", ["", " , ", "cat", "2", "5-6", "1 3", "-1", "²"])
def test_choice_of_nothing_lists_the_regions(text: str) -> None:
    with pytest.raises(InputError, match=r"There are: 1 \(sky\), 3 \(region 3\), 4 \(a dog\), 7 \(12\)"):
        choose_labels(text, REGIONS)


def test_names() -> None:
    assert parse_names_and_merges("animal: a dog, 3\n\nsky: 1", REGIONS) == ({3: "animal", 1: "sky"}, {4: 3})


@pytest.mark.parametrize("text", ["animal 3", ": 3", "a: 3\nb: 3", "a: 1, 3\nb: 3", "a:"])
def test_wrong_names_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_names_and_merges(text, REGIONS)


def test_class_names() -> None:
    assert parse_class_names("0: background, 1: dog") == {0: "background", 1: "dog"}
    with pytest.raises(InputError, match="number, colon, name"):
        parse_class_names("dog")
    with pytest.raises(InputError, match="number, colon, name"):
        parse_class_names("²: dog")


def test_label_images() -> None:
    black_and_white = torch.tensor([[[0.0, 1.0]]])
    assert convert_label_maps(black_and_white).tolist() == [[[0, 1]]]
    assert convert_label_maps(torch.tensor([[[0, 3, 255]]]) / 255).tolist() == [[[0, 3, 255]]]
    soft = torch.tensor([0.0, 0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1, 1])
    assert convert_label_maps(soft[None, None]).tolist() == [[[0] * 5 + [1] * 9]]
    classes = torch.tensor([0, 0, 0, 0, 0, 0, 0, 12, 30, 255, 255, 255, 255, 255])
    assert convert_label_maps(classes[None, None] / 255).tolist() == [[classes.tolist()]]
    palette = PALETTE[[9, 200]].float()[None, None] / 255
    assert convert_label_maps(palette).tolist() == [[[9, 200]]]
    colors = torch.tensor([[[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]]])
    assert convert_label_maps(colors).tolist() == [[[0, 2, 1]]]
    with pytest.raises(InputError, match="flat colors"):
        convert_label_maps(torch.rand(1, 64, 64, 3))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_masks_are_read_as_the_command_reads_their_files(tmp_path: Path, mode: str) -> None:
    image = Image.new("L", (96, 72))
    ImageDraw.Draw(image).ellipse((20, 10, 70, 60), fill=255)
    palette = make_label_image(torch.arange(6, dtype=torch.uint8).repeat_interleave(64).reshape(16, 24))
    pictures = [image, image.filter(ImageFilter.GaussianBlur(2)), image.point(lambda value: 16 + value * 219 // 255)]
    for number, picture in enumerate([*pictures, palette.convert("RGB")]):
        path = tmp_path / f"{number}.png"
        picture.convert("RGB" if picture.mode == "RGB" else mode).save(path)
        with Image.open(path) as opened:
            pixels = torch.from_numpy(np.array(opened)).float()[None] / 255
        assert torch.equal(convert_label_maps(pixels)[0], read_labels(path, "mask"))


def test_frames_of_any_kind() -> None:
    assert convert_frames(torch.rand(2, 4, 4, 4)).shape == (2, 4, 4, 3)
    assert convert_frames(torch.rand(2, 4, 4, 1).half()).dtype == torch.float32
