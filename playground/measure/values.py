"""What a metric is and what it yields: one `Metric` row a quantity, one `Value` a run.

A metric's function returns per-repeat values, one value, a pooled statistic, a share, or `Missing` with the reason: a quantity that
cannot be measured is never 0. Example::

    Value.of([0.020, 0.021], "s", "measured")   # n=2 with an interval
    Value.of(Missing("this engine reports no KV cache"), "B", "measured").kind   # "not_available"
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from playground.measure.stats import summarise, wilson
from playground.measure.trace import Trace

Direction = Literal["lower", "higher", "none"]
Kind = Literal["measured", "estimated", "recorded", "not_available"]


@dataclass(frozen=True)
class Missing:
    """Why there is no value, in a sentence."""

    reason: str


@dataclass(frozen=True)
class Pooled:
    """A statistic over `n` pooled observations, such as a percentile: no interval."""

    value: float
    n: int


@dataclass(frozen=True)
class Counted:
    """A share: `hits` of `n` independent trials, at least one, with Wilson's interval."""

    hits: int
    n: int


Found = Sequence[float] | float | Pooled | Counted | Missing
Measure = Callable[[Trace, Trace | None], Found]


@dataclass(frozen=True)
class Metric:
    """One quantity. `direction`: which way is better; `formula`: plain text for people; `estimated`: calculated, not observed."""

    name: str
    title: str
    unit: str
    direction: Direction
    formula: str
    measure: Measure
    estimated: bool = False


@dataclass(frozen=True)
class Value:
    """A metric of one run. `n`: repeats, observations of a percentile, or trials of a share; `ci95` and `cv`: over repeats, None where
    there is one value (a share has an interval and no cv); `grade` of the cv ("" without one); `reason`: why it is not available, else
    None."""

    value: float | None
    unit: str
    n: int = 0
    ci95: tuple[float, float] | None = None
    cv: float | None = None
    kind: Kind = "measured"
    reason: str | None = None
    grade: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "ci95": None if self.ci95 is None else list(self.ci95)}

    @classmethod
    def of(cls, found: Found, unit: str, kind: Kind) -> Value:
        """The value of what a metric found; numbers that are not finite are not available."""
        if isinstance(found, Missing):
            return cls(None, unit, kind="not_available", reason=found.reason)
        if isinstance(found, Counted):
            return cls(found.hits / found.n, unit, found.n, wilson(found.hits, found.n), kind=kind)
        if isinstance(found, Pooled):
            numbers, n = [found.value], found.n
        else:
            numbers = [float(found)] if isinstance(found, int | float) else [float(number) for number in found]
            n = len(numbers)
        if not numbers:
            return cls(None, unit, kind="not_available", reason="nothing was measured")
        if not all(math.isfinite(number) for number in numbers):
            return cls(None, unit, kind="not_available", reason="the measured value is not a finite number")
        summary = summarise(numbers)
        return cls(summary.mean, unit, n, summary.ci95, summary.cv, kind, None, summary.grade)
