"""Numbers for people: three significant digits, a unit that fits, what a change against the baseline means, how steady a value is.

Example::

    shown(0.01234, "s")                    # "12.3 ms"
    change({"value": 2.0}, {"value": 1.0}) # Change(text="−50 %", ...)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from playground.measure.stats import Summary, difference, separated

Metric = Mapping[str, Any]
_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_SI = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_RATES = ("FLOP/s", "B/s")
FLOOR = "_floor"
SHARES = ("share", "ratio", "fraction", "1")
NO_DIFFERENCE = "no difference that this run can show"


@dataclass(frozen=True)
class Scale:
    """Multiply by `factor` and write `unit`."""

    factor: float
    unit: str


@dataclass(frozen=True)
class Change:
    """A metric against the baseline's. `shown`: whether this run shows a difference (None: it has no interval to tell by); `spread`: the
    difference's own 95 % interval ("−74 % to −44 %"), "" where there is none."""

    text: str
    shown: bool | None
    spread: str = ""


@dataclass(frozen=True)
class _Ends:
    ci95: tuple[float, float] | None


def scale_for(largest: float, unit: str) -> Scale:
    """The scale in which numbers of `unit` up to `largest` are easy to read; one scale for a whole chart or row."""
    if unit == "s":
        factor, name = next(((f, n) for f, n in _TIMES if abs(largest) >= f), _TIMES[-1] if largest else _TIMES[0])
        return Scale(1 / factor, name)
    if unit in ("B", "bytes"):
        factor, name = next(((f, n) for f, n in _BYTES if abs(largest) >= f), _BYTES[-1])
        return Scale(1 / factor, name)
    if unit in _RATES:
        factor, name = next(((f, n) for f, n in _SI if abs(largest) >= f), _SI[-1])
        return Scale(1 / factor, name + unit)
    return Scale(100.0, "%") if unit in SHARES else Scale(1.0, unit)


def digits(number: float, significant: int = 3) -> str:
    """Three significant digits, whole numbers as they are, no exponent for everyday sizes: 0.00123, 1.23, 12.3, 123, 1,234."""
    if not math.isfinite(number):
        return str(number)
    if number == 0:
        return "0"
    size = abs(number)
    if size >= 999.5:
        return f"{number:,.0f}"
    if size < 1e-4:
        return f"{number:.1e}"
    whole = round(number)
    if math.isclose(number, whole, rel_tol=1e-9):
        return str(whole)
    return f"{number:.{max(0, significant - 1 - math.floor(math.log10(size)))}f}"


def shown(number: float, unit: str) -> str:
    """A number with its unit; dollars before the number."""
    if unit == "$":
        return f"${digits(number)}"
    scale = scale_for(number, unit)
    return f"{digits(number * scale.factor)} {scale.unit}".strip()


def duration(seconds: float) -> str:
    """A time to wait, in words: "40 s", "12 min", "1 h 5 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def interval(metric: Metric) -> str:
    """Half the width of the 95 % interval, as "± 0.4 ms" in the unit that the value itself is shown in, or both ends where the value is not
    in their middle ("52.2 to 69.1 %"); "" where there is none."""
    ends = metric.get("ci95")
    if not ends or metric.get("value") is None:
        return ""
    value, unit = float(metric["value"]), str(metric.get("unit", ""))
    scale = scale_for(value, unit)
    low, high = (float(end) * scale.factor for end in ends)
    if abs(low + high - 2 * value * scale.factor) > 1e-6 * abs(high - low):
        return f"{digits(low)} to {digits(high)} {scale.unit}".strip()
    half = digits((high - low) / 2, 2)
    return f"± ${half}" if unit == "$" else f"± {half} {scale.unit}".strip()


def value_of(result: Mapping[str, Any], name: str) -> float | None:
    """The value of a metric in a result, or None where it is missing or not available."""
    metric = result.get("metrics", {}).get(name) or {}
    value = metric.get("value")
    return None if value is None or metric.get("kind") == "not_available" else float(value)


def floor_of(result: Mapping[str, Any], name: str) -> float | None:
    """The noise floor of a quality metric, which a baseline's result has beside it; None where it was not measured."""
    return value_of(result, name + FLOOR)


def spread_about(metric: Metric) -> str:
    """What an interval stands on: "95 % interval over 5 passes, which vary by 1.2 % (excellent)"."""
    cv, grade = metric.get("cv"), metric.get("grade")
    if cv is None or not grade:
        return f"95 % interval, n = {metric.get('n')}"
    return f"95 % interval over {metric.get('n')} passes, which vary by {digits(float(cv) * 100, 2)} % ({grade})"


def unstable(metric: Metric) -> str:
    """ "31 %" where the repeats vary so much that the mean says little; "" elsewhere."""
    cv = metric.get("cv")
    return f"{digits(float(cv) * 100, 2)} %" if cv is not None and metric.get("grade") == "unstable" else ""


def change(metric: Metric, baseline: Metric) -> Change | None:
    """`metric` against the baseline's; None where either has no value."""
    new, old = metric.get("value"), baseline.get("value")
    if new is None or old is None or "not_available" in (metric.get("kind"), baseline.get("kind")):
        return None
    if new == old:
        return Change("same", None)
    has_intervals = bool(metric.get("ci95") and baseline.get("ci95"))
    verdict = separated(_ends(metric), _ends(baseline)) if has_intervals else None
    return Change(_difference(float(new), float(old), str(metric.get("unit", ""))), verdict, _spread(metric, baseline))


def _spread(metric: Metric, baseline: Metric) -> str:
    """The interval of the difference of two means over repeats."""
    points = str(metric.get("unit", "")) in SHARES
    pair = [_summary(item) for item in (metric, baseline)]
    ends = None if None in pair else difference(*[item for item in pair if item], relative=not points)
    if ends is None:
        return ""
    words = [f"{_signed(end * 100)} points" if points else _percent(end * 100) for end in ends]
    return " to ".join(words)


def _summary(metric: Metric) -> Summary | None:
    """A mean over repeats; None for what has no spread over repeats, such as a share of right answers."""
    if not metric.get("ci95") or metric.get("cv") is None:
        return None
    low, high = metric["ci95"]
    return Summary(float(metric["value"]), int(metric["n"]), (float(low), float(high)), float(metric["cv"]), "")


def _ends(metric: Metric) -> _Ends:
    low, high = metric["ci95"]
    return _Ends((float(low), float(high)))


def _difference(new: float, old: float, unit: str) -> str:
    if unit in SHARES:
        return f"{_signed((new - old) * 100)} points"
    if old == 0:
        return f"{_signed(new)} {unit}".strip()
    ratio = new / old
    return f"× {digits(ratio)}" if ratio >= 2 else _percent((ratio - 1) * 100)


def _percent(number: float) -> str:
    if abs(number) < 0.05:
        return "≈ same"
    return f"{'+' if number > 0 else '−'}{abs(number):.{0 if abs(number) >= 9.95 else 1}f} %"


def _signed(number: float) -> str:
    return f"{'+' if number > 0 else '−'}{digits(abs(number))}"
