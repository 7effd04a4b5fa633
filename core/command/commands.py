"""What the commands do that need torch, which takes longer to import than others take to answer."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ..backbones.memory import check_device, describe_peak
from ..checkpoints.describe import describe_model
from ..checkpoints.vision import describe_features
from ..config.overrides import with_overrides
from ..config.settings import Settings, with_quality
from ..engine.cluster import Cluster
from ..engine.model import ModelSpec, Workplace
from ..engine.windows import ClipOnRay
from ..evaluation.baselines import MODEL_FREE
from ..evaluation.scoring import score_folder
from ..files.package import DEMO_CLIP, DEMO_MODEL
from ..method.estimate import expect_stage_shares
from ..progress import RunProgress, format_count, open_display
from ..types import InputError, InterruptedByUserError, Region, SettingError
from .asked import describe_asked, find_bundled, read_cluster, read_dtype
from .bench import bench
from .clips import ClipsRun, list_clips, make_jobs
from .messages import EXIT_INTERRUPTED, explain, tell
from .options import list_words, make_settings
from .regions import STAGE, Recut
from .segment import Maker, MakerHere, SegmentOptions, SegmentRun

DEMO_OVERRIDES = ("frame.max_side=448", "cluster.num_clusters=8", "cluster.motion=0.15", "sampling.seed=16")
"""Settings of the demonstration: the clip's own size, and motion, since its rabbit comes from among gray stones."""


def _segment(arguments: argparse.Namespace, words: list[str]) -> int:
    check_device(arguments.device)
    clips = list_clips(arguments.input)
    model = describe_asked(arguments)
    told = (model.kind, model.num_frames) if model else ("sd", 0)
    spec = ModelSpec(model, arguments.device, read_dtype(arguments))
    options = SegmentOptions(
        input=arguments.input[0],
        out=arguments.out,
        model=spec,
        settings=make_settings(arguments, *told),
        anchor_mask=arguments.anchor_mask,
        baseline=arguments.baseline,
        overwrite=arguments.overwrite,
        resume=arguments.resume,
    )
    cluster = read_cluster(arguments, spec, [])
    again = [word for word in words if word not in {"--overwrite", "--resume"}]
    if clips:
        run = ClipsRun(make_jobs(clips, options), partial(explain, words=list_words(arguments)))
        return _execute_clips(run, spec, cluster, again)
    again.append("--overwrite" if arguments.baseline else "--resume")
    if cluster is None:
        return _execute(options, again)
    if arguments.baseline:
        remedy = "Leave {0} out, or give more than one clip"
        raise SettingError("engine", "not be combined with {0} for one clip", arguments.baseline, remedy, "baseline")
    with ClipOnRay(spec, cluster, arguments.input[0]) as maker:
        return _execute(options, again, maker)


def _execute_clips(run: ClipsRun, spec: ModelSpec, cluster: Cluster | None, again: list[str]) -> int:
    """Run, and say how to go on after Ctrl-C."""
    try:
        return run.execute(spec, cluster)
    except (KeyboardInterrupt, InterruptedByUserError):
        done = sum(not row.failed for row in run.rows.values())
        finished = f"{done} of {format_count(len(run.jobs), 'clip')} are finished"
        tell(f"vidseg: stopped; {finished}. Continue with: vidseg {shlex.join(again)}")
        return EXIT_INTERRUPTED


def _regions(arguments: argparse.Namespace, _words: list[str]) -> int:
    if arguments.num is None and not arguments.split:
        raise InputError("`--num` or `--split` must be given, but got neither. Say how many regions there should be.")
    progress = RunProgress(open_display(sys.stderr), {STAGE: 1.0})
    try:
        recut = Recut(arguments.result, progress)
        recut.change(arguments.num, arguments.split)
        progress.start(recut.num_frames, recut.num_frames)
        with recut.folder.hold():
            recut.write(arguments.clip)
    finally:
        progress.close()
    sys.stdout.write(f"{_describe(recut.num_frames, recut.labels.regions)}: {arguments.result}\n")
    return 0


def _demo(arguments: argparse.Namespace, words: list[str]) -> int:
    for bundled in (DEMO_CLIP, DEMO_MODEL):
        if not bundled.is_file():
            raise InputError(f"`demo` must find {bundled}, but it is not there. Install again.")
    options = SegmentOptions(
        input=DEMO_CLIP,
        out=arguments.out,
        model=ModelSpec(describe_model(DEMO_MODEL)),
        settings=with_overrides(with_quality(Settings(), arguments.quality), DEMO_OVERRIDES),
        overwrite=arguments.overwrite,
    )
    return _execute(options, [*(word for word in words if word != "--overwrite"), "--overwrite"])


def _execute(options: SegmentOptions, again: list[str], maker: Maker | None = None) -> int:
    """Run, and say what was written, or how to go on after Ctrl-C; without a maker, in this process."""
    stages = {"features": 1.0} if options.baseline in MODEL_FREE else expect_stage_shares(options.settings)
    if maker is not None:  # which does not tell apart how windows are enlarged
        stages = {"features": stages["features"], "upsampling": 1 - stages["features"]}
    progress = RunProgress(open_display(sys.stderr), stages)
    run = SegmentRun(options, progress, maker or MakerHere(Workplace(options.model), options.baseline or "method"))
    try:
        outcome = run.execute()
    except (KeyboardInterrupt, InterruptedByUserError):
        progress.close()
        finished = f"{run.frames_done} of {run.num_frames} frames are finished"
        tell(f"vidseg: stopped; {finished} in {options.out}. Continue with: vidseg {shlex.join(again)}")
        return EXIT_INTERRUPTED
    finally:
        progress.close()
    already = ", finished already" if outcome.was_finished else ""
    sys.stdout.write(f"{_describe(outcome.num_frames, outcome.regions)}: {options.out}{already}\n")
    if options.settings.video.frames:
        tell(f"vidseg: peak memory {describe_peak()}")
    return 0


def _describe(num_frames: int, regions: Sequence[Region]) -> str:
    return f"{format_count(num_frames, 'frame')}, {format_count(len(regions), 'region')}"


def _bench(arguments: argparse.Namespace, words: list[str]) -> int:
    check_device(arguments.device)
    path = arguments.model or find_bundled()
    model = describe_model(path.absolute()) if path else None
    features = describe_features(arguments.features.absolute()) if arguments.features else None
    return bench(arguments, words, ModelSpec(model, arguments.device, read_dtype(arguments), features))


def _score(arguments: argparse.Namespace, _words: list[str]) -> int:
    scores = score_folder(arguments.result, arguments.masks)
    if not scores.named:
        tell("vidseg: the regions were not named by --anchor-mask, so their numbers are not those of the masks.")
    sys.stdout.write(scores.to_json() if arguments.json else scores.to_text())
    return 0


COMMANDS: Mapping[str, Callable[[argparse.Namespace, list[str]], int]] = {
    "segment": _segment,
    "score": _score,
    "regions": _regions,
    "demo": _demo,
    "bench": _bench,
}
"""By name; each returns the exit code."""
