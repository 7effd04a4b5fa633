"""Many clips by `vidseg segment`: which they are, a folder for each, and the table at the end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..engine.cluster import Cluster
from ..engine.jobs import Ended, JobsProgress, Tell, run_here, run_on_ray
from ..engine.model import ModelSpec, Workplace
from ..evaluation.baselines import MODEL_FREE
from ..files.clip import ClipInfo, fingerprint_clip, list_clip_files
from ..files.disk import OUT
from ..files.record import RunDescription
from ..files.result_folder import RECORD_FILE, ResultFolder
from ..method.estimate import expect_stage_shares
from ..progress import Display, RunProgress, open_display
from ..types import InputError, SettingError
from .segment import MakerHere, Outcome, SegmentOptions, SegmentRun

LIST_SUFFIX = ".txt"
"""Ending of a file that lists clips, one path a line; # begins a remark."""
EXIT_OK, EXIT_INCOMPLETE = 0, 2
"""Exit codes: every clip has a result; some have none."""
_MEETING_POINT = ".vidseg-here"
"""File in the folder of all results while workers look whether they see it."""


@dataclass(frozen=True)
class ClipJob:
    """A clip, and the folder and settings of its result. It can be sent to another process.

    Attributes:
        name: of its folder.
        options: what is done.
        anew: whether a finished result is replaced.
    """

    name: str
    options: SegmentOptions
    anew: bool


class Row(NamedTuple):
    """What the table says of a clip."""

    name: str
    frames: int | None = None
    regions: int | None = None
    seconds: float | None = None
    note: str = ""
    failed: bool = False


def list_clips(inputs: Sequence[Path]) -> list[Path] | None:
    """Return the clips that are asked for, those of lists included; None where it is one, by itself."""
    if len(inputs) == 1 and inputs[0].suffix.lower() != LIST_SUFFIX:
        return None
    found: list[Path] = []
    for path in inputs:
        found += _read_list(path) if path.suffix.lower() == LIST_SUFFIX else [path]
    if not found:
        raise SettingError("input", "name at least one clip", f"{inputs[0]}, which names none", "Write one path a line")
    return found


