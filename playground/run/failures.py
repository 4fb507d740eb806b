"""How a run failed, in a sentence: from an exception inside the worker, or from what is left of a worker that died.

Pure but for `oom_kills`, which asks the kernel. Example::

    emit(from_exception(error))
    yield from_death(-9, "last lines of the log", oom=False)
"""

from __future__ import annotations

import re
import signal
import time
import traceback
from pathlib import Path

from playground.core.events import Failed
from playground.core.problem import Problem

_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|ALLOC_FAILED", re.IGNORECASE)
_ASKED = re.compile(r"tried to allocate ([\d.]+) ?(\w+)", re.IGNORECASE)
_FREE = re.compile(r"total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free")
ADVICE = "Use a smaller batch, shorter texts, fewer bits or a smaller model, or offload some of its layers."
_COUNTERS = (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events"))


def from_exception(error: Exception) -> Failed:
    """The failure that an exception means; the frames of its traceback let go of what they hold, tensors above all."""
    detail = "".join(traceback.format_exception(error))
    now = time.perf_counter_ns()
    failed = Failed(now, "crash", f"The run stopped with an error: {type(error).__name__}: {_first_line(error)}", detail)
    if isinstance(error, Problem):
        failed = Failed(now, error.kind, error.message, error.detail)
    elif is_out_of_memory(error):
        failed = Failed(now, "oom", f"Out of memory: {_needed(str(error))} {ADVICE}", detail)
    _let_go(error)
    return failed


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception says that memory ran out: Python's own, CUDA's, or torch's CPU allocator's."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))


def from_death(returncode: int, log: str, *, oom: bool) -> Failed:
    """What the exit status of a dead worker means. `log`: last lines of its log; `oom`: whether there is evidence that memory ran out."""
    now = time.perf_counter_ns()
    if returncode >= 0:
        return Failed(now, "crash", f"The worker process ended in the middle of the run, with exit status {returncode}.", log)
    name = _signal_name(-returncode)
    if name == "SIGKILL" and oom:
        return Failed(now, "oom", f"Out of memory: the system killed the worker process, as its memory was exhausted. {ADVICE}", log)
    if name == "SIGKILL":
        return Failed(
            now,
            "crash",
            "The worker process was killed (SIGKILL): by a person, or by the system, which does so where memory runs out. Nothing "
            "shows that it ran out.",
            log,
        )
    return Failed(now, "crash", f"The worker process crashed ({name}). The detail has the last lines of its log.", log)


def oom_kills() -> int:
    """How many processes the out-of-memory killer has ended so far on this machine or in this container; 0 where nobody counts."""
    total = 0
    for path in _COUNTERS:
        try:
            found = re.search(r"^oom_kill (\d+)", path.read_text(), re.MULTILINE)
        except OSError:
            continue
        total += int(found[1]) if found else 0
    return total


def _needed(text: str) -> str:
    asked, free = _ASKED.search(text), _FREE.search(text)
    need = f"the run asked for another {_readable(asked[1], asked[2])}" if asked else "the run asked for more memory than there is"
    return f"{need}, and {free[2]} of {free[1]} were free." if free else f"{need}."


def _readable(number: str, unit: str) -> str:
    return f"{float(number) / 2**30:.2f} GiB" if unit == "bytes" else f"{number} {unit}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _let_go(error: BaseException) -> None:
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
