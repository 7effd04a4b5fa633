"""Write what a benchmark found: tables beside the paper's figures, scores, times, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...files.label_images import read_label_values
from ...regions.palette import draw_overlay
from .dataset import ClipFrames, Dataset
from .methods import ABLATION, Method, StoredResult
from .tables import Table, make_ablation_table, make_class_table, make_clip_table, make_main_table, make_nameless_table
from .tally import Scores, compute_scores

PICTURES_FOLDER = "pictures"
"""Folder of the pictures inside that of the results."""


def write_report(
    folder: Path,
    dataset: Dataset,
    methods: Sequence[Method],
    results: Sequence[StoredResult],
    conditions: Mapping[str, str],
) -> str:
    """Write ``results.md``, ``*.csv``, ``*.tex`` and pictures; return the Markdown tables.

    Nothing but the clips' results decides the files, so that they do not depend on the engine; only ``times.csv``
    holds times. A method that lacks a clip is left out of the tables for the whole data set, and noted. Of
    ``conditions``, what a reader must know, ``kind of model`` chooses the paper's ablation.
    """
    done = {method.name: [result for result in results if result.job.method.name == method.name] for method in methods}
    complete = [method for method in methods if len(done[method.name]) == len(dataset.clips)]
    clips = {
        method.title: {result.job.clip.name: compute_scores([result.tally]) for result in done[method.name]}
        for method in methods
    }
    scores = {method.name: compute_scores(result.tally for result in done[method.name]) for method in complete}
    titled = {method.title: scores[method.name] for method in complete}
    tables = {"main": make_main_table(dataset.title, dataset.name, titled)}
    ablation = _make_ablation(dataset, methods, done, scores, conditions["kind of model"])
    tables.update({"ablation": ablation} if ablation else {})
    tables["classes"] = make_class_table(f"{dataset.title}: IoU of each class", titled)
    tables["clips"] = make_clip_table(f"{dataset.title}: mIoU of each clip", clips)
    nameless = {
        method.title: {found.job.clip.name: found.nameless for found in done[method.name] if found.nameless}
        for method in methods
    }
    if any(nameless.values()):
        tables["nameless"] = make_nameless_table(f"{dataset.title}: regions without names", nameless)
    for name, table in tables.items():
        (folder / f"{name}.csv").write_text(table.to_csv(), encoding="utf-8")
        (folder / f"{name}.tex").write_text(table.to_latex(), encoding="utf-8")
    facts = "".join(f"- {name}: {text}\n" for name, text in conditions.items())
    missing = [method.title for method in methods if method not in complete]
    note = f"\nNot all clips finished: {', '.join(missing)}.\n" if missing else ""
    text = f"# {dataset.title}, {len(dataset.clips)} clips\n\n{facts}{note}\n" + "\n".join(
        table.to_markdown() for table in tables.values()
    )
    (folder / "results.md").write_text(text, encoding="utf-8")
    _write_times(folder, methods, done)
    _write_pictures(folder / PICTURES_FOLDER, complete, done, clips)
    return text


Done = Mapping[str, Sequence[StoredResult]]
"""Results by the name of the method."""


def _make_ablation(
    dataset: Dataset, methods: Sequence[Method], done: Done, scores: Mapping[str, Scores], model: str
) -> Table | None:
    """Return Table 2, if its rows were asked for and came to a result."""
    if not any(method.group == "ablation" for method in methods):
        return None
    first = methods[0].name
    names = [*(f"{first}-{row.name}" for row in ABLATION), first]
    if not all(done.get(name) for name in names):
        return None
    title = f"{dataset.title}: ablation of {first} (the paper's figures: {model.upper()} on VSPW)"
    settings = [done[name][0].job.settings for name in names]
    return make_ablation_table(title, settings, [scores.get(name) for name in names], model)


def _write_times(folder: Path, methods: Sequence[Method], done: Done) -> None:
    """Write the mean seconds per frame of each method."""
    rows = []
    for method in methods:
        seconds = [result.seconds_per_frame for result in done[method.name]]
        rows.append((method.title, sum(seconds) / len(seconds) if seconds else None))
    table = Table("seconds", ("method", "seconds per frame"), tuple(rows))
    (folder / "times.csv").write_text(table.to_csv(), encoding="utf-8")


def _write_pictures(
    folder: Path, methods: Sequence[Method], done: Done, clips: Mapping[str, Mapping[str, Scores]]
) -> None:
    """Write the best, median and worst clip of each method under each other."""
    folder.mkdir(exist_ok=True)
    for method in methods:
        found = {result.job.clip.name: result for result in done[method.name]}
        mious = {name: score.miou for name, score in clips[method.title].items()}
        rows = [
            draw_clip_row(found[name], f"{method.title}, {place}: {name} {mious[name]:.3f}")
            for place, name in choose_notable(mious).items()
        ]
        Image.fromarray(np.concatenate(rows)).save(folder / f"{method.name}.png")


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
    median = {"median": ranked[len(ranked) // 2]} if len(ranked) > 2 else {}
    worst = {"worst": ranked[-1]} if len(ranked) > 1 else {}
    return {"best": ranked[0], **median, **worst}


def draw_clip_row(result: StoredResult, text: str) -> NDArray[np.uint8]:
    """Return pixels ``(H,W,3)``: the middle labeled frame, with its ground truth, with the result; void is gray."""
    clip, number = result.job.clip, result.job.clip.middle
    frame = ClipFrames(clip).read(number, number + 1)
    maps = [None, clip.read_mask(number), read_label_values(result.picture, "out")]
    pictures = [_shrink(frame if labels is None else draw_overlay(frame, labels[None], 0.6)) for labels in maps]
    bar = Image.new("RGB", (3 * _WIDTH, _BAR), "white")
    plain = f"{text}; frame {number}: input, ground truth, result".encode("ascii", "replace").decode()
    ImageDraw.Draw(bar).text((4, 4), plain, fill="black", font=ImageFont.load_default(_FONT_SIZE))
    return np.concatenate([np.asarray(bar), np.concatenate(pictures, axis=1)])


def _shrink(frame: Tensor) -> NDArray[np.uint8]:
    """Return a frame ``(1,H,W,3)`` in [0, 1] as pixels in the width of a column."""
    pixels = np.ascontiguousarray((frame[0] * 255).round().to(torch.uint8).numpy())
    height = round(pixels.shape[0] * _WIDTH / pixels.shape[1])
    return np.asarray(Image.fromarray(pixels).resize((_WIDTH, height), Image.Resampling.LANCZOS))
