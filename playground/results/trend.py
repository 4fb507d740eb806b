"""Whether a metric went up, down or neither against the baseline, as far as the two runs can tell.

Pure. Example::

    trend(values["itl_s"], baseline_values["itl_s"])   # "down"
"""

from __future__ import annotations

from typing import Literal

from playground.measure.stats import separated
from playground.measure.values import Value

Trend = Literal["up", "down", "same"]
TIMES = ("s", "tokens/s")
CLOSE = 0.1  # means that are farther apart are not called the same, however wide their intervals
TOLERANCE = 0.02  # for values without an interval, such as bytes


def trend(value: Value, baseline: Value) -> Trend | None:
    """Where both have intervals, "same" until these separate; else until the values are 2 % apart. None where either has no value, and
    for times that were measured once: nothing tells a difference from noise."""
    new, old = value.value, baseline.value
    if new is None or old is None:
        return None
    if value.unit in TIMES and not (value.ci95 and baseline.ci95):
        return None
    close = abs(new - old) <= TOLERANCE * max(abs(new), abs(old))
    same = not separated(value, baseline) if value.ci95 and baseline.ci95 else close
    return "same" if same else "up" if new > old else "down"
