"""The command `vidseg bench`: segment a data set by several methods, and write the paper's tables."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ..checkpoints.describe import ModelDescription
from ..checkpoints.vision import VisionDescription
from ..config.overrides import with_overrides
from ..config.settings import Settings, require_served
from ..engine.jobs import Ended, JobsProgress, run_here, run_on_ray
from ..engine.model import ModelSpec
from ..evaluation.baselines import MODEL_FREE
from ..evaluation.bench.dataset import Dataset
from ..evaluation.bench.layouts import open_dataset
from ..evaluation.bench.methods import Job, JobResult, Method, list_methods, make_yardstick, title_methods
from ..evaluation.bench.report import write_report
from ..evaluation.bench.run import run_at
from ..evaluation.bench.store import Store
from ..progress import open_display
from ..types import InputError
from .asked import read_cluster

Engine = Callable[..., Iterator[Ended[Job, JobResult]]]
"""`run_here` or `run_on_ray`."""
EXIT_OK, EXIT_INCOMPLETE = 0, 2
"""Exit codes: every clip has a result; some have none."""


def bench(arguments: argparse.Namespace, words: Sequence[str], model: ModelSpec) -> int:
    """Run what is missing and write the tables; return the exit code. ``words`` say how to go on after Ctrl-C."""
    dataset = _open_dataset(arguments)
    asked = list_methods(arguments.preset.split(","), ablation=arguments.ablation, baselines=arguments.baselines)
    if model.features:
        asked = (*asked, make_yardstick(model.features.path.resolve().name, model.features.family))
    overrides, length = _list_overrides(arguments), model.description.num_frames if model.description else 0
    used = [method.settings(dataset, overrides, model.kind, arguments.quality, length) for method in asked]
    rows = _select(list(zip(title_methods(asked, used), used, strict=True)), dataset, arguments)
    methods = [method for method, _ in rows]
    jobs = [Job(method, clip, settings, arguments.nameless) for method, settings in rows for clip in dataset.clips]
    _require_served(rows, model)
    store = Store(arguments.out, _identify_model(model, methods), _identify(model.features, model))
    with store.hold():
        return _bench_jobs(arguments, words, model, dataset, (methods, jobs), store)


def _select(
    asked: Sequence[tuple[Method, Settings]], dataset: Dataset, arguments: argparse.Namespace
) -> list[tuple[Method, Settings]]:
    """Return the rows that `--rows` names, by default all, but those that cannot be computed, which it says."""
    names, known = [name for name in arguments.rows.split(",") if name], [method.name for method, _ in asked]
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"`--rows` must name rows that were asked for, but got {unknown}. Asked for: {known}.")
    rows = []
    for method, settings in asked:
        if not names or method.name in names:
            if lack := method.find_lack(dataset, nameless=arguments.nameless):
                sys.stderr.write(f"vidseg: no row {method.title!r}: {lack}.\n")
            else:
                rows.append((method, settings))
    return rows


def _bench_jobs(
    arguments: argparse.Namespace,
    words: Sequence[str],
    model: ModelSpec,
    dataset: Dataset,
    work: tuple[Sequence[Method], Sequence[Job]],
    store: Store,
) -> int:
    """Do what is missing in a folder that no other run uses."""
    methods, jobs = work
    waiting = [job for job in jobs if arguments.overwrite or not store.holds(job)]
    equal = _group_equal_jobs(waiting, store)
    progress = JobsProgress(open_display(sys.stderr), len(equal))
    cluster = read_cluster(arguments, model, [arguments.root.absolute()])
    run: Engine = partial(run_on_ray, cluster=cluster) if cluster else run_here
    try:
        problems = _run_jobs(equal, run, model, progress, store)
    except KeyboardInterrupt:
        progress.close()
        done = sum(store.holds(job) for job in jobs)
        again = shlex.join(word for word in words if word != "--overwrite")
        sys.stderr.write(f"vidseg: {done} of {len(jobs)} clips are done. Continue with: vidseg {again}\n")
        raise
    finished = [store.load(job) for job in jobs if job.name not in problems]
    if finished:
        report = write_report(store.path, dataset, methods, finished, _describe_conditions(arguments, model))
        sys.stdout.write(report)
    for name, problem in problems.items():
        sys.stderr.write(f"vidseg: {name} failed: {problem}\n")
    return EXIT_INCOMPLETE if problems else EXIT_OK


def _open_dataset(arguments: argparse.Namespace) -> Dataset:
    """Return the clips that were asked for."""
    if arguments.max_frames < 0:
        raise InputError(f"`--max-frames` must be at least 0, but got {arguments.max_frames}. Leave it out for all.")
    names = tuple(name for name in arguments.clips.split(",") if name)
    dataset = open_dataset(arguments.dataset, arguments.root.absolute()).select(names)
    return dataset.shorten(arguments.max_frames)


def _list_overrides(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the settings that hold for all rows, checked."""
    sides = () if arguments.max_side is None else (f"frame.max_side={arguments.max_side}",)
    overrides = (*sides, *arguments.overrides)
    with_overrides(Settings(), overrides)
    return overrides


