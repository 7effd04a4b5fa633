"""Write what a benchmark found: tables in three formats, per-class and per-clip scores, times, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...files.images import read_label_values
from ...regions.palette import draw_overlay
from .dataset import BenchClip, ClipFrames, Dataset
from .job import Job, choose_picture_frame
from .methods import ABLATION, Method
from .store import PICTURES_FOLDER, Store
from .tables import Table, make_ablation_table, make_class_table, make_clip_table, make_main_table
from .tally import Scores, compute_scores


def write_report(
    store: Store, dataset: Dataset, methods: Sequence[Method], jobs: Sequence[Job], conditions: Mapping[str, str]
) -> str:
    """Write ``results.md``, ``*.csv``, ``*.tex`` and pictures; return the Markdown tables.

    Nothing but the clips' results decides the files, so that they do not depend on the engine; only ``times.csv``
    holds times. A method that lacks a clip is left out of the tables for the whole data set, and noted.

    Args:
        store: the results.
        dataset: the data set.
        methods: the rows, in order.
        jobs: those that are finished.
        conditions: what a reader must know, by name; ``kind of model`` chooses the paper's ablation.
    """
    done = {method.name: [job for job in jobs if job.method.name == method.name] for method in methods}
    complete = [method for method in methods if len(done[method.name]) == len(dataset.clips)]
    clips = {
        method.title: {job.clip.name: compute_scores([store.tally(job)]) for job in done[method.name]}
        for method in methods
    }
    scores = {method.name: compute_scores(store.tally(job) for job in done[method.name]) for method in complete}
    titled = {method.title: scores[method.name] for method in complete}
    tables = {"main": make_main_table(dataset.title, dataset.name, titled)}
    ablated = _ablation(dataset, methods, done, scores, conditions["kind of model"])
    tables.update({"ablation": ablated} if ablated else {})
    tables["classes"] = make_class_table(f"{dataset.title}: IoU of each class", titled)
    tables["clips"] = make_clip_table(f"{dataset.title}: mIoU of each clip", clips)
    for name, table in tables.items():
        (store.path / f"{name}.csv").write_text(table.to_csv(), encoding="utf-8")
        (store.path / f"{name}.tex").write_text(table.to_latex(), encoding="utf-8")
    facts = "".join(f"- {name}: {text}\n" for name, text in conditions.items())
    missing = [method.title for method in methods if method not in complete]
    note = f"\nNot all clips finished: {', '.join(missing)}.\n" if missing else ""
    text = f"# {dataset.title}, {len(dataset.clips)} clips\n\n{facts}{note}\n" + "\n".join(
        table.to_markdown() for table in tables.values()
    )
    (store.path / "results.md").write_text(text, encoding="utf-8")
    _write_times(store, methods, done)
    _write_pictures(store, complete, done, clips)
    return text


def _ablation(
    dataset: Dataset,
    methods: Sequence[Method],
    done: Mapping[str, Sequence[Job]],
    scores: Mapping[str, Scores],
    model: str,
) -> Table | None:
    """Return Table 2, if its rows were asked for and came to a result."""
    if not any(method.group == "ablation" for method in methods):
        return None
    first = methods[0].name
    names = [*(f"{first}-{row.name}" for row in ABLATION), first]
    if not all(done[name] for name in names):
        return None
    title = f"{dataset.title}: ablation of {first} (the paper's figures: {model.upper()} on VSPW)"
    settings = [done[name][0].settings for name in names]
    return make_ablation_table(title, settings, [scores.get(name) for name in names], model)


def _write_times(store: Store, methods: Sequence[Method], done: Mapping[str, Sequence[Job]]) -> None:
    """Write the mean seconds per frame of each method."""
    rows = []
    for method in methods:
        seconds = [store.seconds_per_frame(job) for job in done[method.name]]
        rows.append((method.title, sum(seconds) / len(seconds) if seconds else None))
    table = Table("seconds", ("method", "seconds per frame"), tuple(rows))
    (store.path / "times.csv").write_text(table.to_csv(), encoding="utf-8")


def _write_pictures(
    store: Store,
    methods: Sequence[Method],
    done: Mapping[str, Sequence[Job]],
    clips: Mapping[str, Mapping[str, Scores]],
) -> None:
    """Write the best, median and worst clip of each method under each other."""
    folder = store.path / PICTURES_FOLDER
    folder.mkdir(exist_ok=True)
    for method in methods:
        jobs = {job.clip.name: job for job in done[method.name]}
        mious = {name: score.miou for name, score in clips[method.title].items()}
        rows = [
            draw_clip_row(
                jobs[name].clip, store.picture(jobs[name]), f"{method.title}, {place}: {name} {mious[name]:.3f}"
            )
            for place, name in choose_notable(mious).items()
        ]
        stack(rows).save(folder / f"{method.name}.png")


_WIDTH, _BAR, _FONT_SIZE = 420, 26, 16
"""Width of a picture, height of its line of text, and size of the text, pixels."""


def choose_notable(scores: Mapping[str, float]) -> dict[str, str]:
    """Return the clips with the best, median and worst score by what they are, each once; ties by the order given.

    >>> choose_notable({"a": 0.3, "b": 0.9, "c": 0.5})
    {'best': 'b', 'median': 'c', 'worst': 'a'}
    >>> choose_notable({"a": 0.3, "b": 0.9})
    {'best': 'b', 'worst': 'a'}
    """
    ranked = sorted(scores, key=lambda name: -scores[name])
    chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    if len(ranked) < 3:
        del chosen["median"]
    if len(ranked) < 2:
        del chosen["worst"]
    return chosen


def draw_clip_row(clip: BenchClip, result: Path, text: str) -> Image.Image:
    """Return one row: the middle labeled frame, with its ground truth, with the result; void is gray.

    Args:
        clip: the clip.
        result: label map of that frame.
        text: what to write above.
    """
    number = choose_picture_frame(clip)
    frame = ClipFrames(clip).read(number, number + 1)
    maps = [None, clip.read_mask(number), read_label_values(result, "out")]
    pictures = [_picture(frame if labels is None else draw_overlay(frame, labels[None], 0.6)) for labels in maps]
    height = pictures[0].height
    row = Image.new("RGB", (3 * _WIDTH, height + _BAR), "white")
    for column, picture in enumerate(pictures):
        row.paste(picture, (column * _WIDTH, _BAR))
    plain = f"{text}; frame {number}: input, ground truth, result".encode("ascii", "replace").decode()
    ImageDraw.Draw(row).text((4, 4), plain, fill="black", font=ImageFont.load_default(_FONT_SIZE))
    return row


def stack(rows: list[Image.Image]) -> Image.Image:
    """Return rows of one width under each other."""
    picture = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        picture.paste(row, (0, top))
        top += row.height
    return picture


def _picture(frame: Tensor) -> Image.Image:
    """Return a frame ``(1,H,W,3)`` in [0, 1] in the width of a column."""
    pixels = (frame[0] * 255).round().to(torch.uint8).numpy()
    height = round(pixels.shape[0] * _WIDTH / pixels.shape[1])
    return Image.fromarray(np.ascontiguousarray(pixels)).resize((_WIDTH, height), Image.Resampling.LANCZOS)
