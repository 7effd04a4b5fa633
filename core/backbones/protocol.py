"""The one convention by which the core talks to a diffusion model; adapters translate foreign models to it.

It has two steps. A `FeatureBackbone` gives features, which is all that qualities without modulation need. A `Backbone`
also decodes latents and repeats UNet calls with a modulation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, cast

from ..config.parts import ATTENTION_BLOCKS, ModulationConfig, Variant, VideoConfig
from ..types import Conditioning, InputError, require_shape

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Result = TypeVar("Result")
Layer = int | str
"""What `FeatureDenoiser.queries` reads: a decoder block of SD and SVD by number, layers of other models by name."""
REPLAYED_TOGETHER = 4
"""Elements of a UNet call on a CPU when `Denoiser.replay` repeats a frame: plus and minus of two regions.

Small maps gain most. Fixed, so that results depend neither on memory nor on what else is in work.
"""
LATENT_MULTIPLE = 8
"""Sides of latents are multiples of this: UNets halve them three times."""
SIDE_MULTIPLE = 64
"""Sides are multiples of this: eight of the autoencoder times eight of the UNet (code)."""
PIXELS_PER_LATENT = 8
"""The autoencoder reduces each side by this."""
PIXELS_PER_CELL = 16
"""Blocks 6..8, whose grid is the coarse grid, work at half the size of the latents."""


class BackboneInfo(NamedTuple):
    """What a model is, for messages and for the record of a run."""

    name: str  # of its file, or what the host calls it
    kind: str  # ``sd`` or ``sdxl`` (frames independent), ``svd`` (a window is one sample), ``vision`` (no diffusion)
    prediction: str  # ``epsilon`` or ``v_prediction``
    fingerprint: str  # hash of the weights, hexadecimal; empty where the host does not tell


class StepCache(Protocol):
    """What an unmodulated step leaves for its repetition. Its content is the adapter's own business."""


class Prediction(NamedTuple):
    """Outcome of an unmodulated UNet call."""

    denoised: Tensor  # (T,4,H/8,W/8) float32, guided prediction of the clean latents
    cache: StepCache | None  # for `Denoiser.replay`, where asked for


class FeatureDenoiser(Protocol):
    """A model made ready for a number of UNet calls.

    Latents go in as ``x = clean + sigma * noise`` (not yet divided by ``sqrt(1 + sigma**2)``); ``sigma`` is one of
    `FeatureBackbone.training_sigmas`, or between them for video models. Guidance is applied inside: the negative half
    is the zero embedding.
    """

    def predict(self, latents: Tensor, sigma: float) -> Prediction:
        """Call the UNet on ``latents`` ``(T,4,H/8,W/8)``."""
        ...

    def queries(self, latents: Tensor, sigma: float, blocks: Sequence[Layer]) -> tuple[Tensor, ...]:
        """Return the conditional half's queries, per block ``(T,N,C)`` float32, and compute nothing after the last.

        Of a model whose layers have names, what each says of the cells of its own grid, which may be coarser.
        """
        ...


class Denoiser(FeatureDenoiser, Protocol):
    """A `FeatureDenoiser` whose UNet calls can be repeated with a modulation."""

    def predict(self, latents: Tensor, sigma: float, *, keep: ModulationConfig | None = None) -> Prediction:
        """Call the UNet on ``latents`` ``(T,4,H/8,W/8)``; with ``keep``, also return what `replay` needs."""
        ...

    def replay(self, latents: Tensor, sigma: float, cache: StepCache, frames: Tensor, offset: Tensor | None) -> Tensor:
        """Return guided predictions ``(B,4,H/8,W/8)`` float32 with the ``cache`` of a step at ``sigma`` injected.

        ``frames`` ``(B,)`` int64 names the cached frame that each element repeats: of a video model whole windows,
        ``0 .. T-1`` for each. ``offset`` ``(B,h,w)`` float32 is added to all channels of the output of the modulated
        block's attention (Eq. 2: plus or minus lambda times the mask), in both halves of guidance; only at the
        modulated step, whose ``latents`` must be those of the unmodulated one. Injection is left to ``keep.inject``.
        """
        ...


class FeatureBackbone(Protocol):
    """A diffusion model whose features can be read: all that qualities without modulation need."""

    @property
    def info(self) -> BackboneInfo:
        """What the model is."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        ...

    @property
    def training_sigmas(self) -> Tensor:
        """Noise levels ``(1000,)`` float64, rising, of the training schedule; of a video model over its range."""
        ...

    def encode(self, frames: Tensor, posterior_noise: Tensor | None = None) -> Tensor:
        """Return scaled latents ``(T,4,H/8,W/8)`` float32, on the CPU, of ``(T,H,W,3)``: mode, or sample by noise."""
        ...

    def run(
        self, job: Callable[[FeatureDenoiser], Result], guidance_scale: float, latent_shape: Sequence[int]
    ) -> Result:
        """Call ``job``, whose largest batch is of ``latent_shape``, with a denoiser that is valid during the call."""
        ...

    def batch_size(self, latent_shape: Sequence[int]) -> int:
        """Return how many units (latents ``(4,H/8,W/8)``, or windows), and what is kept of them, fit into memory."""
        ...

    def condition(self, frame: Tensor, noise: Tensor, config: VideoConfig) -> Conditioning | None:
        """Return what a video model is told about a window by its first frame ``(H,W,3)``; None of an image model.

        Standard normal ``noise`` ``(3,H,W)`` float32 is added with the strength that ``config`` tells.
        """
        ...

    def conditioned(
        self, conditioning: Conditioning | None, config: VideoConfig, variant: Variant = "paper"
    ) -> FeatureBackbone:
        """Return the backbone of a window, which `run` of a video model needs; an image model is its own.

        Frames of a window depend on each other: a UNet call holds whole windows. ``config`` tells which queries to
        read. Queries and keys are injected in spatial and temporal attention (paper A.4), in the latter alone with the
        variant ``published``.
        """
        ...


class Backbone(FeatureBackbone, Protocol):
    """A `FeatureBackbone` that can also be modulated: it decodes, and its denoiser repeats calls."""

    def decode(self, latents: Tensor) -> Tensor:
        """Return frames ``(T,H,W,3)`` float32, nominally in [0, 1] but not clamped, on the model's device."""
        ...

    def run(self, job: Callable[[Denoiser], Result], guidance_scale: float, latent_shape: Sequence[int]) -> Result:
        """Call ``job`` with a denoiser that can also repeat; see `FeatureBackbone.run`."""
        ...

    def conditioned(
        self, conditioning: Conditioning | None, config: VideoConfig, variant: Variant = "paper"
    ) -> Backbone:
        """Return the backbone of a window; see `FeatureBackbone.conditioned`."""
        ...


