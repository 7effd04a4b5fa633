"""Hyperparameters of what is done with results, and of baselines; each with its source.

What is done: corrections, instances, scene files. "measured" stands for the six DAVIS clips of
`benchmarks/corrections.py` with the bundled model, "chosen" for a value of ours that no measurement backs. How masks
are finished is what the user asks for: `masks.Finish`.
"""

from __future__ import annotations

from dataclasses import dataclass

COLOR_POSITION_WEIGHT = 0.5
"""Length of a frame's sides beside the range of a colour channel, in the tokens of the colour baseline (chosen)."""


@dataclass(frozen=True)
class PropagationConfig:
    """Label propagation, a baseline, as DIFT (Tang et al. 2023): settings of its README for DAVIS, Stable Diffusion."""

    num_neighbors: int = 15
    """Source cells that vote on a cell."""
    num_recent: int = 28
    """Frames before the current one that are sources, beside the first frame."""
    radius: int = 15
    """Cells, along a side, that a source may lie away in frames other than the first."""
    temperature: float = 0.2
    """Divides cosine similarities before the softmax."""
