"""Write what a benchmark found: tables beside the paper's figures, scores, times, pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...config.settings import Settings
from ...files.label_images import read_label_values
from ...regions.palette import draw_overlay
from ..metrics import CONSISTENCY
from .dataset import ClipFrames, Dataset
from .methods import ABLATION, Method, StoredResult, list_parts
from .tally import Scores, compute_scores

PICTURES_FOLDER = "pictures"
"""Folder of the pictures inside that of the results."""


class PaperRow(NamedTuple):
    """A row of Table 1 on one data set; None where the paper gives nothing."""

    method: str
    backbone: str
    training: str
    miou: float | None
    mvc8: float | None
    mvc16: float | None


_Figures = tuple[float | None, float | None, float | None]
_TABLE_1: tuple[tuple[str, str, str, dict[str, _Figures]], ...] = (
    ("TMANet", "ResNet-50", "supervised", {"cityscapes": (80.3, None, None), "camvid": (76.5, None, None)}),
    ("UniVS", "Swin-T", "supervised", {"vspw": (59.8, 92.3, None)}),
    ("DVIS++", "ViT-L", "supervised", {"vspw": (63.8, 95.7, 95.1)}),
    ("CLIPpy", "T5 + DINO", "zero-shot",
     {"vspw": (17.7, 72.4, 68.4), "cityscapes": (4.7, None, None), "camvid": (2.6, 44.4, 35.6)}),
    ("EmerDiff (SVD)", "SVD", "zero-shot",
     {"vspw": (39.7, 82.1, 78.5), "cityscapes": (11.0, None, None), "camvid": (7.3, 71.7, 64.4)}),
    ("EmerDiff (SD)", "SD 2.1", "zero-shot",
     {"vspw": (43.4, 68.9, 64.3), "cityscapes": (21.5, None, None), "camvid": (6.9, 39.8, 32.9)}),
    ("Ours (SVD)", "SVD", "zero-shot",
     {"vspw": (53.2, 89.3, 88.0), "cityscapes": (36.2, None, None), "camvid": (16.6, 87.4, 85.8)}),
    ("Ours (SD)", "SD 2.1", "zero-shot",
     {"vspw": (60.6, 90.7, 89.6), "cityscapes": (37.3, None, None), "camvid": (20.6, 92.3, 91.9)}),
)  # fmt: skip
"""Table 1 by data set: mIoU, mVC8, mVC16."""
TABLE_2: dict[str, tuple[_Figures, ...]] = {
    "sd": ((33.4, 70.6, 60.2), (43.4, 76.9, 73.8), (45.6, 87.5, 85.5),
           (46.6, 87.6, 85.7), (47.4, 89.2, 87.5), (46.5, 89.8, 88.4)),
    "svd": ((26.6, 82.2, 78.3), (38.9, 90.2, 88.7), (38.6, 90.5, 89.0),
            (39.4, 90.2, 89.2), (37.1, 91.5, 90.3), (38.2, 92.3, 91.3)),
}  # fmt: skip
"""Ablation on VSPW by kind of model: mIoU, mVC8, mVC16; rows as `methods.ABLATION`, then the whole method."""


def list_table_1(dataset: str) -> tuple[PaperRow, ...]:
    """Return the rows of Table 1 that give a figure for a data set; none for other data sets."""
    return tuple(PaperRow(*row[:3], *row[3][dataset]) for row in _TABLE_1 if dataset in row[3])


Cell = str | float | None
"""A text, a figure, or nothing."""
_SPECIAL = str.maketrans(
    {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "✓": r"\checkmark{}", "✗": r"$\times$", "–": "--"}
)
_MAIN_COLUMNS = (
    *("method", "mIoU", "mIoU per clip", *CONSISTENCY),
    *("matched mIoU", "boundary F", "label switches/s, % of pixels"),
)
_ABLATION_COLUMNS = (
    *("batch size", "masked modulation", "feature aggregation", "CBR", "mIoU", "mIoU per clip", "mVC8", "mVC16"),
    *("paper mIoU", "paper mVC8", "paper mVC16"),
)


class Table(NamedTuple):
    """A table: title, names of columns, rows; figures are percentages or rates."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def to_markdown(self) -> str:
        """Return a Markdown table under its title."""
        body = ([format_share(cell) for cell in row] for row in self.rows)
        rows = [self.columns, ["---"] * len(self.columns), *body]
        return f"## {self.title}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)

    def to_csv(self) -> str:
        """Return comma-separated values with all digits; empty where there is nothing."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(["" if cell is None else cell for cell in row] for row in self.rows)
        return stream.getvalue()

    def to_latex(self) -> str:
        """Return a table for LaTeX with the package ``booktabs``."""
        head, *body = (
            " & ".join(format_share(cell).translate(_SPECIAL) for cell in row) + r" \\"
            for row in (self.columns, *self.rows)
        )
        columns = "l" + "r" * (len(self.columns) - 1)
        lines = [r"\begin{table}", rf"\caption{{{self.title.translate(_SPECIAL)}}}", rf"\begin{{tabular}}{{{columns}}}"]
        lines += [r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        return "\n".join(lines) + "\n"


def format_share(cell: Cell) -> str:
    """Return a cell as tables show it: one decimal, a dash for nothing."""
    if cell is None:
        return "–"
    return cell if isinstance(cell, str) else f"{cell:.1f}"


def format_percent(value: float | None) -> float | None:
    """Return a share in percent."""
    return None if value is None else 100 * value


def make_main_table(title: str, dataset: str, scores: Mapping[str, Scores]) -> Table:
    """Return Table 1 for one data set: the paper's rows, found by the name of the data set, then ours by title."""
    rows: list[tuple[Cell, ...]] = [
        (f"paper: {row.method}, {row.training}", row.miou, None, row.mvc8, row.mvc16, *(None,) * 5)
        for row in list_table_1(dataset)
    ]
    for name, score in scores.items():
        consistency = (score.consistency[column] for column in CONSISTENCY)
        figures = (score.miou, score.clip_miou, *consistency, score.matched, score.boundary, score.switches)
        rows.append((name, *map(format_percent, figures)))
    return Table(title, _MAIN_COLUMNS, tuple(rows))


