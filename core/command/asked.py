"""What the options ask to work with: the model or what stands for it, its type, and the workers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from ..checkpoints.describe import ModelDescription, describe_model
from ..checkpoints.vision import VisionDescription, describe_features
from ..engine.cluster import Cluster
from ..engine.model import ModelSpec
from ..evaluation.baselines import MODEL_FREE
from ..files.package import DEMO_MODEL
from ..types import InputError, SettingError
from .options import DTYPES


def describe_asked(arguments: argparse.Namespace) -> ModelDescription | VisionDescription | None:
    """Return what gives features, by its options; None for baselines without a model."""
    if arguments.model and arguments.features:
        raise InputError("`--model` must not be combined with `--features`, but got both. Give one of them.")
    far = arguments.engine == "ray"  # workers have other current folders
    if arguments.features:
        return describe_features(arguments.features.absolute() if far else arguments.features)
    path = None if arguments.baseline in MODEL_FREE else arguments.model or find_bundled()
    return describe_model(path.absolute() if far else path) if path else None


def find_bundled() -> Path | None:
    """Return the model that comes with the package, where it is there."""
    return DEMO_MODEL if DEMO_MODEL.exists() else None


def read_dtype(arguments: argparse.Namespace) -> torch.dtype:
    """Return the type in which the model runs."""
    dtype: torch.dtype = getattr(torch, DTYPES[arguments.dtype])
    return dtype


def read_cluster(arguments: argparse.Namespace, model: ModelSpec, paths: Sequence[Path]) -> Cluster | None:
    """Return the workers that were asked for, which must see the model and ``paths``; None for work done here."""
    workers, address = arguments.workers, arguments.address
    if workers < 0:
        raise SettingError("workers", "be at least 0", workers, "Leave it out for the default")
    if arguments.engine == "ray":
        files = model.description.files if model.description else ()
        return Cluster(workers, address, (*files, *paths))
    if workers or address:
        key, got = ("workers", workers) if workers else ("address", address)
        raise SettingError(key, "be given with {0} alone", got, "Add {0}, or leave it out", "engine")
    return None
