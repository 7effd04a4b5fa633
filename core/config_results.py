"""Hyperparameters of what is done with results, and of baselines; each with its source.

What is done: corrections, instances, scene files. "measured" stands for the six DAVIS clips of
`benchmarks/corrections.py` with the bundled model, "chosen" for a value of ours that no measurement backs. How masks
are finished is what the user asks for: `masks.Finish`.
"""

from __future__ import annotations