def _read_list(path: Path) -> list[Path]:
    """Return the paths that a text file holds, one a line, seen from its folder."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text in UTF-8"
        raise SettingError("input", "be a readable list of paths", f"{path}: {reason}", "Check it") from error
    return [path.parent / line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def name_clips(paths: Sequence[Path]) -> list[str]:
    """Return what the folder of each clip is called: its name without ending, and more of its path where need be.

    >>> name_clips([Path("a/1.mp4"), Path("b/1.mp4"), Path("b/2.mp4"), Path("b/2.mov")])
    ['a_1.mp4', 'b_1.mp4', '2.mp4', '2.mov']
    """
    full = [path.absolute() for path in paths]
    ways = [[path.stem for path in full], [path.name for path in full]]
    ways.append([f"{path.parent.name}_{path.name}" for path in full])
    counts = [Counter(name.casefold() for name in way) for way in ways]
    names = []
    for number, path in enumerate(paths):
        free = [way[number] for way, count in zip(ways, counts, strict=True) if count[way[number].casefold()] == 1]
        if not free:
            limit = "name clips that differ in their names or those of their folders"
            raise SettingError("input", limit, f"{path} and another like it", "Rename one, or run it by itself")
        names.append(free[0])
    return names


def make_jobs(paths: Sequence[Path], options: SegmentOptions) -> list[ClipJob]:
    """Return a job for each clip; unless results are to be replaced, they are gone on with."""
    if options.anchor_mask is not None:
        raise SettingError("anchor_mask", "be given with one clip", f"{len(paths)} clips", "Run the clip by itself")
    if (options.out / RECORD_FILE).exists():
        got = f"{options.out}, which holds a result itself"
        raise SettingError("out", "be a folder for the results of many clips", got, "Choose another folder")
    replaces = options.overwrite or options.baseline is not None
    common = replace(options, overwrite=replaces, resume=not replaces)
    return [
        ClipJob(name, replace(common, input=path.absolute(), out=options.out.absolute() / name), options.overwrite)
        for name, path in zip(name_clips(paths), paths, strict=True)
    ]


def segment_clip(job: ClipJob, place: Workplace, display: Display) -> Row:
    """Segment a clip with the model of a place."""
    baseline, begin = job.options.baseline, time.monotonic()
    stages = {"features": 1.0} if baseline in MODEL_FREE else expect_stage_shares(job.options.settings)
    run = SegmentRun(job.options, RunProgress(display, stages), MakerHere(place, baseline or "method"))
    return _make_row(job, run.execute(), time.monotonic() - begin)


def _make_row(job: ClipJob, outcome: Outcome, seconds: float | None) -> Row:
    note = "finished already" if outcome.was_finished else ""
    return Row(job.name, outcome.num_frames, len(outcome.regions), None if note else seconds, note)


def find_finished(job: ClipJob) -> Row | None:
    """Return the row of a clip whose result is there; one of another run is refused."""
    options, folder = job.options, ResultFolder(job.options.out, OUT)
    if not folder.is_finished():
        return None
    record = folder.read_record()
    about, model = record.get("input", {}), record.get("model") or {}
    size = (about.get("height"), about.get("width"))
    fingerprint = fingerprint_clip(list_clip_files(options.input))
    run = RunDescription(
        clip=ClipInfo(options.input.name, about.get("num_frames"), size, None, None, fingerprint),
        model=options.model.info,
        device=options.model.device or model.get("device", "cpu"),  # wherever it was made
        dtype=str(options.model.dtype).removeprefix("torch."),
        settings=options.settings,
        baseline=options.baseline,
        anchor_mask=None,
    )
    folder.require_same_run(run)
    return _make_row(job, Outcome(record["frames_done"], folder.read_regions(), was_finished=True), None)


class ClipsRun:
    """One run over many clips; ``rows`` are those that ended, by name."""

    def __init__(self, jobs: Sequence[ClipJob], tell: Tell) -> None:
        self.jobs, self.rows = jobs, dict[str, Row]()
        self._tell = tell

    def execute(self, spec: ModelSpec, cluster: Cluster | None, display: Display | None = None) -> int:
        """Segment what is not finished, print the table, and return the exit code."""
        waiting = list(self._find_waiting())
        progress = JobsProgress(display or open_display(sys.stderr), len(waiting))
        try:
            if waiting:
                self._run(waiting, spec, cluster, progress)
        finally:
            progress.close()
        sys.stdout.write(make_table([self.rows[job.name] for job in self.jobs]))
        return EXIT_INCOMPLETE if any(row.failed for row in self.rows.values()) else EXIT_OK

    def _find_waiting(self) -> Iterator[ClipJob]:
        """Yield the clips without a result; note the others."""
        for job in self.jobs:
            try:
                row = None if job.anew else find_finished(job)
            except (InputError, OSError) as error:
                row = Row(job.name, note=self._tell(error), failed=True)
            if row is None:
                yield job
            else:
                self.rows[job.name] = row

    def _run(
        self, waiting: Sequence[ClipJob], spec: ModelSpec, cluster: Cluster | None, progress: JobsProgress
    ) -> None:
        """Segment clips here or on workers, and note how each ended."""
        out = waiting[0].options.out.parent
        out.mkdir(parents=True, exist_ok=True)
        meeting_point = out / _MEETING_POINT
        engine: Callable[..., Iterator[Ended[ClipJob, Row]]] = run_here
        if cluster:
            meeting_point.write_text("Workers look whether they see this.\n")
            inputs = [job.options.input for job in waiting if job.options.input.exists()]
            engine = partial(run_on_ray, cluster=cluster._replace(paths=(*cluster.paths, meeting_point, *inputs)))
        try:
            for ended in engine(waiting, segment_clip, spec, progress, self._tell):
                failed = Row(ended.job.name, note=ended.problem or "", failed=True)
                self.rows[ended.job.name] = ended.result or failed
                progress.finished(ended.job)
        finally:
            meeting_point.unlink(missing_ok=True)


def make_table(rows: Sequence[Row]) -> str:
    """Return the table of all clips.

    >>> print(make_table([Row("a", 12, 3, 1.26), Row("long", note="no video", failed=True)]), end="")
    clip  frames  regions  seconds
    a         12        3      1.3
    long       -        -        -  failed: no video
    """
    width = max(4, *(len(row.name) for row in rows))
    lines = [f"{'clip':<{width}}  frames  regions  seconds"]
    for row in rows:
        seconds = "-" if row.seconds is None else f"{row.seconds:.1f}"
        counts = ["-" if count is None else str(count) for count in (row.frames, row.regions)]
        note = f"  {'failed: ' if row.failed else ''}{row.note}" if row.note else ""
        lines.append(f"{row.name:<{width}}  {counts[0]:>6}  {counts[1]:>7}  {seconds:>7}{note}")
    return "\n".join(lines) + "\n"
