"""How much memory a device has for a batch, and what was used at most."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

import torch

from ..types import SettingError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]
CPU_BUDGET_BYTES = 2**30
"""What compute batches may take on the CPU, at most; weights and the program come on top."""
GPU_BUDGET_BYTES = 7 * 2**29
"""Likewise on a GPU: three frames of SD 2.1 at 832x448 in half precision; more at a time are hardly faster."""
KEPT_BYTES, MAPPED_BYTES = 1 << 28, 1 << 25
"""Freed memory that glibc keeps, and the least that it asks of the system by itself and gives back at once."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
PROCESS_STATUS = Path("/proc/self/status")
NOT_TOLD = "not told by the system"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that memory ran out, on the GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        part in text for part in ("out of memory", "not enough memory", "can't allocate memory")
    )


def find_budget(device: torch.device) -> int:
    """Return how many bytes compute batches on ``device`` may take.

    Half of what is free: on CUDA beside the weights, on MPS of the recommended working set, on the CPU where the system
    tells; at most `GPU_BUDGET_BYTES` or `CPU_BUDGET_BYTES`.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return min(GPU_BUDGET_BYTES, (torch.cuda.mem_get_info(device)[0] + cached) // 2)
    if device.type == "mps":
        free = max(0, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
        return min(GPU_BUDGET_BYTES, free // 2)
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return CPU_BUDGET_BYTES
    return min(CPU_BUDGET_BYTES, free // 2)


def keep_freed_memory() -> None:
    """Let this process keep freed memory for what it needs next, where its C library is glibc.

    The system clears each page that it hands out, which takes a fifth of the time of an autoencoder on a CPU.
    """
    change = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if change is not None:
        change(M_TRIM_THRESHOLD, KEPT_BYTES)
        change(M_MMAP_THRESHOLD, MAPPED_BYTES)


def choose_device() -> torch.device:
    """Return the best device there is: CUDA, then MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def check_device(device: torch.device | str | None) -> None:
    """Check that ``device`` is of a kind that models run on, or None."""
    try:
        kind = "cpu" if device is None else torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in {"cuda", "mps", "cpu"}:
        raise SettingError("device", "be cuda, mps or cpu", repr(device), "Choose one of them")


def measure_peak(device: torch.device | None = None) -> dict[str, int]:
    """Return the most memory that this process, a host's other work included, has held, in bytes by what it is."""
    peaks = {"main memory": _peak_main_memory()}
    if torch.cuda.is_available() and (device is None or device.type == "cuda"):
        peaks["GPU memory allocated by torch"] = torch.cuda.max_memory_allocated(device)
    return {what: size for what, size in peaks.items() if size}


def _peak_main_memory() -> int:
    """Return the largest resident set of this process, bytes, or 0 where the system does not tell."""
    if PROCESS_STATUS.is_file():  # Linux's `getrusage` begins with what the parent process held
        found = re.search(r"VmHWM:\s*(\d+) kB", PROCESS_STATUS.read_text(encoding="ascii", errors="replace"))
        if found:
            return 1024 * int(found[1])
    if resource is None:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class PeakMemory:
    """The peaks of this process, and whether a piece of work has raised them; made before the work."""

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device
        self._before = measure_peak(device)

    def text(self) -> str:
        """Return the peaks in words; one that was reached earlier only bounds what the work has taken."""
        parts = []
        for what, size in measure_peak(self._device).items():
            when = "reached here" if size > self._before.get(what, 0) else "reached earlier"
            parts.append(f"{size / 1e9:.2f} GB of {what} ({when})")
        return ", ".join(parts) or NOT_TOLD


def describe_peak() -> str:
    """Return in words how much memory this program has taken at most, as far as the system tells."""
    return ", ".join(f"{size / 1e9:.1f} GB of {what}" for what, size in measure_peak().items()) or NOT_TOLD
