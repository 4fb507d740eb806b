"""Which of two values of a metric is better, as far as the runs can tell; and which of several is best.

Pure. Where both have 95 % intervals, these must separate. Times and rates that were measured once tell nothing, nor does where two texts
part. What has neither, such as bytes or a divergence, counts where it is 2 % apart (as in `trend`; 10 % for what is read of a whole
process or device) and farther than the noise floor of a quality metric, or where it is equal. Example::

    compare("itl_s", {"value": 1.0, "ci95": [0.9, 1.1]}, {"value": 1.2, "ci95": [1.15, 1.25]})   # "better"
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from playground.measure.metrics import METRICS
from playground.measure.stats import separated
from playground.measure.values import Value
from playground.results.expectations import AGAINST_ITSELF
from playground.results.trend import CLOSE, TIMES, TOLERANCE

Metric = Mapping[str, Any]
Order = Literal["better", "worse", "equal", "open"]
RATE = "/s"
# One near tie between two tokens decides where two texts part, and differences of two readings of memory are mostly noise.
BY_CHANCE = ("matching_tokens", "rss_growth_bytes", "slack_bytes", "context_bytes")
# Read once from a whole process or device, which differ by some percent between equal runs.
SAMPLED = ("peak_rss_bytes", "process_bytes", "device_used_bytes", "avg_power_w", "j_per_token")


def number(metric: Metric) -> float | None:
    """A metric's value where it has a finite one."""
    value = metric.get("value")
    if value is None or metric.get("kind") == "not_available" or not math.isfinite(value):
        return None
    return float(value)


def nearer(name: str, one: float, other: float) -> bool:
    """Whether `one` is the better number, by the metric's direction alone; False for equal ones and where neither way is better."""
    direction = METRICS[name].direction
    return one < other if direction == "lower" else one > other if direction == "higher" else False


def compare(name: str, one: Metric, other: Metric, floor: float | None = None) -> Order:
    """`one` against `other`: "open" where these runs cannot tell, or where either has no value. `floor`: the noise floor, whose meaning is
    that of `results.numbers.floor_of`."""
    a, b = number(one), number(other)
    if a is None or b is None or METRICS[name].direction == "none":
        return "open"
    if not _tells(name, one, other, abs(a - b), max(abs(a), abs(b)), floor):
        return "open"
    if a == b:
        return "equal"
    return "better" if nearer(name, a, b) else "worse"


def _tells(name: str, one: Metric, other: Metric, apart: float, largest: float, floor: float | None) -> bool:
    if one.get("ci95") and other.get("ci95"):
        return separated(_value(one), _value(other)) or (apart == 0 and _exact(one) and _exact(other))
    unit = METRICS[name].unit
    if unit in TIMES or unit.endswith(RATE) or name in BY_CHANCE:
        return False
    noise = abs(floor - AGAINST_ITSELF.get(name, 0.0)) if floor is not None else 0.0
    return apart == 0 or apart > max(noise, (CLOSE if name in SAMPLED else TOLERANCE) * largest)


def _exact(metric: Metric) -> bool:
    """Whether the interval is a point: repeats that all gave the same, such as bytes."""
    low, high = metric["ci95"]
    return bool(low == high)


def _value(metric: Metric) -> Value:
    low, high = metric["ci95"]
    return Value(number(metric), str(metric.get("unit", "")), ci95=(float(low), float(high)))


def best(name: str, metrics: Sequence[Metric], floor: float | None = None) -> int | None:
    """The place of the metric that is better than each other that has a value; None where these runs show none, or only one has a value."""
    known = [place for place, metric in enumerate(metrics) if number(metric) is not None]
    if len(known) < 2:
        return None
    return next((at for at in known if all(compare(name, metrics[at], metrics[to], floor) == "better" for to in known if to != at)), None)
