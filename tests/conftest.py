"""One thread for each test process, the files with long tests first, and the same examples of a property each time.

Processes that share the machine's cores are in each other's way as soon as each has a thread for every core. The names
below are read when the libraries are imported, and are handed to the programs that tests start.
"""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import suppress

import hypothesis
import pytest

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    for name in THREADS:
        os.environ.setdefault(name, "1")

if "PYTEST_XDIST_WORKER" in os.environ:  # coverage watches already, which doubles the seconds that these imports take
    watcher = sys.gettrace()
    sys.settrace(None)
    for module in ("diffusers.loaders.single_file_utils", "diffusers.models.autoencoders.autoencoder_kl"):
        with suppress(ImportError):
            importlib.import_module(module)
    sys.settrace(watcher)

hypothesis.settings.register_profile("same", derandomize=True)
if not os.environ.get("VIDSEG_EXPLORE"):  # set it to try other examples each time
    hypothesis.settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    """Hand out files in the order below; xdist would take those with the most tests first, which are short."""
    config.option.loadscopereorder = False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that no process is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