def _identify_model(model: ModelSpec, methods: Sequence[Method]) -> dict[str, str]:
    """Return what identifies the model."""
    needed = any(method.kind not in MODEL_FREE and method.source == "model" for method in methods)
    if needed and model.description is None:
        raise InputError("`--model` must name a model, since none is bundled here. Give a .safetensors file.")
    return _identify(model.description, model)


def _identify(description: ModelDescription | VisionDescription | None, model: ModelSpec) -> dict[str, str]:
    """Return what identifies a model that is there."""
    if description is None:
        return {}
    return {"fingerprint": description.fingerprint, "dtype": str(model.dtype).removeprefix("torch.")}


def _require_served(rows: Sequence[tuple[Method, Settings]], model: ModelSpec) -> None:
    """Check before any work that the model can do what each row asks of it."""
    for method, settings in rows:
        if model.description and method.kind in {"method", "frame"} and method.source == "model":
            require_served(settings, model.kind, model.description.path.name)


def _group_equal_jobs(jobs: Sequence[Job], store: Store) -> list[list[Job]]:
    """Return jobs in groups that share a result: the ablation's window of 1 has the settings of EmerDiff's KNN."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(store.identify(job), []).append(job)
    return list(groups.values())


def _run_jobs(
    equal: Sequence[list[Job]], run: Engine, model: ModelSpec, progress: JobsProgress, store: Store
) -> dict[str, str]:
    """Run one job of each group, save each result as it comes, and return what was wrong by the name of the job."""
    problems: dict[str, str] = {}
    groups = {group[0].name: group for group in equal}
    for ended in run([group[0] for group in equal], run_at, model, progress) if equal else ():
        for job in groups[ended.job.name]:
            if ended.result is None:
                problems[job.name] = ended.problem or "unknown"
            else:
                store.save(job, ended.result)
        progress.finished(ended.job)
    progress.close()
    return problems


def _describe_conditions(arguments: argparse.Namespace, model: ModelSpec) -> dict[str, str]:
    """Return what a reader must know of a run, by name."""
    frames = f"the first {arguments.max_frames} of each clip" if arguments.max_frames else "all"
    return {
        "model": model.description.path.name if model.description else "none",
        "kind of model": model.kind,
        **({"features": model.features.path.resolve().name} if model.features else {}),
        "type": str(model.dtype).removeprefix("torch."),
        "frames": frames,
        "clips": arguments.clips or "all",
        "quality": arguments.quality,
        "names": "of most pixels in the whole clip" if arguments.nameless else "of most pixels in the first mask",
        "settings for all rows": " ".join(_list_overrides(arguments)) or "those of preset and data set",
    }