def make_ablation_table(
    title: str, settings: Sequence[Settings], scores: Sequence[Scores | None], model: str = "sd"
) -> Table:
    """Return Table 2: ours, rows of `ABLATION` and the whole method, beside the paper's of a kind of model, on VSPW.

    Settings decide which parts are marked as on; scores are None where a row has no result.
    """
    rows: list[tuple[Cell, ...]] = []
    for used, score, paper in zip(settings, scores, TABLE_2[model], strict=True):
        window, *parts = list_parts(used)
        figures: tuple[Cell, ...] = (None,) * 4
        if score is not None:
            mvc = (format_percent(score.consistency[column]) for column in ("mVC8", "mVC16"))
            figures = (format_percent(score.miou), format_percent(score.clip_miou), *mvc)
        rows.append((str(window), *("✓" if part else "✗" for part in parts), *figures, *paper))
    return Table(title, _ABLATION_COLUMNS, tuple(rows))


def make_class_table(title: str, scores: Mapping[str, Scores]) -> Table:
    """Return the intersection over union of each class by each method, in percent."""
    names = sorted({name for score in scores.values() for name in score.ious})
    rows = [(name, *(format_percent(score.ious.get(name)) for score in scores.values())) for name in names]
    return Table(title, ("class", *scores), tuple(rows))


def make_clip_table(title: str, scores: Mapping[str, Mapping[str, Scores]]) -> Table:
    """Return mIoU of each clip by each method, in percent; ``scores`` by method, then clip."""
    clips = list(dict.fromkeys(clip for of_method in scores.values() for clip in of_method))
    rows = [
        (clip, *(format_percent(of_method[clip].miou) if clip in of_method else None for of_method in scores.values()))
        for clip in clips
    ]
    return Table(title, ("clip", *scores), tuple(rows))


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
    if not all(done[name] for name in names):
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
