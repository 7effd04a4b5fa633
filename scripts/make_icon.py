"""Draw the icon and the banner of the pack: frames of a film whose regions keep their colors.

Run it from the root of the project: `python scripts/make_icon.py`. It writes `assets/icon.svg`, `assets/icon.png` and
`assets/banner.png`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

ASSETS = Path(__file__).parents[1] / "assets"
SIDE, OVERSAMPLING = 400, 4
BANNER_SIZE = (1680, 720)
"""21:9."""
FILM, HOLE, LINE = "#1B1F2B", "#F4F1E8", "#FFFFFF"
SKY, SUN, HILL, FIELD, ROAD = "#0072B2", "#F0E442", "#009E73", "#E69F00", "#CC79A7"
"""Of the palette of the labels."""
WINDOW = (36, 92, 364, 308)
"""The picture inside the film, as left, top, right and bottom; the whole is 400x400."""
BELOW = 340
"""Where regions end, below the window: the film hides what is outside it."""
HOLES = tuple((x, y, x + 52, y + 36) for y in (34, 330) for x in (44, 130, 216, 302))

Point = tuple[float, float]


class Shape(NamedTuple):
    """A filled polygon, a disc (one point and a radius) or a rounded box (two corners and a radius)."""

    color: str
    points: tuple[Point, ...]
    radius: float = 0
    outline: float = 0


def regions(shift: float) -> list[Shape]:
    """Return the regions of a frame; ``shift`` moves the near ones as a camera that passes by would."""
    hills = [(-70, 200), (36, 236), (84, 190), (128, 216), (206, 126), (300, 232), (364, 192), (470, 240)]
    peaks = tuple((x - shift, y) for x, y in hills)
    road = ((70, BELOW), (176, 256), (228, 256), (300, BELOW))
    return [
        Shape(SKY, ((0, 0), (SIDE, BELOW))),
        Shape(SUN, ((300 - shift / 4, 144),), 32, 7),
        Shape(HILL, ((-80, BELOW), *peaks, (480, BELOW)), 0, 7),
        Shape(FIELD, ((-20, BELOW), (-20, 250), (150, 226), (420, 256), (420, BELOW)), 0, 7),
        Shape(ROAD, tuple((x - shift, y) for x, y in road), 0, 7),
    ]


def frame_of_film() -> list[Shape]:
    """Return what lies over the regions: the film, with holes, around its window."""
    left, top, right, bottom = WINDOW
    bars = [((0, 0), (SIDE, top)), ((0, bottom), (SIDE, SIDE)), ((0, 0), (left, SIDE)), ((right, 0), (SIDE, SIDE))]
    holes = [Shape(HOLE, ((x0, y0), (x1, y1)), 10) for x0, y0, x1, y1 in HOLES]
    return [*(Shape(FILM, bar) for bar in bars), *holes]


def drawn(shapes: list[Shape]) -> Image.Image:
    """Return a picture of 400x400 pixels, before oversampling is undone."""
    image = Image.new("RGB", (SIDE * OVERSAMPLING, SIDE * OVERSAMPLING), FILM)
    draw = ImageDraw.Draw(image)
    for shape in shapes:
        points = [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in shape.points]
        radius, width = shape.radius * OVERSAMPLING, round(shape.outline * OVERSAMPLING)
        if len(points) == 1:
            (x, y), outer, inner = points[0], radius + width / 2, radius - width / 2
            draw.ellipse((x - outer, y - outer, x + outer, y + outer), LINE)
            draw.ellipse((x - inner, y - inner, x + inner, y + inner), shape.color)
        elif len(points) == 2:
            draw.rounded_rectangle((*points[0], *points[1]), radius, shape.color)
        else:
            draw.polygon(points, shape.color)
            draw.line([*points, points[0]], LINE, width, joint="curve")
    return image


def picture(shift: float = 0) -> Image.Image:
    """Return a frame of film, not yet reduced."""
    return drawn([*regions(shift), *frame_of_film()])


def svg() -> str:
    """Return the icon as SVG, of the same shapes."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE}">',
            f'<clipPath id="card"><rect width="{SIDE}" height="{SIDE}" rx="56"/></clipPath>',
            '<g clip-path="url(#card)" stroke-linejoin="round">',
            *(_element(shape) for shape in [*regions(0), *frame_of_film()]),
            "</g>",
            "</svg>\n",
        ]
    )


def _element(shape: Shape) -> str:
    (x, y), *rest = shape.points
    paint = f'fill="{shape.color}"' + (f' stroke="{LINE}" stroke-width="{shape.outline:g}"' if shape.outline else "")
    if not rest:
        return f'<circle cx="{x:g}" cy="{y:g}" r="{shape.radius:g}" {paint}/>'
    if len(rest) == 1:
        size = f'width="{rest[0][0] - x:g}" height="{rest[0][1] - y:g}"'
        return f'<rect x="{x:g}" y="{y:g}" {size} rx="{shape.radius:g}" {paint}/>'
    return f'<polygon points="{" ".join(f"{x:g},{y:g}" for x, y in shape.points)}" {paint}/>'


def icon() -> Image.Image:
    """Return the icon, with round corners."""
    large = picture()
    corners = Image.new("L", large.size, 0)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, *large.size), 56 * OVERSAMPLING, 255)
    large.putalpha(corners)
    return large.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def banner() -> Image.Image:
    """Return four frames of the film one after the other, below the name."""
    image = Image.new("RGB", BANNER_SIZE, FILM)
    draw = ImageDraw.Draw(image)
    draw.text((90, 56), "VidSeg", fill=HOLE, font=ImageFont.load_default(120))
    words = "Regions that keep their identity through the whole video"
    draw.text((92, 206), words, fill=SUN, font=ImageFont.load_default(44))
    for number, shift in enumerate((-60, -20, 20, 60)):
        frame = picture(shift).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        image.paste(frame, (40 + number * SIDE, 300))
    return image


def main() -> None:
    """Write the three files."""
    (ASSETS / "icon.svg").write_text(svg(), encoding="utf-8")
    icon().save(ASSETS / "icon.png", optimize=True)
    banner().save(ASSETS / "banner.png", optimize=True)


if __name__ == "__main__":
    main()
