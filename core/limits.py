"""The least and the greatest value of every setting that is a number."""

from __future__ import annotations

from .types import MAX_LABEL

LIMITS: dict[str, tuple[float, float]] = {
    "frame.max_side": (0, 16_384),
    "sampling.num_steps": (1, 1000),
    "sampling.guidance_scale": (0, 1000),
    "sampling.seed": (0, 2**32 - 1),
    "window.length": (1, 10_000),
    "cluster.num_clusters": (0, MAX_LABEL),
    "cluster.num_restarts": (1, 1000),
    "cluster.granularity": (0, 1),
    "context.num_neighbors": (1, 1000),
    "refinement.spatial_threshold": (0, 1000),
    "modulation.factor": (0, 10_000),
    "difference.filter_strength": (0, 1),
    "difference.blur_size": (1, 99),
    "difference.blur_sigma": (0.01, 1000),
    "scene.new_similarity": (-1, 1),
    "scene.new_margin": (0, 2),
    "scene.sure_similarity": (-1, 1),
    "scene.min_cells": (1, 100_000),
    "scene.min_frames": (1, 10_000),
    "scene.cut_similarity": (-1, 1),
    "scene.known_similarity": (-1, 1),
    "scene.remembered_tokens": (1, 100_000),
    "enlarging.guided_radius": (1, 1000),
    "enlarging.guided_epsilon": (1e-8, 1),
    "enlarging.guided_subsample": (1, 16),
    "video.frames": (0, 1000),
    "video.fps_id": (0, 1000),
    "video.motion_bucket": (0, 1000),
    "video.augmentation": (0, 10),
}
"""Both ends belong to the range. Those of steps and blocks depend on more and are checked in `config.Settings`."""
