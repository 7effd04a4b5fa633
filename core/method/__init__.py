"""The method of the paper, stage by stage, in the order of its figure 2."""
