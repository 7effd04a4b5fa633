"""The tables of a benchmark, as Markdown, CSV and LaTeX; the paper's rows beside ours."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..config.settings import Settings
from ..metrics import CONSISTENCY
from .methods import parts_of
from .paper import TABLE_2, table_1
from .tally import Scores

Cell = str | float | None
"""A text, a figure, or nothing."""
_SPECIAL = str.maketrans(
    {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "✓": r"\checkmark{}", "✗": r"$\times$", "–": "--"}
)


_MAIN_COLUMNS = (
    *("method", "mIoU", "mIoU per clip", *CONSISTENCY),
    *("matched mIoU", "boundary F", "flips/s, % of pixels"),
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
        rows = [self.columns, tuple("---" for _ in self.columns), *([shown(cell) for cell in row] for row in self.rows)]
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
            " & ".join(shown(cell).translate(_SPECIAL) for cell in row) + r" \\" for row in (self.columns, *self.rows)
        )
        columns = "l" + "r" * (len(self.columns) - 1)
        lines = [r"\begin{table}", rf"\caption{{{self.title.translate(_SPECIAL)}}}", rf"\begin{{tabular}}{{{columns}}}"]
        lines += [r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        return "\n".join(lines) + "\n"


def shown(cell: Cell) -> str:
    """Return a cell as tables show it: one decimal, a dash for nothing."""
    if cell is None:
        return "–"
    return cell if isinstance(cell, str) else f"{cell:.1f}"


def percent(value: float | None) -> float | None:
    """Return a share in percent."""
    return None if value is None else 100 * value


def main_table(title: str, dataset: str, scores: Mapping[str, Scores]) -> Table:
    """Return Table 1 for one data set: the paper's rows, then ours.

    Args:
        title: of the data set.
        dataset: its name, by which the paper's rows are found.
        scores: of each method, by its title.
    """
    rows: list[tuple[Cell, ...]] = [
        (f"paper: {row.method}, {row.training}", row.miou, None, row.mvc8, row.mvc16, *(None,) * 5)
        for row in table_1(dataset)
    ]
    for name, score in scores.items():
        mvc = [percent(score.consistency[column]) for column in CONSISTENCY]
        rows.append(
            (
                name,
                percent(score.miou),
                percent(score.clip_miou),
                *mvc,
                percent(score.matched),
                percent(score.boundary),
                percent(score.flips),
            )
        )
    return Table(title, _MAIN_COLUMNS, tuple(rows))


def ablation_table(
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
        window, *parts = parts_of(used)
        figures: tuple[Cell, ...] = (None,) * 4
        if score is not None:
            mvc = (percent(score.consistency[column]) for column in ("mVC8", "mVC16"))
            figures = (percent(score.miou), percent(score.clip_miou), *mvc)
        rows.append((str(window), *("✓" if part else "✗" for part in parts), *figures, *paper))
    return Table(title, _ABLATION_COLUMNS, tuple(rows))


def class_table(title: str, scores: Mapping[str, Scores]) -> Table:
    """Return the intersection over union of each class by each method, in percent."""
    names = sorted({name for score in scores.values() for name in score.ious})
    rows = [(name, *(percent(score.ious.get(name)) for score in scores.values())) for name in names]
    return Table(title, ("class", *scores), tuple(rows))


def clip_table(title: str, scores: Mapping[str, Mapping[str, Scores]]) -> Table:
    """Return mIoU of each clip by each method, in percent; ``scores`` by method, then clip."""
    clips = list(dict.fromkeys(clip for of_method in scores.values() for clip in of_method))
    rows = [
        (clip, *(percent(of_method[clip].miou) if clip in of_method else None for of_method in scores.values()))
        for clip in clips
    ]
    return Table(title, ("clip", *scores), tuple(rows))
