"""How good a result is: metrics, scores of a folder, baselines, and the paper's tables."""
