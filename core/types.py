"""Axis letters, shape checks and the values that pass between stages.

Letters, used in every shape of the project:

- ``T`` frames, ``H W`` pixels, ``h w`` cells of the coarse grid, ``N = h*w`` tokens of a frame
- ``C`` channels, ``K`` labels, ``M`` tokens of the scene context, ``B`` elements of a compute batch

Conventions inside the core:

- frames: ``(T,H,W,3)`` float32 in [0, 1], RGB
- latents: ``(T,4,H/8,W/8)`` float32, scaled to unit variance as the UNet expects them
- coarse maps: ``(T,h,w)`` int64 labels; label maps: ``(T,H,W)`` uint8 labels; labels lie in [0, 255]
- blocks: the paper's decoder blocks 0..11; steps: 0-based indices into the sampling schedule
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .leaves import LaterCells, Leaves, TokenScales

if TYPE_CHECKING:  # what needs no tensors, such as `vidseg info`, starts without torch
    from torch import Tensor

MAX_LABEL = 255
"""Largest label id: label maps are stored as 8-bit palette images."""
VOID = 255
"""Label of pixels without ground truth, by the convention of the data sets."""
MAX_NAME = 200
"""Characters of a region's name at most: several lines of a node."""
_QUOTED = 80
"""Characters that a message quotes of what it got, at most."""


def quote(value: object) -> str:
    """Return what was typed or read as a message quotes it: at most a line, whatever it holds.

    >>> quote("a" * 100)[-6:]
    'aaa...'
    """
    short = value[:_QUOTED] if isinstance(value, str | bytes | list | tuple) else value
    if isinstance(value, int) and value.bit_length() > 4 * _QUOTED:
        return f"a number of about {int(value.bit_length() * 0.30103) + 1} digits"
    shown = repr(short).encode("ascii", "backslashreplace").decode() if not isinstance(short, str) else repr(short)
    shown = shown.encode("utf-8", "backslashreplace").decode()
    return f"{shown[:_QUOTED]}..." if len(shown) > _QUOTED else shown


class InputError(ValueError):
    """Input that cannot be processed. The message names the input, the limit and the remedy."""

    def told(self, _names: Mapping[str, str]) -> str:
        """Return the message in the words of the person who typed the input; see `SettingError`."""
        return str(self)


class SettingError(InputError):
    """A setting or argument that does not fit, by its key; a front end tells it in its own words for the keys.

    ``limit`` and ``remedy`` may hold ``{0}``, ``{1}`` and so on for the words of further keys, ``others``.

    >>> error = SettingError("feature.step", "lie in [0, 24]", 25, "Lower it, or raise {0}", "sampling.num_steps")
    >>> error.told({"sampling.num_steps": "steps"})
    '`feature.step` must lie in [0, 24], but got 25. Lower it, or raise `steps`.'
    """

    def __init__(self, key: str, limit: str, got: object, remedy: str, *others: str) -> None:
        super().__init__(key, limit, str(got), remedy, *others)

    def __str__(self) -> str:
        """Return the message in the words of the core: keys of settings, names of arguments."""
        return self.told({})

    def told(self, names: Mapping[str, str]) -> str:
        """Return the message with each key called as ``names`` call it."""
        key, limit, got, remedy, *others = self.args
        word, *words = (f"`{names.get(each, each)}`" for each in (key, *others))
        for number, other in enumerate(words):  # not `str.format`: a path may hold braces
            limit, remedy = (text.replace(f"{{{number}}}", other) for text in (limit, remedy))
        return f"{word} must {limit}, but got {got}. {remedy}."


