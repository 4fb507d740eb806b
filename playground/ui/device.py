"""The device strip on top of the page: what this machine is and what it does right now. Pure HTML from a Machine and a Gauge.

Example::

    strip_html(probe(), Gauges(None).sample().values)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from playground.core.machine import Machine
from playground.measure.gauges import Gauges
from playground.results.numbers import digits, shown
from playground.run.jobs import Jobs
from playground.ui.text import escape

FRESH_S = 0.8
EVERY_MS, QUIET_MS = 1000, 3000


class Strip:
    """Samples at most once in `FRESH_S` for all open pages together; safe from several threads."""

    def __init__(self, machine: Machine, jobs: Jobs) -> None:
        self._machine, self._jobs = machine, jobs
        self._gauges = Gauges(None)
        self._lock = threading.Lock()
        self._values: Mapping[str, float] = self._gauges.sample().values
        self._at = time.monotonic()

    def sample(self) -> dict[str, Any]:
        """The strip as it is now, whether a run goes on, and in how many milliseconds to ask again: seldom in a timed pass on the CPU."""
        with self._lock:
            if time.monotonic() - self._at >= FRESH_S:
                self._values, self._at = self._gauges.sample().values, time.monotonic()
            return {
                "html": strip_html(self._machine, self._values),
                "again_ms": QUIET_MS if self._jobs.quiet else EVERY_MS,
                "busy": self._jobs.busy,
            }


def strip_html(machine: Machine, values: Mapping[str, float]) -> str:
    """Name, load, memory and power; what cannot be read is left out."""
    items = []
    if machine.gpus:
        gpu = machine.gpus[0]
        more = f" (1 of {len(machine.gpus)})" if len(machine.gpus) > 1 else ""
        items.append(f'<li class="name">{escape(gpu.name)}{more}</li>')
        items.append(_meter("GPU", values.get("gpu_util"), None))
        used = values.get("device_used_bytes")
        items.append(_meter("Memory", used / gpu.memory_bytes if used is not None else None, _of(used, gpu.memory_bytes)))
        if "power_w" in values:
            items.append(f"<li><span>Power</span> <b>{digits(values['power_w'])} W</b></li>")
    else:
        items.append(f'<li class="name" title="No CUDA: {escape(machine.no_cuda)}">{escape(short_cpu(machine))}</li>')
    load = values.get("cpu_percent")
    items.append(_meter("CPU", load / 100 if load is not None else None, None))
    ram = values.get("ram_used_bytes")
    items.append(_meter("RAM", ram / machine.memory_bytes if ram is not None else None, _of(ram, machine.memory_bytes)))
    return f'<ul class="strip" aria-label="This machine">{"".join(items)}</ul>'


def short_cpu(machine: Machine) -> str:
    """The CPU's name without trademarks, with its cores."""
    name = machine.cpu.replace("(R)", "").replace("(TM)", "").replace("CPU", "").split("@")[0]
    cores = f"{machine.cores} core{'s' if machine.cores != 1 else ''}"
    return f"{' '.join(name.split())} · {cores}"


def _of(used: float | None, total: float) -> str | None:
    return None if used is None else f"{shown(used, 'B')} of {shown(total, 'B')}"


def _meter(label: str, share: float | None, words: str | None) -> str:
    if share is None:
        return ""
    percent = max(0.0, min(100.0, share * 100))
    text = words or f"{percent:.0f} %"
    return f'<li><span>{label}</span> <i class="meter" style="--done:{percent:.0f}%"></i> <b>{escape(text)}</b></li>'
