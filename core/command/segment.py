"""The command `vidseg segment`: check everything, then segment window by window into a folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..config.settings import Settings, require_served
from ..engine.model import ModelSpec, Workplace
from ..evaluation.baselines import MODEL_FREE, Kind, Start, run_method
from ..evaluation.slic import require_slic
from ..files.checks import check_apart, check_mask_size, read_anchor_mask
from ..files.clip import Clip, ClipInfo, open_clip
from ..files.overlay import OverlayWriter
from ..files.record import RunDescription, RunResult
from ..files.result_folder import OVERLAY_FILE, STATE_FILE, ResultFolder
from ..files.video import require_encoder
from ..leaves import Leaves
from ..method.estimate import announce
from ..method.frames import check_tokens
from ..method.pipeline import ScanState, WindowResult
from ..method.windows import split_spans
from ..progress import RunProgress
from ..regions.labels import count_pixels
from ..regions.palette import draw_legend
from ..types import InputError, InterruptedByUserError, Progress, Region, SettingError

RECORD_GROWTH = 1.5
"""Factor by which the finished frames grow between two records of an unfinished run."""


@dataclass(frozen=True)
class SegmentOptions:
    """What a person asks for."""

    input: Path
    out: Path
    model: ModelSpec  # without a description for baselines that need no model
    settings: Settings
    anchor_mask: Path | None = None
    baseline: Kind | None = None
    overwrite: bool = False
    resume: bool = False


class Outcome(NamedTuple):
    """What a run left: frames of the clip, labels that may occur, and whether an earlier run had finished it."""

    num_frames: int
    regions: tuple[Region, ...]
    was_finished: bool


class Maker(Protocol):
    """What makes the windows of a clip, here or elsewhere."""

    def prepare(self, num_frames: int, settings: Settings) -> str:
        """Load the model, wherever it is needed; return the kind of device that it is on."""
        ...

    def count_together(self, num_frames: int, settings: Settings) -> int:
        """Return how many frames progress shows as one piece of work."""
        ...

    def announce(self, progress: RunProgress, info: ClipInfo, settings: Settings, first: int) -> None:
        """Say how long the frames from ``first`` on will take, where that is known."""
        ...

    def make(
        self, clip: Clip, settings: Settings, reference: Tensor | None, state: ScanState | None, progress: Progress
    ) -> Iterator[WindowResult]:
        """Yield the windows in order, from that on which the state tells."""
        ...


class MakerHere:
    """Makes windows in this process, one after the other, by the method or a baseline."""

    def __init__(self, place: Workplace, kind: Kind) -> None:
        self._place, self._kind = place, kind

    def prepare(self, num_frames: int, settings: Settings) -> str:
        """Load the model, unless an earlier clip has."""
        del num_frames, settings
        return self._place.spec.choose_device().type if self._place.backbone else "cpu"

    def count_together(self, num_frames: int, settings: Settings) -> int:
        """Return the frames of a window."""
        del num_frames
        return settings.video.frames or settings.window.length

    def announce(self, progress: RunProgress, info: ClipInfo, settings: Settings, first: int) -> None:
        """Say how long the run will take, after a look at what the model costs."""
        if self._place.backbone is not None:
            announce(progress, self._place.backbone, settings, info.frame_size, info.num_frames, first)

    def make(
        self, clip: Clip, settings: Settings, reference: Tensor | None, state: ScanState | None, progress: Progress
    ) -> Iterator[WindowResult]:
        """Return the windows."""
        return run_method(self._kind, self._place.backbone, clip, settings, Start(reference, state), progress)


class SegmentRun:
    """One run. `execute` does all of it; when it is interrupted, `frames_done` tells how far it came."""

    def __init__(self, options: SegmentOptions, progress: RunProgress, maker: Maker) -> None:
        self.options = options
        self._maker = maker
        self.num_frames = self.frames_done = 0
        self._progress = progress
        self._folder = ResultFolder(options.out)
        self._areas = torch.zeros(256, dtype=torch.int64)
        self._next_record = 0
        self._regions: tuple[Region, ...] = ()
        self._leaves: Leaves | None = None

    def execute(self) -> Outcome:
        """Check, segment and write everything."""
        self._check_options()
        with self._folder.hold():
            return self._execute()

    def _execute(self) -> Outcome:
        """Do all of it in a folder that no other run uses."""
        options = self.options
        self._folder.require_free(overwrite=options.overwrite, resume=options.resume)
        reference, mask_hash = read_anchor_mask(options.anchor_mask, new_regions=options.settings.scene.new_regions)
        with open_clip(options.input, self._progress, partial(check_mask_size, reference)) as clip:
            self.num_frames = clip.num_frames
            height, width = clip.info.frame_size
            require_encoder(OVERLAY_FILE, clip.info.frame_size)
            together = 1 if options.baseline in {"frame", "slic"} else clip.num_frames
            check_tokens((height, width), together, options.settings)
            self._folder.prepare(clip.num_frames * height * width)
            run = RunDescription(
                clip=clip.info,
                model=options.model.info,
                device=self._maker.prepare(clip.num_frames, options.settings),
                dtype=str(options.model.dtype).removeprefix("torch."),
                settings=options.settings,
                baseline=options.baseline,
                anchor_mask=mask_hash,
            )
            state = self._begin(run)
            was_finished = options.resume and self._folder.is_finished()
            if not was_finished:
                self._maker.announce(self._progress, clip.info, options.settings, self.frames_done)
                with OverlayWriter(self._folder, clip) as overlay:
                    overlay.show(self.frames_done)
                    windows = self._maker.make(clip, options.settings, reference, state, self._progress)
                    self._segment(run, windows, overlay)
                    self._finish(run, overlay)
        return Outcome(self.num_frames, self._regions, was_finished)

    def _check_options(self) -> None:
        """Check what needs no file's content."""
        options = self.options
        if options.resume and options.overwrite:
            raise SettingError("resume", "not be combined with {0}", "both", "Use one of them", "overwrite")
        if options.resume and options.baseline:
            limit, remedy = "not be combined with {0}", "Start it anew with {1}"
            raise SettingError("resume", limit, "both", remedy, "baseline", "overwrite")
        check_apart(options.input, options.out)
        self._folder.require_free(overwrite=options.overwrite, resume=options.resume)
        if options.baseline == "slic":
            require_slic()
        if options.baseline not in MODEL_FREE and options.model.description is None:
            raise InputError("`model` must name a model, since none is bundled here. Give a .safetensors file.")
        model = options.model.description
        if model is not None and options.baseline in {None, "frame"}:
            require_served(options.settings, model.kind, model.path.name)
        self._folder.require_writable()

    def _begin(self, run: RunDescription) -> ScanState | None:
        """Make the folder ready; return the state to go on from, if there is one."""
        folder, state = self._folder, None
        if self.options.resume:
            folder.require_same_run(run)
            if folder.is_finished():
                self.frames_done, self._regions = self.num_frames, folder.read_regions()
                return None
            if folder.state.exists():
                state = ScanState.load(folder.state, run.settings.context)
                self._regions, self._leaves = state.anchor_labels.regions, state.anchor_labels.leaves
                self.frames_done = self._first_frame(state)
                for label_map in folder.read_label_maps(self.frames_done):
                    self._areas += count_pixels(label_map[None])[0]
        if state is None:
            folder.start_anew()
        self._write_record(run, finished=False)
        together = self._maker.count_together(self.num_frames, run.settings)
        self._progress.start(self.num_frames, together, self.frames_done)
        return state

    def _first_frame(self, state: ScanState) -> int:
        """Return how many frames are finished in ``state``."""
        work = split_spans(self.num_frames, self.options.settings)
        if state.next_window > len(work):
            got = f"one that stands at window {state.next_window} of {len(work)}"
            raise SettingError("resume", f"find the {STATE_FILE} of this run", got, "Start anew with {0}", "overwrite")
        return work[state.next_window - 1].kept.stop if state.next_window else 0

    def _segment(self, run: RunDescription, results: Iterator[WindowResult], overlay: OverlayWriter) -> None:
        """Write each window as it is finished: labels first, then the state that counts them as finished."""
        try:
            self._write_windows(run, results, overlay)
        except (KeyboardInterrupt, InterruptedByUserError):
            with contextlib.suppress(InputError):  # to have been stopped is what counts
                self._write_record(run, finished=False)
            raise

    def _write_windows(self, run: RunDescription, results: Iterator[WindowResult], overlay: OverlayWriter) -> None:
        """Write windows by a thread, each while the next one is made."""
        with ThreadPoolExecutor(1, "vidseg-writer") as writer:
            written: Future[None] | None = None
            for window in results:
                self._progress.window_done(window.frames.stop)
                if written is not None:
                    written.result()
                written = writer.submit(self._write_window, run, window, overlay)
            if written is not None:
                written.result()

    def _write_window(self, run: RunDescription, window: WindowResult, overlay: OverlayWriter) -> None:
        self._folder.write_label_maps(window.frames.start, window.labels)
        if window.state is not None:
            self._folder.write_bytes(STATE_FILE, window.state.to_bytes())
        self._areas += count_pixels(window.labels.maps).sum(0)
        self._regions, self._leaves = window.labels.regions, window.labels.leaves
        self.frames_done = window.frames.stop
        overlay.show(self.frames_done)
        if self.frames_done >= self._next_record:  # more and more rarely: the record grows with the clip
            self._write_record(run, finished=False)
            self._next_record = int(RECORD_GROWTH * self.frames_done)

    def _finish(self, run: RunDescription, overlay: OverlayWriter) -> None:
        """Write what shows the whole clip, and drop the state."""
        self._folder.write_legend(draw_legend(self._regions))
        overlay.finish(self._progress)
        self._write_record(run, finished=True)
        self._folder.state.unlink(missing_ok=True)

    def _write_record(self, run: RunDescription, *, finished: bool) -> None:
        """Write `segmentation.json` as far as the run has come."""
        result = RunResult(self._regions, self._leaves, self._areas.tolist(), self.frames_done, finished)
        self._folder.write_record(run, result)