class InterruptedByUserError(Exception):
    """The user asked to stop. Raised by a progress callback; finished work stays valid."""


Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)`` after each unit of work; may raise to stop the run."""


def no_progress(_stage: str, _done: int, _total: int) -> None:
    """Report nothing."""


class Grid(NamedTuple):
    """Size of the coarse grid in cells; ``N = h * w`` tokens in raster order."""

    h: int
    w: int

    @property
    def num_tokens(self) -> int:
        """Number of tokens ``N`` of one frame."""
        return self.h * self.w


class Region(NamedTuple):
    """A label that can occur in a label map, and what people call it.

    Attributes:
        label: its value in label maps, 0 to 255.
        name: ``region 3``, or what a person or a reference calls it.
    """

    label: int
    name: str


class Conditioning(NamedTuple):
    """What a video model is told about a window besides its latents.

    Attributes:
        embedding: ``(1,C)`` float32, what the image encoder makes of the window's first frame.
        image: ``(4,H/8,W/8)`` float32, latent of that frame with a little noise, not scaled.
        numbers: frames per second less one, motion bucket, noise on that frame.
    """

    embedding: Tensor
    image: Tensor
    numbers: tuple[float, float, float]


class SeenWindow(NamedTuple):
    """Frames that a model sees together: a window of a video model, or one frame.

    Attributes:
        start: number of the first frame among the features.
        stop: number of the frame after the last.
        first_kept: number of the first frame whose results are kept; those before it are finished already.
        conditioning: what the model is told about the window; None for image models.
    """

    start: int
    stop: int
    first_kept: int
    conditioning: Conditioning | None


class Features(NamedTuple):
    """What one pass over the frames leaves for all later stages (paper 4.1).

    A named tuple of tensors, so that hosts that weigh cached outputs by walking tuples see its size.

    Attributes:
        queries: ``(T,N,C)`` float32, self-attention queries averaged over the feature blocks, not normalized.
        matching: ``(T,N,C)`` float32, self-attention queries of the block that correspondences use (paper 4.2).
        latents: ``(T,4,H/8,W/8)`` float32, clean latents of the resized frames.
        noise: ``(T,4,H/8,W/8)`` float32, the standard normal noise added to them.
        grid: size of the coarse grid, ``(H/16, W/16)``.
        frame_size: ``(H, W)`` of the frames as they came in, pixels.
        pictures: ``(T,H,W,3)`` uint8, the frames in the size that the model saw, or None if no stage needs them.
        video: windows of a video model, in order; empty for image models.
        device: where distances between cells are computed: the model's GPU, or "cpu". Tensors are on the CPU.
        flow: ``(T,2,2,h,w)`` float16, how small pictures of the frames move, see `method.flow.measure_flow`; or None.
    """

    queries: Tensor
    matching: Tensor
    latents: Tensor
    noise: Tensor
    grid: Grid
    frame_size: tuple[int, int]
    pictures: Tensor | None = None
    video: tuple[SeenWindow, ...] = ()
    device: str = "cpu"
    flow: Tensor | None = None

    def __repr__(self) -> str:
        """Return sizes, not millions of numbers: hosts put this into reports of errors."""
        size = f"{self.num_frames} frames, {self.grid.h}x{self.grid.w} cells, {self.queries.shape[-1]} channels"
        return f"Features({size})"

    @property
    def num_frames(self) -> int:
        """Number of frames ``T``."""
        return int(self.queries.shape[0])

    @property
    def num_kept(self) -> int:
        """Number of frames that count: all, but those that a video model sees again only to fill its window."""
        if not self.video:
            return self.num_frames
        return sum(window.stop - window.first_kept for window in self.video)

    @property
    def units(self) -> tuple[SeenWindow, ...]:
        """What the model sees together: the windows of a video model, else each frame by itself."""
        return self.video or tuple(SeenWindow(number, number + 1, number, None) for number in range(self.num_frames))

    def kept(self) -> Features:
        """Return the features of the frames that count, the last `num_kept`."""
        return self.window(self.num_frames - self.num_kept, self.num_frames)

    def window(self, start: int, stop: int) -> Features:
        """Return the features of frames ``start`` (included) to ``stop`` (excluded)."""
        cut = {name: getattr(self, name)[start:stop] for name in ("queries", "matching", "latents", "noise")}
        pictures, flow = (each if each is None else each[start:stop] for each in (self.pictures, self.flow))
        return self._replace(**cut, pictures=pictures, flow=flow)

    def get_ram_usage(self) -> int:
        """Return the size in bytes; hosts call this to decide what to keep in their cache."""
        tensors = (self.queries, self.matching, self.latents, self.noise, self.pictures, self.flow)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


class AnchorLabels(NamedTuple):
    """Labels of the anchor frame, from which the scene context starts.

    Attributes:
        anchor: index of the anchor frame in the clip.
        cluster_map: ``(h,w)`` int64 labels of the anchor frame.
        regions: every label that may occur, sorted by label.
        leaves: what the regions are made of, ``(h,w)``; None where each is one cluster.
        scales: those of the tokens by which cells were divided.
        later: what stands for leaves that the anchor frame lacks, until a scan has begun.
    """

    anchor: int
    cluster_map: Tensor
    regions: tuple[Region, ...]
    leaves: Leaves | None = None
    scales: TokenScales = TokenScales()
    later: LaterCells | None = None


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """Labels of a clip, on the coarse grid or in full resolution.

    Attributes:
        maps: ``(T,h,w)`` int64 on the coarse grid, or ``(T,H,W)`` uint8 in full resolution.
        regions: every label that may occur.
        frame_size: ``(H, W)`` of the frames, pixels; left out, that of ``maps``.
        leaves: what the regions are made of, so that their number can be changed; None where that is not known.
    """

    maps: Tensor
    regions: tuple[Region, ...]
    frame_size: tuple[int, int] = (0, 0)
    leaves: Leaves | None = None

    def __post_init__(self) -> None:
        """Take the size of the maps where none is given."""
        if self.frame_size == (0, 0):
            object.__setattr__(self, "frame_size", tuple(self.maps.shape[-2:]))

    def __repr__(self) -> str:
        """Return sizes and names, not millions of numbers: hosts put this into reports of errors."""
        size, unit = "x".join(map(str, self.maps.shape[1:])), "cells" if self.is_coarse else "pixels"
        return f"{type(self).__name__}({self.num_frames} frames, {size} {unit}, {len(self.regions)} regions)"

    @property
    def is_coarse(self) -> bool:
        """Tell whether the labels are on the coarse grid; in full resolution they are bytes."""
        return self.maps.element_size() > 1

    @property
    def num_frames(self) -> int:
        """Number of frames ``T``."""
        return int(self.maps.shape[0])


def require_shape(name: str, value: Tensor, letters: str, **sizes: int) -> dict[str, int]:
    """Check the axes of ``value`` against ``letters`` (``"T N C"``; digits are exact sizes) and return their sizes.

    A letter that occurs in ``sizes`` must have that size.
    """
    axes, actual = letters.split(), tuple(value.shape)
    expected = {axis: sizes.get(axis, int(axis) if axis.isdigit() else None) for axis in axes}
    matches = len(axes) == len(actual) and all(
        want is None or want == got for want, got in zip(expected.values(), actual, strict=False)
    )
    if not matches:
        wanted = ", ".join(axis if expected[axis] is None else f"{axis}={expected[axis]}" for axis in axes)
        raise InputError(f"`{name}` must have shape ({wanted}), but got {actual}.")
    return dict(zip(axes, actual, strict=True))


def require_finite(name: str, value: Tensor) -> None:
    """Check that no element of ``value`` is NaN or infinite."""
    if value.numel() and not all(bool(end.isfinite()) for end in value.aminmax()):  # NaN is both ends
        remedy = "Run the model in float32 ({0}), or check the frames"
        raise SettingError(name, "be finite", "NaN or infinity", remedy, "dtype")


def list_labels(regions: Iterable[Region]) -> tuple[int, ...]:
    """Return the label ids of ``regions`` in order."""
    return tuple(region.label for region in regions)
