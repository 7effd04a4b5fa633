"""The paper's own figures, in percent, to print beside ours: Table 1 and Table 2 (5.2, 5.4)."""

from __future__ import annotations

from typing import NamedTuple


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


def table_1(dataset: str) -> tuple[PaperRow, ...]:
    """Return the rows of Table 1 that give a figure for a data set; none for other data sets."""
    figures = _TABLE_1.get(dataset, ())
    rows = [PaperRow(*method, *values) for method, values in zip(_METHODS, figures, strict=False)]
    return tuple(row for row in rows if row.miou is not None)
