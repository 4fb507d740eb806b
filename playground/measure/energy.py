"""Energy of a run: NVML's counter of the GPU over a window of its own, after the timed passes, and the metrics that follow from it.

The meter runs in the worker and reads nothing while a pass runs. Example::

    meter = EnergyMeter.open("cuda")
    energy_window(meter, run_pass=lambda: tokens_of_one_pass(), check=lambda: None).joules
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from playground.core.events import Energy
from playground.measure import nvml, timing
from playground.measure.trace import Trace
from playground.measure.values import Found, Measure, Metric, Missing

WINDOW_S = 2.0
POLL_S = 0.002
STUCK_S = 1.0  # the counter moves about every 100 ms, also on an idle GPU


class _Unread(Exception):
    """The counter gave no usable value; the text says why."""


@dataclass(frozen=True)
class EnergyMeter:
    """The energy counter of the first visible GPU, or the `reason` why there is none."""

    reason: str = ""
    gpus: nvml.Visible = field(default_factory=nvml.Visible)

    @classmethod
    def open(cls, device: str) -> EnergyMeter:
        """The counter for a run on `device` (cpu or cuda). Never raises."""
        if device != "cuda":
            return cls("no energy counter is read on a CPU")
        if os.environ.get("SPACES_ZERO_GPU"):
            return cls("on ZeroGPU the counter is of a shared GPU")
        gpus = nvml.visible()
        meter = cls(gpus.reason, gpus)
        if gpus.handles:
            try:
                meter.joules()
            except _Unread as error:
                meter = cls(str(error), gpus)
        if meter.reason:
            meter.close()
        return meter

    def joules(self) -> float:
        """The counter now: joules since the driver was loaded."""
        lib: Any = self.gpus.nvml
        try:
            return float(lib.nvmlDeviceGetTotalEnergyConsumption(self.gpus.handles[0])) / 1000
        except lib.NVMLError as error:
            raise _Unread(f"the GPU's energy counter cannot be read ({error})") from error

    def close(self) -> None:
        """Give NVML back."""
        self.gpus.close()


def energy_window(
    meter: EnergyMeter,
    run_pass: Callable[[], int],
    check: Callable[[], None],
    min_s: float = WINDOW_S,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Energy:
    """Repeat the workload for at least `min_s` seconds and read the counter around it.

    run_pass: one pass over the workload, returns its output tokens; check: raises where the run was stopped. The counter moves in steps
    about 100 ms apart, so the window begins at a step, just before the first pass, and ends at the first step after the last pass:
    `joules` and `seconds` lie between these two steps, each seen within 2 ms. The wait for the last step is idle time of at most one
    such interval; it is part of both. A counter that stands still or cannot be read gives joules None with the reason.
    """
    tokens = passes = 0
    try:
        before, started = _next_step(meter, check, clock, sleep)
        while clock() - started < min_s:
            check()
            tokens += run_pass()
            passes += 1
        after, ended = _next_step(meter, check, clock, sleep)
    except _Unread as error:
        return Energy(time.perf_counter_ns(), None, 0.0, tokens, passes, str(error))
    if after < before:
        return Energy(time.perf_counter_ns(), None, ended - started, tokens, passes, "the GPU's energy counter was reset meanwhile")
    return Energy(time.perf_counter_ns(), after - before, ended - started, tokens, passes)


def _next_step(
    meter: EnergyMeter, check: Callable[[], None], clock: Callable[[], float], sleep: Callable[[float], None]
) -> tuple[float, float]:
    """Wait until the counter moves; its value and the moment."""
    began, standing = clock(), meter.joules()
    while (value := meter.joules()) == standing:
        if clock() - began > STUCK_S:
            raise _Unread(f"the GPU's energy counter did not move for {STUCK_S:g} s")
        check()
        sleep(POLL_S)
    return value, clock()


def _of_window(figure: Callable[[float, Energy], float | Missing]) -> Measure:
    """A figure of the joules of the energy window."""

    def measure(trace: Trace, baseline: Trace | None) -> Found:
        if not trace.spec.protocol.energy:
            return Missing("this run was set not to measure energy")
        if trace.energy is None:
            return Missing("the run ended before its energy was measured, or was recorded without it")
        if trace.energy.joules is None:
            return Missing(trace.energy.reason or "the energy window has no reading")
        return figure(trace.energy.joules, trace.energy)

    return measure


def _per_token(joules: float, window: Energy) -> float | Missing:
    return joules / window.output_tokens if window.output_tokens else Missing("the energy window gave no token")


def _power(joules: float, window: Energy) -> float | Missing:
    return joules / window.seconds if window.seconds > 0 else Missing("the energy window has no length")


_output_rate = next(metric.measure for metric in timing.METRICS if metric.name == "output_tokens_per_s")


def _cost(trace: Trace, baseline: Trace | None) -> Found:
    price = trace.spec.protocol.price_per_hour
    if price <= 0:
        return Missing("no price per hour was given")
    rates = _output_rate(trace, baseline)
    return [price / 3600 / rate * 1e6 for rate in rates] if isinstance(rates, Sequence) else rates


METRICS = (
    Metric(
        "energy_j",
        "Energy of the window",
        "J",
        "none",
        "NVML's energy counter of the GPU while the workload is repeated for at least 2 s, from one step of the counter to another; idle "
        "power is not subtracted",
        _of_window(lambda joules, window: joules),
    ),
    Metric(
        "avg_power_w",
        "Average power",
        "W",
        "lower",
        "energy of the window / its seconds; idle power is not subtracted",
        _of_window(_power),
    ),
    Metric(
        "j_per_token",
        "Energy of an output token",
        "J/token",
        "lower",
        "energy of the window / output tokens of all requests in it; idle power is not subtracted, and prefill is included",
        _of_window(_per_token),
    ),
    Metric(
        "cost_per_million",
        "Cost of a million output tokens",
        "$",
        "lower",
        "price per hour / 3600 / output throughput of a timed pass x 1,000,000",
        _cost,
    ),
)
