"""One call for Python users: frames in, labels and regions out, of the whole clip or window by window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .backbones.memory import check_device
from .backbones.protocol import FeatureSource
from .checkpoints.describe import describe_model
from .config.keywords import list_keywords, with_changes
from .config.settings import Settings, preset, require_served, with_quality, with_window_frames
from .files.arrays import Array, to_labels, to_tensor
from .files.checks import check_mask_size, prepare_anchor_mask, read_anchor_mask
from .files.clip import open_clip
from .files.package import DEMO_MODEL
from .leaves import Leaves
from .method import pipeline
from .method.frames import FrameSource, HeldFrames, check_tokens
from .method.windows import require_kind
from .regions.cutting import cut_regions
from .types import InputError, LabelMaps, Progress, Region, no_progress

__all__ = ["InputError", "Region", "Segmentation", "Settings", "load_model", "segment", "segment_windows"]


class Segmentation(NamedTuple):
    """Labels and regions of a clip, or of one window of it.

    Attributes:
        frames: numbers of the frames, from 0 on.
        maps: ``(T,H,W)`` uint8 tensor on the CPU: the label, 0 to 255, of each pixel of these frames, in their size.
        regions: every label that may occur in the maps, with its name, sorted by label.
        leaves: the small clusters that regions are made of, so that `cut` can change their number; else None.
    """

    frames: range
    maps: Tensor
    regions: tuple[Region, ...]
    leaves: Leaves | None = None

    def cut(self, num_regions: int) -> Segmentation:
        """Return the same frames in another number of regions, without running the model; more regions only split.

        Args:
            num_regions: 1 to the number of leaves; regions found after the anchor frame come on top.

        Returns:
            Label maps ``(T,H,W)`` uint8 and regions. A region that stays the same keeps its name.

        Raises:
            InputError: the regions have no leaves, as with ``method="kmeans"``; or the number is below 1.
        """
        cut = cut_regions(LabelMaps(self.maps, self.regions, leaves=self.leaves), num_regions)
        return Segmentation(self.frames, cut.maps, cut.regions, cut.leaves)


def load_model(
    path: str | Path | None = None, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> FeatureSource:
    """Load a model once, for several clips. Nothing is downloaded.

    Args:
        path: a ``.safetensors`` file or a diffusers folder of Stable Diffusion 1.x, 2.x, SDXL or Stable Video
            Diffusion;
            None loads the small model that comes with the package, for trying things out.
        device: ``cuda``, ``mps`` or ``cpu``; None takes the first of them that the machine has.
        dtype: ``torch.float32``, ``torch.float16`` or ``torch.bfloat16``; half precision is for GPUs.

    Returns:
        The model on its device, as `segment` and `segment_windows` take it.

    Raises:
        InputError: no such file, another kind of model, or no such device or type.
    """
    target = _find_model(path)
    check_device(device)
    from .backbones.diffusers.load import load_diffusers  # noqa: PLC0415, diffusers takes seconds to import

    return load_diffusers(target, dtype=dtype, device=device)


def segment(  # noqa: PLR0913
    frames: Array | str | Path,
    model: FeatureSource | str | Path | None = None,
    *,
    preset: str = "default",
    quality: str = "exact",
    settings: Settings | None = None,
    anchor_mask: Array | str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    **changes: object,
) -> Segmentation:
    """Divide a clip into regions that keep their identity from frame to frame.

    Label maps of the whole clip are held in memory, one byte a pixel; `segment_windows` holds those of a window.

    Args:
        frames: ``(T,H,W,3)`` RGB, a tensor or an array, uint8 in [0, 255] or floating-point in [0, 1]; or the path of
            a video file or of a folder of images.
        model: what `load_model` returned, or a path for it; None is the small model that comes with the package.
        preset: ``default``, ``paper``, ``reference`` (the published code, faults included) or ``emerdiff``.
        quality: ``exact`` (the paper's), ``balanced``, ``fast`` or ``draft``, each faster than the one before.
        settings: all settings, made with `Settings.of`, instead of ``preset`` and ``quality``.
        anchor_mask: ``(H,W)`` integer labels of the first frame, 0 to 254, 255 unknown, or the path of a PNG of them;
            regions then take these labels. Black and white (0 and 255) means labels 0 and 1.
        device: for a model given by path, as for `load_model`.
        dtype: likewise; None is ``torch.float32``.
        progress: called as ``progress(stage, done, total)`` after each unit of work; what it raises stops the run.
        **changes: single settings: by the name of the field (``num_clusters=12``), or by part and field
            (``modulation__enabled=False``) where two parts have a field of that name or `segment` an argument.

    Returns:
        Label maps ``(T,H,W)`` uint8 and regions of all frames.

    Raises:
        InputError: frames, model, mask or a setting do not fit; found before any frame is processed.
    """
    given = _Given(frames, model, preset, quality, settings, anchor_mask, device, dtype, progress, changes)
    job = given.prepare()
    with job.files, _naming(job.names):
        labels = pipeline.segment(
            job.backbone, job.source, job.settings, reference=job.reference, progress=job.progress
        )
    return Segmentation(range(job.source.num_frames), labels.maps, labels.regions, labels.leaves)


def segment_windows(  # noqa: PLR0913
    frames: Array | str | Path,
    model: FeatureSource | str | Path | None = None,
    *,
    preset: str = "default",
    quality: str = "exact",
    settings: Settings | None = None,
    anchor_mask: Array | str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    **changes: object,
) -> Iterator[Segmentation]:
    """Do as `segment`, window by window, for clips of any length: memory does not grow with the number of frames.

    Everything is checked, and the model loaded, by the call; the work is done by iterating.

    Args:
        frames: ``(T,H,W,3)``, as for `segment`; of a path, the frames of a window are decoded when it is their turn.
        model: as for `segment`.
        preset: as for `segment`.
        quality: as for `segment`.
        settings: as for `segment`.
        anchor_mask: ``(H,W)``, as for `segment`.
        device: as for `segment`.
        dtype: as for `segment`.
        progress: as for `segment`.
        **changes: single settings, as for `segment`; ``length=14`` is the number of frames of a window.

    Returns:
        An iterator over label maps ``(T,H,W)`` uint8 and regions of each window in order, equal to those of `segment`.
        A later window may have more regions. The preset ``reference`` gives some frames twice; the later ones count.

    Raises:
        InputError: frames, model, mask or a setting do not fit; found before any frame is processed.
    """
    given = _Given(frames, model, preset, quality, settings, anchor_mask, device, dtype, progress, changes)
    return _iterate(given.prepare())


def _iterate(job: _Job) -> Iterator[Segmentation]:
    with job.files, _naming(job.names):
        for window in pipeline.segment_windows(
            job.backbone, job.source, job.settings, reference=job.reference, progress=job.progress
        ):
            labels = window.labels
            yield Segmentation(window.frames, labels.maps, labels.regions, labels.leaves)


class _Job(NamedTuple):
    """What was asked for, checked and loaded; ``names`` are the caller's words for what the core calls otherwise."""

    backbone: FeatureSource
    source: FrameSource
    settings: Settings
    reference: Tensor | None
    progress: Progress
    names: dict[str, str]
    files: ExitStack


@dataclass
class _Given:
    """The arguments of `segment`, in its order."""

    frames: Array | str | Path
    model: FeatureSource | str | Path | None
    preset: str
    quality: str
    settings: Settings | None
    anchor_mask: Array | str | Path | None
    device: torch.device | str | None
    dtype: torch.dtype | None
    progress: Progress | None
    changes: dict[str, object]

    def prepare(self) -> _Job:
        """Check everything, cheap things first, then load the model."""
        settings, progress = self._make_settings(), self.progress or no_progress
        names = {"input": "frames", **{key: keyword for keyword, key in list_keywords().items()}}
        with ExitStack() as files, _naming(names):
            check_device(self.device)
            reference = self._read_reference(new_regions=settings.scene.new_regions)
            source, size = self._open_frames(reference, progress, files)
            check_tokens(size, source.num_frames, settings)
            backbone = self._load()
            require_kind(backbone, settings)
            return _Job(backbone, source, settings, reference, progress, names, files.pop_all())

    def _make_settings(self) -> Settings:
        """Return all settings, of the kind of the model."""
        kind, num_frames, name = self._describe_model()
        if self.settings is not None:
            if (self.preset, self.quality) != ("default", "exact"):
                raise InputError("`settings` must not be combined with `preset` or `quality`. Use `Settings.of`.")
            settings = with_changes(self.settings, self.changes)
        else:
            settings = with_window_frames(preset(self.preset, kind), num_frames)
            settings = with_changes(with_quality(settings, self.quality), self.changes)
        require_served(settings, kind, name)
        return settings

    def _describe_model(self) -> tuple[str, int, str]:
        """Return the kind of the model, the frames that it sees together if it tells, else 0, and its name."""
        if self.model is None or isinstance(self.model, str | Path):
            description = describe_model(_find_model(self.model))
            return description.kind, description.num_frames, description.path.name
        if not hasattr(self.model, "info"):
            raise InputError(
                f"`model` must be a path or what `load_model` returns, but got {type(self.model).__name__}. "
                "Load it with `load_model`."
            )
        for name, value in (("device", self.device), ("dtype", self.dtype)):
            if value is not None:
                raise InputError(
                    f"`{name}` must not be given with a loaded model, but got {value}. Give it to `load_model`."
                )
        num_frames = getattr(getattr(self.model, "description", None), "num_frames", 0)
        return self.model.info.kind, num_frames, self.model.info.name

    def _read_reference(self, *, new_regions: bool) -> Tensor | None:
        """Return labels ``(H,W)`` uint8 of the first frame."""
        mask = self.anchor_mask
        if mask is None or isinstance(mask, str | Path):
            return read_anchor_mask(None if mask is None else Path(mask), new_regions=new_regions)[0]
        labels = to_labels("anchor_mask", mask)
        return prepare_anchor_mask(labels, "the array", new_regions=new_regions)

    def _open_frames(
        self, reference: Tensor | None, progress: Progress, files: ExitStack
    ) -> tuple[FrameSource, tuple[int, int]]:
        """Return the frames and their size ``(H, W)``."""
        if isinstance(self.frames, str | Path):
            clip = files.enter_context(open_clip(Path(self.frames), progress, partial(check_mask_size, reference)))
            return clip, clip.info.frame_size
        held = HeldFrames(to_tensor("frames", self.frames))
        check_mask_size(reference, held.size)
        return held, held.size

    def _load(self) -> FeatureSource:
        """Return the model."""
        if self.model is None or isinstance(self.model, str | Path):
            return load_model(self.model, device=self.device, dtype=self.dtype or torch.float32)
        return self.model


def _find_model(path: str | Path | None) -> Path:
    """Return the path, or that of the bundled model."""
    if path is None and not DEMO_MODEL.is_file():
        raise InputError("`model` must name a model, since none is bundled here. Give a .safetensors file.")
    return DEMO_MODEL if path is None else Path(path)


@contextmanager
def _naming(names: dict[str, str]) -> Iterator[None]:
    """Let errors use the caller's words."""
    try:
        yield
    except InputError as error:
        raise InputError(error.told(names)) from None
