"""What a piece of work adds to the memory in use, on a CPU (inside `nothing_kept`) and on a GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # mallopt's names of options, from malloc.h
_EXACT = {_MMAP_THRESHOLD: 1 << 17, _TRIM_THRESHOLD: 1 << 17}
_USUAL = {_MMAP_THRESHOLD: 1 << 25, _TRIM_THRESHOLD: 1 << 26}


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Inside, glibc gives freed blocks back to Linux at once, so that the process is as large as what is in use. It has
    to hold for work that comes before a measurement, too: its blocks would be used again, and not be seen.

    Afterwards glibc keeps as large blocks as it does by itself in a program that has freed large ones.
    """
    glibc = ctypes.CDLL(None)
    for option, size in _EXACT.items():
        glibc.mallopt(option, size)
    try:
        yield
    finally:
        for option, size in _USUAL.items():
            glibc.mallopt(option, size)


def peak_bytes(work: Callable[[], Any], device: torch.device) -> int:
    """Bytes at the peak of one run of `work` above what there was before it; on a CPU the process's, from Linux."""
    if device.type != "cpu":
        memory = torch.get_device_module(device)
        memory.reset_peak_memory_stats()
        before = memory.memory_allocated()
        work()
        return int(memory.max_memory_allocated()) - int(before)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def resident_bytes(device: torch.device) -> int:
    """Bytes in use now; on a CPU those of the process that are in no file."""
    if device.type != "cpu":
        return int(torch.get_device_module(device).memory_allocated())
    ctypes.CDLL(None).malloc_trim(0)
    return _status("RssAnon")


def _status(key: str) -> int:
    """Bytes of a line of Linux's /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
