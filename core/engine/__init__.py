"""Where work is done: one job after the other here, or on the workers of a Ray cluster, which may be lost."""
