"""Small statistics of measurements: mean, 95 % t-interval, coefficient of variation with a grade, the interval of a share, percentiles.

Pure numbers, no dependency. An interval needs at least two values; without one, nothing is claimed. Example::

    summarise([0.020, 0.021, 0.022])   # Summary(mean=0.021, n=3, ci95=(0.0185, 0.0235), cv=0.048, grade="excellent")
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

GRADES = ((0.05, "excellent"), (0.10, "good"), (0.20, "fair"), (math.inf, "unstable"))

# Two-sided 95 % quantile of Student's t for 1 to 30 degrees of freedom.
_T95 = (
    12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139,
    2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963,
    2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230, 2.042272,
)  # fmt: skip
_Z95 = 1.959964


@dataclass(frozen=True)
class Summary:
    """Mean of `n` values; `ci95`: low and high end of the mean's 95 % interval (None for one value); `cv`: standard deviation / mean
    (None for one value or mean 0); `grade` of the cv, "" where there is none."""

    mean: float
    n: int
    ci95: tuple[float, float] | None
    cv: float | None
    grade: str


class HasInterval(Protocol):
    """Anything with a 95 % interval: a Summary or a metric's Value."""

    @property
    def ci95(self) -> tuple[float, float] | None:
        """Low and high end, or None."""


def summarise(values: Sequence[float]) -> Summary:
    """Summary of at least one finite value; raises ValueError for none."""
    n = len(values)
    if n == 0:
        raise ValueError("summarise needs at least one value")
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(mean, 1, None, None, "")
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = t_quantile(n - 1) * deviation / math.sqrt(n)
    cv = deviation / abs(mean) if mean else None
    return Summary(mean, n, (mean - half, mean + half), cv, "" if cv is None else grade(cv))


def grade(cv: float) -> str:
    """How steady a measurement is: under 5 % excellent, under 10 good, under 20 fair, else unstable."""
    return next(name for limit, name in GRADES if cv < limit or limit == math.inf)


def t_quantile(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t: a table up to 30 degrees of freedom, and beyond it the expansion in powers of
    1/degrees (Abramowitz and Stegun 26.7.5, three terms), which is right to 1e-5 there."""
    if degrees < 1:
        raise ValueError("a t-interval needs at least one degree of freedom")
    if degrees <= len(_T95):
        return _T95[degrees - 1]
    z = _Z95
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def difference(new: Summary, old: Summary, *, relative: bool) -> tuple[float, float] | None:
    """95 % interval of new - old, or with `relative` of new / old - 1; None where either mean has no interval, or where old may be 0.

    Welch's: the variances of the two means add, with the degrees of freedom of Welch and Satterthwaite; a ratio by Fieller's theorem, with
    the degrees of freedom at the measured ratio.
    """
    if new.ci95 is None or old.ci95 is None or (relative and not old.mean):
        return None
    ratio = new.mean / old.mean if relative else 1.0
    errors = [(x.ci95[1] - x.ci95[0]) / 2 / t_quantile(x.n - 1) for x in (new, old) if x.ci95]
    variances = [errors[0] ** 2, (ratio * errors[1]) ** 2]
    middle = ratio - 1 if relative else new.mean - old.mean
    if not sum(variances):
        return middle, middle
    degrees = sum(variances) ** 2 / sum(v**2 / (x.n - 1) for v, x in zip(variances, (new, old), strict=True))
    t = t_quantile(max(math.floor(degrees), 1))
    if not relative:
        half = t * math.sqrt(sum(variances))
        return middle - half, middle + half
    doubt, left = [(t * error / old.mean) ** 2 for error in errors], 1 - (t * errors[1] / old.mean) ** 2
    if left <= 0:
        return None  # any ratio is possible
    half = math.sqrt(ratio**2 - left * (ratio**2 - doubt[0]))
    return (ratio - half) / left - 1, (ratio + half) / left - 1


def separated(a: HasInterval, b: HasInterval) -> bool:
    """Whether the two intervals do not overlap, so that this run shows a difference; False when either has none."""
    if a.ci95 is None or b.ci95 is None:
        return False
    return a.ci95[1] < b.ci95[0] or b.ci95[1] < a.ci95[0]


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, from `hits` of `n` independent trials (Wilson's score interval, no continuity correction)."""
    if not 0 <= hits <= n or n < 1:
        raise ValueError("wilson needs at least one trial, and hits from 0 to the number of trials")
    share, z2 = hits / n, _Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return (max(0.0, middle - half) if hits else 0.0), (min(1.0, middle + half) if hits < n else 1.0)


def percentile(values: Sequence[float], q: float) -> float:
    """The q-th percentile (0 to 100) with linear interpolation between neighbours; raises ValueError for no value."""
    if not values or not 0 <= q <= 100:
        raise ValueError("percentile needs at least one value and q from 0 to 100")
    ordered = sorted(values)
    position = (len(ordered) - 1) * q / 100
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
