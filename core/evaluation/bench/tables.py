"""The tables of a benchmark: ours beside the paper's figures, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...config.settings import Settings
from ..metrics import CONSISTENCY
from ..supervoxels import RegionScores
from .methods import list_parts
from .tally import Scores


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


_NAMELESS_COLUMNS = (
    *("clip", "method", "regions", "best label mIoU", "3D segmentation accuracy", "3D boundary recall"),
    *("boundary, % of pixels", "3D undersegmentation error", "VI split, bits", "VI merged, bits"),
    "mean duration, frames",
)


class Table(NamedTuple):
    """A table: title, names of columns, rows; figures are percentages or rates, written by ``style``."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    style: str = ".1f"

    def to_markdown(self) -> str:
        """Return a Markdown table under its title."""
        body = ([format_share(cell, self.style) for cell in row] for row in self.rows)
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
            " & ".join(format_share(cell, self.style).translate(_SPECIAL) for cell in row) + r" \\"
            for row in (self.columns, *self.rows)
        )
        columns = "l" + "r" * (len(self.columns) - 1)
        lines = [r"\begin{table}", rf"\caption{{{self.title.translate(_SPECIAL)}}}", rf"\begin{{tabular}}{{{columns}}}"]
        lines += [r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        return "\n".join(lines) + "\n"


def format_share(cell: Cell, style: str = ".1f") -> str:
    """Return a cell as tables show it: one decimal, a dash for nothing."""
    if cell is None:
        return "–"
    return cell if isinstance(cell, str) else format(cell, style)


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


def make_nameless_table(title: str, scores: Mapping[str, Mapping[str, RegionScores]]) -> Table:
    """Return the measures of regions without names, of each clip and their mean; ``scores`` by method, then clip."""
    clips = list(dict.fromkeys(clip for of_method in scores.values() for clip in of_method))
    rows = [
        (clip, method, *_list_measures([of_method[clip]]))
        for clip in clips
        for method, of_method in scores.items()
        if clip in of_method
    ]
    rows += [
        (f"mean of {len(clips)}", method, *_list_measures(list(of_method.values())))
        for method, of_method in scores.items()
        if len(of_method) == len(clips)
    ]
    return Table(title, _NAMELESS_COLUMNS, tuple(rows), ".4g")


def _list_measures(scores: Sequence[RegionScores]) -> list[Cell]:
    """Return the means of the measures over clips in the order of the columns, shares in percent."""
    means = {}
    for name in RegionScores._fields:
        values = [value for score in scores if (value := getattr(score, name)) is not None]
        means[name] = sum(values) / len(values) if values else None
    shares = (format_percent(means[name]) for name in ("best_miou", "accuracy", "recall", "drawn"))
    return [means["regions"], *shares, *(means[name] for name in ("undersegmentation", "split", "merged", "duration"))]
