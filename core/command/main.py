"""The command line: `vidseg segment`, `regions`, `score`, `bench`, `demo` and `info`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..config.settings import OWN, QUALITIES
from ..files.package import find_version
from ..types import InputError, InterruptedByUserError
from .info import info
from .messages import EXIT_BAD_INPUT, EXIT_INTERRUPTED, explain, lacks_memory, tell
from .options import add_bench_options, add_segment_options, list_words, read_path
from .streams import PatientStream, settle

Command = Callable[[argparse.Namespace, list[str]], int]
"""Takes options, and the words that were typed; returns the exit code."""
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
        code = _find_command(arguments.command)(arguments, words)
        out.flush()
        answers = arguments.command in {"score", "info"}
        if answers and isinstance(out.lost, OSError) and not isinstance(out.lost, BrokenPipeError):
            raise out.lost
        return code
    except (InputError, OSError, MemoryError, RuntimeError) as error:
        if arguments.debug or (isinstance(error, RuntimeError) and not lacks_memory(error)):
            raise
        tell(f"vidseg: error: {explain(error, list_words(arguments))}")
        return EXIT_BAD_INPUT
    except (KeyboardInterrupt, InterruptedByUserError):
        tell("vidseg: stopped.")
        return EXIT_INTERRUPTED


def _find_command(name: str) -> Command:
    """Return what a command does; `info` alone goes without torch, which takes longer to import than it to answer."""
    if name == "info":
        return info
    from .commands import COMMANDS  # noqa: PLC0415

    return COMMANDS[name]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="vidseg", description="Segment a whole video into consistent regions, without prompt or training."
    )
    parser.add_argument("--version", action="version", version=f"vidseg {find_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    segment = commands.add_parser("segment", help="segment video files or folders of frames")
    add_segment_options(segment)
    score = commands.add_parser("score", help="compare label maps with a folder of masks")
    score.add_argument("result", type=read_path, metavar="DIR", help="folder of a result, or of maps 00000.png, ...")
    score.add_argument(
        "masks", type=read_path, metavar="MASKS", help="folder of masks, named as the frames; of a video 00000.png, ..."
    )
    regions = commands.add_parser("regions", help="change the number of regions of a result, without running a model")
    regions.add_argument("result", type=read_path, metavar="DIR", help="folder of a result of vidseg segment")
    regions.add_argument("--num", type=int, metavar="N", help="number of regions; fewer merge, more only split")
    regions.add_argument(
        "--split", type=int, action="append", default=[], metavar="LABEL", help="then split this region in two; repeat"
    )
    regions.add_argument("--clip", type=read_path, metavar="FILE", help="the clip, to draw the overlay again")
    demo = commands.add_parser("demo", help="segment the bundled clip with the bundled model")
    demo.add_argument(
        "--out", type=read_path, default=DEMO_FOLDER, metavar="DIR", help=f"folder of the result ({DEMO_FOLDER})"
    )
    demo.add_argument(
        "--quality", default=DEMO_QUALITY, choices=list(QUALITIES), help=f"{OWN['quality'].text} ({DEMO_QUALITY})"
    )
    demo.add_argument("--overwrite", action="store_true", help="replace an earlier result")
    add_bench_options(commands.add_parser("bench", help="score a data set as the paper does"))
    about = commands.add_parser("info", help="describe a model file or folder")
    about.add_argument(
        "model",
        type=read_path,
        metavar="MODEL",
        help=".safetensors file, or folder of diffusers or transformers",
    )
    for command in (score, about):
        command.add_argument("--json", action="store_true", help="print JSON, for programs")
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser


if __name__ == "__main__":
    sys.exit(main())