class VisionBackbone(Protocol):
    """A model that reads features off pictures as they are: no noise, no latents; the yardstick of the others."""

    @property
    def info(self) -> BackboneInfo:
        """What the model is; its kind is ``vision``."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        ...

    def read_frames(self, frames: Tensor, layers: Sequence[Layer]) -> tuple[Tensor, ...]:
        """Return what each layer says of the coarse cells, ``(T,N,C)`` float32, on the CPU, of ``(T,H,W,3)``."""
        ...


FeatureSource = FeatureBackbone | VisionBackbone
"""What gives features."""


def find_vision(source: FeatureSource) -> VisionBackbone | None:
    """Return ``source`` if it reads pictures as they are."""
    return cast("VisionBackbone", source) if hasattr(source, "read_frames") else None


def require_diffusion(source: FeatureSource) -> FeatureBackbone:
    """Return ``source`` as a diffusion model; one that reads pictures as they are is refused."""
    if find_vision(source):
        raise InputError(f"`model` must be a diffusion model, but {source.info.name} is not. Choose another method.")
    return cast("FeatureBackbone", source)


def require_modulation(backbone: FeatureSource) -> Backbone:
    """Return ``backbone`` as one that can be modulated; one that gives features only is refused."""
    if not hasattr(backbone, "decode"):
        raise InputError(
            f"`backbone` must decode and repeat calls to be modulated, but got {type(backbone).__name__}, which gives "
            "features only. Choose a quality without modulation, `fast` or `draft`."
        )
    return cast("Backbone", backbone)


def require_latents(latents: Tensor) -> None:
    """Check that there are latents ``(T,4,h,w)`` with sides that a UNet can halve."""
    sizes = require_shape("latents", latents, "T 4 h w")
    if sizes["T"] < 1 or sizes["h"] % LATENT_MULTIPLE or sizes["w"] % LATENT_MULTIPLE:
        raise InputError(
            f"`latents` must have sides that are multiples of {LATENT_MULTIPLE}, but got {tuple(latents.shape)}. "
            "Resize the frames to multiples of 64 pixels."
        )


def require_attention(name: str, blocks: Sequence[Layer | None]) -> tuple[int, ...]:
    """Return ``blocks`` if all of them are numbers of blocks that hold attention."""
    unknown = [block for block in blocks if block not in ATTENTION_BLOCKS]
    if unknown:
        raise InputError(f"`{name}` must name decoder blocks with attention, {ATTENTION_BLOCKS}, but got {unknown}.")
    return tuple(int(block) for block in blocks if block is not None)


def require_whole_windows(frames: Tensor, count: int, total: int) -> None:
    """Check that ``frames`` are ``0 .. count - 1`` in order, once or more, for ``total`` latents."""
    whole = [*range(count)] * max(1, total // count)
    if len(frames) != total or frames.tolist() != whole:
        raise InputError(
            f"`frames` must be whole windows of {count} frames in order for a video model, but got {frames.tolist()}."
        )


def split_replay(frames: Sequence[int]) -> list[slice]:
    """Return the parts in which a CPU repeats elements: each of one frame, of `REPLAYED_TOGETHER` elements at most.

    ``frames`` names the frame that each element repeats; equal ones lie next to each other.

    >>> split_replay([0, 0, 0, 0, 0, 0, 1, 1])
    [slice(0, 4, None), slice(4, 6, None), slice(6, 8, None)]
    """
    parts: list[slice] = []
    for index, frame in enumerate(frames):
        last = parts[-1] if parts else None
        if last is not None and frame == frames[last.start] and index - last.start < REPLAYED_TOGETHER:
            parts[-1] = slice(last.start, index + 1)
        else:
            parts.append(slice(index, index + 1))
    return parts


def halve_on_out_of_memory(
    run: Callable[[int], Result], size: int, is_out_of_memory: Callable[[BaseException], bool]
) -> Result:
    """Call ``run(size)``, with half the size each time that memory runs out, down to one."""
    while True:
        failed = False
        try:
            return run(size)
        except Exception as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            failed = True
        if failed:  # outside the handler, where the exception no longer holds tensors
            size = max(1, size // 2)
