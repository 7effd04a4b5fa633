"""Which Ray cluster is used, and how it is reached."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

from ..types import InputError
from .wire import send_plainly

INIT_HINT = "Start one with `ray start --head`, or leave out the address to use this machine"


class Cluster(NamedTuple):
    """Which workers are asked for.

    Attributes:
        workers: how many; 0 for the default.
        address: of the cluster's head; None for that of ``RAY_ADDRESS``, or this machine alone.
        paths: what all of them must see.
    """

    workers: int = 0
    address: str | None = None
    paths: tuple[Path, ...] = ()


def connect_ray(address: str | None = None) -> Any:  # noqa: ANN401, an optional package
    """Return the module ``ray`` with a cluster at hand: that of the address or of ``RAY_ADDRESS``, or one started here.

    Values with tensors are then sent as they lie in memory.
    """
    try:
        import ray  # noqa: PLC0415, an optional package
        import ray.util.scheduling_strategies  # noqa: PLC0415
    except ImportError as error:
        raise InputError("`--engine ray` must find Ray, but it is not installed. pip install 'ray>=2.40'.") from error
    if not ray.is_initialized():
        joins = bool(address or os.environ.get("RAY_ADDRESS"))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of our own reports nothing to anyone
        dashboard = None if joins else False
        try:
            ray.init(address, include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(f"`--engine ray` must reach a cluster, but: {error}. {INIT_HINT}.") from error
    send_plainly(ray)
    return ray
