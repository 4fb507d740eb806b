"""Gauges: physical quantities of the machine at one moment, sampled by the parent process, off the worker's interpreter lock.

What cannot be read has no key: a machine without a GPU gives CPU and memory only. Example::

    gauges = Gauges(worker.pid)
    gauges.sample().values     # {"cpu_percent": 41.0, "ram_used_bytes": 2.1e9, "rss_bytes": 9.6e8}
    gauges.close()
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil

from playground.core.events import Gauge
from playground.measure import nvml


class Gauges:
    """Samples this machine, its first visible GPU and the process `pid` (None: no process). Close it after use."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._process = _process(pid)
        self._before = psutil.cpu_times()
        self._gpus = nvml.visible()

    def sample(self) -> Gauge:
        """One Gauge of source "parent": cpu_percent (0 to 100, all cores, since the last sample), ram_used_bytes, rss_bytes of the process,
        and of the GPU gpu_util (0 to 1), device_used_bytes, process_bytes, power_w, temperature_c. The stamp is perf_counter_ns."""
        memory = psutil.virtual_memory()
        values: dict[str, float] = {"ram_used_bytes": float(memory.total - memory.available)}
        values |= self._cpu() | self._resident() | self._gpu()
        return Gauge(time.perf_counter_ns(), "parent", values)

    def close(self) -> None:
        """Give NVML back."""
        self._gpus.close()
        self._gpus = nvml.Visible()

    def _cpu(self) -> dict[str, float]:
        """Own bookkeeping, since psutil's is shared by all callers of a thread."""
        before, self._before = self._before, psutil.cpu_times()
        total = _ticks(self._before) - _ticks(before)
        if total <= 0:
            return {}
        idle = _idle(self._before) - _idle(before)
        return {"cpu_percent": min(max(100 * (1 - idle / total), 0.0), 100.0)}

    def _resident(self) -> dict[str, float]:
        try:
            return {"rss_bytes": float(self._process.memory_info().rss)} if self._process else {}
        except psutil.Error:
            return {}

    def _gpu(self) -> dict[str, float]:
        lib = self._gpus.nvml
        if not self._gpus.handles:
            return {}
        gpu = self._gpus.handles[0]
        readings: dict[str, Callable[[], float | None]] = {
            "gpu_util": lambda: lib.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
            "device_used_bytes": lambda: lib.nvmlDeviceGetMemoryInfo(gpu).used,
            "process_bytes": lambda: self._on_gpu(lib, gpu),
            "power_w": lambda: lib.nvmlDeviceGetPowerUsage(gpu) / 1000,
            "temperature_c": lambda: lib.nvmlDeviceGetTemperature(gpu, lib.NVML_TEMPERATURE_GPU),
        }
        values = {}
        for name, read in readings.items():
            try:
                value = read()
            except lib.NVMLError:
                continue
            if value is not None:
                values[name] = float(value)
        return values

    def _on_gpu(self, lib: Any, gpu: Any) -> float | None:
        """GPU memory of the process; None where the driver does not list it or hides its figure."""
        listed = lib.nvmlDeviceGetComputeRunningProcesses(gpu) if self._pid is not None else []
        return next((entry.usedGpuMemory for entry in listed if entry.pid == self._pid), None)


def _process(pid: int | None) -> psutil.Process | None:
    try:
        return None if pid is None else psutil.Process(pid)
    except psutil.Error:
        return None


def _ticks(times: Any) -> float:
    """All seconds of all cores; guest time is in user time already."""
    return float(sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0))


def _idle(times: Any) -> float:
    return float(times.idle + getattr(times, "iowait", 0.0))
