"""Plots of the benchmarks, where matplotlib is installed."""

from __future__ import annotations

from typing import Any


def new_figure(size: tuple[float, float]) -> Any:  # noqa: ANN401, matplotlib's figure
    """Return an empty figure of ``size`` inches, or None without matplotlib."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415, optional
    except ImportError:
        print("no plot: pip install matplotlib")
        return None
    return Figure(figsize=size, layout="constrained")
