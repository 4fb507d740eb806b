"""Resident memory of this process and its peak, which can be forgotten between runs.

On Linux both come from the kernel's record of this address space; `getrusage` would not do there, since a new process inherits its parent's
peak. Example::

    reset_peak(); ...; resident()["peak_rss_bytes"]
"""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def resident() -> dict[str, float]:
    """rss_bytes now, and peak_rss_bytes since the start of the process or the last `reset_peak`, where the system tells it."""
    if _STATUS.exists():
        found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE))
        names = (("rss_bytes", "VmRSS"), ("peak_rss_bytes", "VmHWM"))
        return {name: int(found[field]) * 1024.0 for name, field in names if field in found}
    memory = psutil.Process().memory_info()
    peak = getattr(memory, "peak_wset", None)
    return {"rss_bytes": float(memory.rss)} | ({"peak_rss_bytes": float(peak)} if peak else {})


def reset_peak() -> bool:
    """Forget the peak seen so far; False where the system has no such thing, and the peak stays that of the whole process."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def give_back() -> None:
    """Return memory that nobody uses to the system, so that one run's leftovers do not count for the next (glibc keeps them otherwise)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if _STATUS.exists() else None
    if trim:
        trim(0)
