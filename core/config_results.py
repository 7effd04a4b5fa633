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
class CarryConfig:
    """How a marked part of one frame is carried to other frames, without the diffusion model."""

    num_neighbors: int = 5
    """Most similar context cells that decide on a cell (DIFT takes 15 of 28 frames; measured)."""
    radius: int = 3
    """Cells that something may move by between two frames (measured)."""
    num_frames: int = 1
    """Frames before the current one that are context, beside the marked frame (measured)."""
    temperature: float = 0.1
    """Of the weights of the neighbours (DIFT: 0.2; measured)."""
    num_components: int = 32
    """Main directions of the features in which similarity is computed: the rest is noise and costs time (chosen)."""
    anchor_margin: int = 4
    """Cells around the marked part, in the marked frame, that are context in all frames (chosen)."""


@dataclass(frozen=True)
class GrowthConfig:
    """How a part is grown from points: local clustering by personalised PageRank and a sweep over the conductance.

    Andersen, Chung, Lang: Local Graph Partitioning using PageRank Vectors (2006).
    """

    temperature: float = 0.1
    """Of the similarity of adjacent cells (measured)."""
    restart: float = 0.2
    """Probability of a walk to start again at the points (measured)."""
    min_cells: int = 4
    """Smallest part (measured: 4 to 8 give the same)."""
    max_share: float = 0.25
    """Largest part, as a share of the frame: things, not backgrounds (chosen)."""
    num_steps: int = 80
    """Steps of the walk; what is missing to its limit is below 2e-8."""
    spot_weight: float = 10.0
    """Pull of a corrected point against one cell of the region it lies on (measured)."""
    box_margin: int = 6
    """Cells around a box that count as what surrounds it (measured)."""
    box_neighbors: int = 3
    """Most similar cells that say what a cell of the box looks like (measured)."""
    box_rounds: int = 5
    """Rounds in which the thing in a box is told from what surrounds it (chosen)."""


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


@dataclass(frozen=True)
class InstanceConfig:
    """Which connected pieces of a region are things (ours, chosen)."""

    min_share: float = 0.001
    """Share of the frame that a thing covers at least in one frame."""
    min_frames: int = 3
    """Frames in which it is a connected piece of its own at least; in shorter clips all."""
