"""The peak of the process is told, and whether a piece of work has reached it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from vidseg.core.backbones.memory import describe_peak, measure_peak

pytest.importorskip("resource")
MEASURED = """
from vidseg.core.backbones.memory import PeakMemory
first = PeakMemory()
large = bytearray(b"x" * 2**27)
print(first.text())
del large
print(PeakMemory().text())
"""


def test_work_that_raises_the_peak_is_told_from_work_that_stays_below() -> None:
    parents = bytearray(b"x" * 2**30)  # Linux counts this for a child process where `getrusage` is asked
    found = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    assert len(parents) == 2**30
    raised, below = found.stdout.splitlines()
    pattern = r"(\d+\.\d\d) GB of main memory \(reached (here|earlier)\)"
    (size, when), (same, later) = re.findall(pattern, raised)[0], re.findall(pattern, below)[0]
    assert (when, later) == ("here", "earlier")
    assert 1 > float(size) == float(same) > 0.26


def test_peak_of_this_process_is_told() -> None:
    assert measure_peak()["main memory"] > 10**8
    assert re.match(r"\d+\.\d GB of main memory", describe_peak())
