"""What runs in the process of a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..backbones.memory import is_out_of_memory
from .model import ModelSpec, Workplace
from .wire import send_plainly


class Worker:
    """Does calls with one model, for as long as it lives."""

    def __init__(self, spec: ModelSpec) -> None:
        import ray  # noqa: PLC0415, an optional package

        send_plainly(ray)
        self._place = Workplace(spec)

    def do(self, function: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401, whatever the function takes
        """Call a function with this place."""
        torch.set_num_threads(self._place.spec.threads)  # of this thread: Ray calls from others than that of the start
        return call_with_memory(function, self._place, *args)

    def peek(self) -> Any:  # noqa: ANN401, whatever is shown
        """Return what the call under way shows of itself."""
        return self._place.shown


def call_with_memory(function: Callable[..., Any], place: Workplace, *args: Any) -> Any:  # noqa: ANN401
    """Call ``function``; where memory runs out, again with batches of half the size, at this place alone."""
    while True:
        try:
            return function(place, *args)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or place.has_least_batches:
                raise
        place.reduce_batches()  # outside the handler, where the exception no longer holds tensors
