"""Masks and label images are read by one set of rules, whatever file or node they come from."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from vidseg.core.files.label_images import make_label_image, read_label_set, read_label_values, read_labels
from vidseg.core.regions.palette import PALETTE
from vidseg.core.types import VOID, InputError

SIZE = (96, 72)


def disc(black: int = 0, white: int = 255) -> Image.Image:
    image = Image.new("L", SIZE, black)
    ImageDraw.Draw(image).ellipse((20, 10, 70, 60), fill=white)
    return image


def smooth_disc() -> Image.Image:
    image = Image.new("L", (SIZE[0] * 8, SIZE[1] * 8))
    ImageDraw.Draw(image).ellipse((160, 80, 560, 480), fill=255)
    return image.resize(SIZE, Image.Resampling.LANCZOS)


def regions() -> NDArray[np.uint8]:
    """Return five regions, of which one is void."""
    values = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    for row, label in enumerate((1, 2, 5, VOID)):
        values[8 + 16 * row : 20 + 16 * row, 10:60] = label
    return values


def save(image: Image.Image, path: Path, **options: int) -> Path:
    image.save(path, **options)
    return path


MASKS = {
    "plain.png": disc(),
    "soft.png": disc().filter(ImageFilter.GaussianBlur(2)),
    "wide.png": disc().filter(ImageFilter.GaussianBlur(6)),
    "smooth.png": smooth_disc(),
    "lossy.jpg": disc(),
    "lossy.webp": disc().convert("RGB"),
    "offset.png": disc(3, 255),
    "video.png": disc(16, 235),
    "soft_video.png": disc(16, 235).filter(ImageFilter.GaussianBlur(1)),
    "rgb.png": disc().convert("RGB"),
    "soft_rgb.png": smooth_disc().convert("RGB"),
    "rgba.png": disc().convert("RGBA"),
    "gray_alpha.png": disc().convert("LA"),
    "one_bit.png": disc().convert("1"),
    "indexed.png": disc().quantize(2),
    "indexed_soft.png": smooth_disc().quantize(64),
    "deep.png": Image.fromarray(np.asarray(disc()).astype(np.uint16) * 257),
}


@pytest.mark.parametrize("name", MASKS)
def test_black_and_white_is_background_and_object(tmp_path: Path, name: str) -> None:
    labels = read_labels(save(MASKS[name], tmp_path / name), "mask")
    truth = torch.from_numpy(np.asarray(disc()) // 255)
    assert labels.unique().tolist() == [0, 1]
    assert (labels == truth).float().mean() > 0.98


def test_a_set_of_masks_is_read_alike(tmp_path: Path) -> None:
    """A frame without the object, and one of a label set that happens to show 0 and void alone."""
    empty = save(Image.new("L", SIZE), tmp_path / "0.png")
    rules, labels = read_label_set([empty, save(disc(), tmp_path / "1.png")], "masks")
    assert rules.is_black_and_white()
    assert [frame.unique().tolist() for frame in labels] == [[0], [0, 1]]
    rules, labels = read_label_set([tmp_path / "1.png", save(Image.fromarray(regions()), tmp_path / "2.png")], "masks")
    assert not rules.is_black_and_white()
    assert [frame.unique().tolist() for frame in labels] == [[0, 255], [0, 1, 2, 5, 255]]


def test_values_are_labels(tmp_path: Path) -> None:
    indices = np.array([[0, 7], [255, 1]], np.uint8)
    image = Image.fromarray(indices)
    image.save(tmp_path / "gray.png")
    image.putpalette(list(range(256)) * 3)
    image.save(tmp_path / "palette.png")
    Image.fromarray(indices == 7).save(tmp_path / "binary.png")
    for read in (read_labels, read_label_values):
        for name in ("gray", "palette"):
            assert read(tmp_path / f"{name}.png", "x").tolist() == indices.tolist()
    assert read_labels(tmp_path / "binary.png", "x").tolist() == [[0, 1], [0, 0]]
    values = regions()
    for label in (60, 130, 182, 254):
        values[:8, :] = label
        assert read_labels(save(Image.fromarray(values), tmp_path / "many.png"), "x").tolist() == values.tolist()


def test_white_beside_other_bright_values_is_void_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = regions()
    values[:8, :] = 128
    with caplog.at_level(logging.WARNING):
        read_labels(save(Image.fromarray(values), tmp_path / "a.png"), "mask")
    assert "255 (white) as unknown" in caplog.text


def test_our_palette_is_read_by_its_colors(tmp_path: Path) -> None:
    truth = torch.from_numpy(regions())
    ours = make_label_image(truth)
    order = [255, 5, 0, 2, 1]
    moved = Image.fromarray(np.vectorize(order.index)(regions()).astype(np.uint8))
    moved.putpalette(PALETTE[order].flatten().tolist())
    images = {"ours": ours, "moved": moved, "rgb": ours.convert("RGB"), "rgba": ours.convert("RGBA")}
    images["quantized"] = ours.convert("RGB").quantize(5)
    for name, image in images.items():
        path = save(image, tmp_path / f"{name}.png")
        assert torch.equal(read_labels(path, "x"), truth), name
        assert torch.equal(read_label_values(path, "x"), truth), name


def test_label_images_are_read_by_other_libraries(tmp_path: Path) -> None:
    """Pillow sees labels; OpenCV, which knows no palette, sees colors that are read back as the same labels."""
    cv2 = pytest.importorskip("cv2")
    path = save(make_label_image(torch.from_numpy(regions())), tmp_path / "ours.png")
    assert np.array_equal(np.asarray(Image.open(path)), regions())
    colors = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(colors, PALETTE[regions().astype(int)])
    cv2.imwrite(str(tmp_path / "theirs.png"), colors[..., ::-1])
    assert np.array_equal(read_labels(tmp_path / "theirs.png", "x").numpy(), regions())


def test_other_flat_colors_are_numbered(tmp_path: Path) -> None:
    colors = np.array([[[0, 0, 0], [255, 0, 0], [0, 255, 0]]], np.uint8)
    path = save(Image.fromarray(colors), tmp_path / "a.png")
    assert read_labels(path, "x").tolist() == [[0, 2, 1]]
    with pytest.raises(InputError, match="other colors"):
        read_label_values(path, "x")


def noise(*shape: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def small_between() -> Image.Image:
    values = np.array(disc())
    values[0:4, 0:4] = 128
    return Image.fromarray(values)


def shape_in_alpha() -> Image.Image:
    image = Image.new("RGBA", SIZE)
    image.putalpha(disc())
    return image


REFUSED = {
    "photo.png": (noise(64, 64, 3), "flat colors"),
    "gray_photo.png": (noise(64, 64), "gray values as in a photo"),
    "gradient.png": (Image.linear_gradient("L"), "gray values as in a photo"),
    "labels.jpg": (Image.fromarray(regions() * np.uint8(40)), "as in a photo or a JPEG"),
    "colors.jpg": (make_label_image(torch.from_numpy(regions())).convert("RGB"), "JPEG"),
    "small.png": (small_between(), "small gray areas"),
    "alpha.png": (shape_in_alpha(), "transparency"),
    "deep.png": (Image.fromarray(np.full((4, 4), 300, np.uint16)), "labels from 0 to 255"),
    "float.tiff": (Image.fromarray(np.full((4, 4), np.nan, np.float32)), "labels from 0 to 255"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_neither_is_refused(tmp_path: Path, name: str) -> None:
    image, said = REFUSED[name]
    with pytest.raises(InputError, match=f"`mask` must.*{said}"):
        read_labels(save(image, tmp_path / name), "mask")


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for read in (read_labels, read_label_values):
        for name, said in (("text", "readable image"), ("none", "does not exist")):
            with pytest.raises(InputError, match=said):
                read(tmp_path / f"{name}.png", "mask")
