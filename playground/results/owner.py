"""Who works on a run: this process by number and start time, so that a later process with the same number is told apart.

Example::

    pid, started = owner()
    alive(pid, started)      # True
"""

from __future__ import annotations

import os

import psutil


def owner() -> tuple[int, float]:
    """This process, told apart from a later one with the same number by its start time."""
    return os.getpid(), psutil.Process().create_time()


def alive(pid: int, started: float) -> bool:
    """Whether the process of that number and start time (seconds since 1970) still runs."""
    try:
        return bool(abs(psutil.Process(pid).create_time() - started) < 2.0)
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False
