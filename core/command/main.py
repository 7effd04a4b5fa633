"""The command line: `vidseg segment`, `regions`, `score`, `bench`, `demo` and `info`."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ..backbones.memory import check_device, describe_peak, is_out_of_memory
from ..checkpoints.describe import ModelDescription, describe_model
from ..checkpoints.vision import VisionDescription, describe_features
from ..config.overrides import with_overrides
from ..config.settings import OWN, QUALITIES, Settings, with_quality
from ..engine.cluster import Cluster
from ..engine.model import ModelSpec, Workplace
from ..engine.windows import ClipOnRay
from ..evaluation.baselines import MODEL_FREE
from ..evaluation.scoring import score_folder
from ..files.package import DEMO_CLIP, DEMO_MODEL, find_version
from ..method.estimate import expect_stage_shares
from ..progress import RunProgress, format_count, open_display
from ..types import InputError, InterruptedByUserError, Region, SettingError
from .bench import add_options as add_bench_options
from .bench import bench
from .clips import ClipsRun, list_clips, make_jobs
from .info import format_facts, list_facts
from .options import DTYPES, add_device_options, add_segment_options, list_words, make_settings, read_cluster, read_path
from .regions import STAGE, Recut
from .segment import Maker, MakerHere, SegmentOptions, SegmentRun
from .streams import PatientStream, settle

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130
"""Exit codes: input that cannot be processed; stopped by Ctrl-C, as shells report it."""
DEMO_OVERRIDES = ("frame.max_side=256", "cluster.num_clusters=10")
"""Settings of the demonstration, small enough for two CPU cores."""
DEMO_QUALITY, DEMO_FOLDER = "fast", Path("vidseg-demo")
"""Quality and folder of the demonstration unless others are asked for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 2 for input that cannot be processed, 130 after Ctrl-C."""
    streams = sys.stdout, sys.stderr
    out, err = map(PatientStream, streams)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return _run(list(sys.argv[1:] if argv is None else argv), out)
    finally:
        for stream in streams:
            settle(stream)


def _run(words: list[str], out: PatientStream) -> int:
    """Run the command; an answer that could not be written is an error, a report of a run is not."""
    arguments = build_parser().parse_args(words)
    try:
        command: Callable[[argparse.Namespace, list[str]], int] = arguments.command
        code = command(arguments, words)
        out.flush()
        if command in (_score, _info) and isinstance(out.lost, OSError) and not isinstance(out.lost, BrokenPipeError):
            raise out.lost
        return code
    except (InputError, OSError, MemoryError, RuntimeError) as error:
        if arguments.debug or (isinstance(error, RuntimeError) and not is_out_of_memory(error)):
            raise
        _tell(f"vidseg: error: {explain(error, list_words(arguments))}")
        return EXIT_BAD_INPUT
    except (KeyboardInterrupt, InterruptedByUserError):
        _tell("vidseg: stopped.")
        return EXIT_INTERRUPTED


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="vidseg", description="Segment a whole video into consistent regions, without prompt or training."
    )
    parser.add_argument("--version", action="version", version=f"vidseg {find_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    segment = commands.add_parser("segment", help="segment video files or folders of frames")
    add_segment_options(segment)
    segment.set_defaults(command=_segment)
    score = commands.add_parser("score", help="compare label maps with a folder of masks")
    score.add_argument("result", type=read_path, metavar="DIR", help="folder of a result, or of maps 00000.png, ...")
    score.add_argument(
        "masks", type=read_path, metavar="MASKS", help="folder of masks, named as the frames; of a video 00000.png, ..."
    )
    score.set_defaults(command=_score)
    regions = commands.add_parser("regions", help="change the number of regions of a result, without running a model")
    regions.add_argument("result", type=read_path, metavar="DIR", help="folder of a result of vidseg segment")
    regions.add_argument("--num", type=int, metavar="N", help="number of regions; fewer merge, more only split")
    regions.add_argument(
        "--split", type=int, action="append", default=[], metavar="LABEL", help="then split this region in two; repeat"
    )
    regions.add_argument("--clip", type=read_path, metavar="FILE", help="the clip, to draw the overlay again")
    regions.set_defaults(command=_regions)
    demo = commands.add_parser("demo", help="segment the bundled clip with the bundled model")
    demo.add_argument(
        "--out", type=read_path, default=DEMO_FOLDER, metavar="DIR", help=f"folder of the result ({DEMO_FOLDER})"
    )
    demo.add_argument(
        "--quality", default=DEMO_QUALITY, choices=list(QUALITIES), help=f"{OWN['quality'].text} ({DEMO_QUALITY})"
    )
    demo.add_argument("--overwrite", action="store_true", help="replace an earlier result")
    demo.set_defaults(command=_demo)
    add_bench_options(bench_parser := commands.add_parser("bench", help="score a data set as the paper does"))
    add_device_options(bench_parser)
    bench_parser.set_defaults(command=_bench)
    info = commands.add_parser("info", help="describe a model file or folder")
    info.add_argument(
        "model",
        type=read_path,
        metavar="MODEL",
        help=".safetensors file, or folder of diffusers or transformers",
    )
    info.set_defaults(command=_info)
    for command in (score, info):
        command.add_argument("--json", action="store_true", help="print JSON, for programs")
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser


def _segment(arguments: argparse.Namespace, words: list[str]) -> int:
    check_device(arguments.device)
    clips = list_clips(arguments.input)
    model = _describe_asked(arguments)
    told = (model.kind, model.num_frames) if model else ("sd", 0)
    spec = ModelSpec(model, arguments.device, DTYPES[arguments.dtype])
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
        _tell(f"vidseg: stopped; {finished}. Continue with: vidseg {shlex.join(again)}")
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
        _tell(f"vidseg: stopped; {finished} in {options.out}. Continue with: vidseg {shlex.join(again)}")
        return EXIT_INTERRUPTED
    finally:
        progress.close()
    already = ", finished already" if outcome.was_finished else ""
    sys.stdout.write(f"{_describe(outcome.num_frames, outcome.regions)}: {options.out}{already}\n")
    if options.settings.video.frames:
        _tell(f"vidseg: peak memory {describe_peak()}")
    return 0


def _describe(num_frames: int, regions: Sequence[Region]) -> str:
    return f"{format_count(num_frames, 'frame')}, {format_count(len(regions), 'region')}"


def _bench(arguments: argparse.Namespace, words: list[str]) -> int:
    check_device(arguments.device)
    path = arguments.model or _bundled_model()
    model = describe_model(path.absolute()) if path else None
    features = describe_features(arguments.features.absolute()) if arguments.features else None
    return bench(arguments, words, ModelSpec(model, arguments.device, DTYPES[arguments.dtype], features))


def _describe_asked(arguments: argparse.Namespace) -> ModelDescription | VisionDescription | None:
    """Return what gives features, by its options; None for baselines without a model."""
    if arguments.model and arguments.features:
        raise InputError("`--model` must not be combined with `--features`, but got both. Give one of them.")
    far = arguments.engine == "ray"  # workers have other current folders
    if arguments.features:
        return describe_features(arguments.features.absolute() if far else arguments.features)
    path = None if arguments.baseline in MODEL_FREE else arguments.model or _bundled_model()
    return describe_model(path.absolute() if far else path) if path else None


def _bundled_model() -> Path | None:
    return DEMO_MODEL if DEMO_MODEL.exists() else None


def _score(arguments: argparse.Namespace, _words: list[str]) -> int:
    scores = score_folder(arguments.result, arguments.masks)
    if not scores.named:
        _tell("vidseg: the regions were not named by --anchor-mask, so their numbers are not those of the masks.")
    sys.stdout.write(scores.to_json() if arguments.json else scores.to_text())
    return 0


def _info(arguments: argparse.Namespace, _words: list[str]) -> int:
    facts = list_facts(arguments.model)
    sys.stdout.write(json.dumps(facts, indent=1) + "\n" if arguments.json else format_facts(facts))
    return 0


def explain(error: BaseException, words: Mapping[str, str]) -> str:
    """Return one line that says what is wrong and what to do, with ``words`` for the keys of settings."""
    if is_out_of_memory(error):
        return "memory ran out. Reduce --max-side or --window, or use --dtype fp16 on a GPU."
    if isinstance(error, OSError) and not isinstance(error, InputError):
        where = f" {error.filename}" if error.filename else ""
        return f"the system refused{where}: {error.strerror or error}. Check the path and its rights."
    return " ".join((error.told(words) if isinstance(error, InputError) else str(error)).split())


def _tell(text: str) -> None:
    """Write a line to the error stream."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
