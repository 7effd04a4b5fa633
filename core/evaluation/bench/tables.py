"""The tables of a benchmark beside the paper's figures, as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...config.settings import Settings
from ..metrics import CONSISTENCY
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


_METHODS = (
    ("TMANet", "ResNet-50", "supervised"),
    ("UniVS", "Swin-T", "supervised"),
    ("DVIS++", "ViT-L", "supervised"),
    ("CLIPpy", "T5 + DINO", "zero-shot"),
    ("EmerDiff (SVD)", "SVD", "zero-shot"),
    ("EmerDiff (SD)", "SD 2.1", "zero-shot"),
    ("Ours (SVD)", "SVD", "zero-shot"),
    ("Ours (SD)", "SD 2.1", "zero-shot"),
)
_Figures = tuple[float | None, float | None, float | None]
_TABLE_1: dict[str, tuple[_Figures, ...]] = {
    "vspw": (
        (None, None, None),
        (59.8, 92.3, None),
        (63.8, 95.7, 95.1),
        (17.7, 72.4, 68.4),
        (39.7, 82.1, 78.5),
        (43.4, 68.9, 64.3),
        (53.2, 89.3, 88.0),
        (60.6, 90.7, 89.6),
    ),
    "cityscapes": (
        (80.3, None, None),
        (None, None, None),
        (None, None, None),
        (4.7, None, None),
        (11.0, None, None),
        (21.5, None, None),
        (36.2, None, None),
        (37.3, None, None),
    ),
    "camvid": (
        (76.5, None, None),
        (None, None, None),
        (None, None, None),
        (2.6, 44.4, 35.6),
        (7.3, 71.7, 64.4),
        (6.9, 39.8, 32.9),
        (16.6, 87.4, 85.8),
        (20.6, 92.3, 91.9),
    ),
}
TABLE_2: dict[str, tuple[_Figures, ...]] = {
    "sd": (
        (33.4, 70.6, 60.2),
        (43.4, 76.9, 73.8),
        (45.6, 87.5, 85.5),
        (46.6, 87.6, 85.7),
        (47.4, 89.2, 87.5),
        (46.5, 89.8, 88.4),
    ),
    "svd": (
        (26.6, 82.2, 78.3),
        (38.9, 90.2, 88.7),
        (38.6, 90.5, 89.0),
        (39.4, 90.2, 89.2),
        (37.1, 91.5, 90.3),
        (38.2, 92.3, 91.3),
    ),
}
"""Ablation on VSPW by kind of model: mIoU, mVC8, mVC16; rows as `methods.ABLATION`, then the whole method."""


def list_table_1(dataset: str) -> tuple[PaperRow, ...]:
    """Return the rows of Table 1 that give a figure for a data set; none for other data sets."""
    figures = _TABLE_1.get(dataset, ())
    rows = [PaperRow(*method, *values) for method, values in zip(_METHODS, figures, strict=False)]
    return tuple(row for row in rows if row.miou is not None)


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
        rows = [
            self.columns,
            tuple("---" for _ in self.columns),
            *([format_share(cell) for cell in row] for row in self.rows),
        ]
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
    """Return Table 1 for one data set: the paper's rows, then ours.

    Args:
        title: of the data set.
        dataset: its name, by which the paper's rows are found.
        scores: of each method, by its title.
    """
    rows: list[tuple[Cell, ...]] = [
        (f"paper: {row.method}, {row.training}", row.miou, None, row.mvc8, row.mvc16, *(None,) * 5)
        for row in list_table_1(dataset)
    ]
    for name, score in scores.items():
        mvc = [format_percent(score.consistency[column]) for column in CONSISTENCY]
        rows.append(
            (
                name,
                format_percent(score.miou),
                format_percent(score.clip_miou),
                *mvc,
                format_percent(score.matched),
                format_percent(score.boundary),
                format_percent(score.switches),
            )
        )
    return Table(title, _MAIN_COLUMNS, tuple(rows))


def make_ablation_table(
    title: str, settings: Sequence[Settings], scores: Sequence[Scores | None], model: str = "sd"
) -> Table:
    """Return Table 2: ours beside the paper's, which are on VSPW.

    Args:
        title: of the table.
        settings: of the rows of `ABLATION` and of the whole method, by which parts are marked as on or off.
        scores: likewise; None where a row has no result.
        model: kind of model, ``sd`` or ``svd``, by which the paper's figures are found.
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
