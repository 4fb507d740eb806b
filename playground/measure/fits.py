"""What a line of measured points says: its exponent, its share of a square, the place where something stops being free.

Pure numbers, no dependency. Example::

    exponent([128, 256, 512], [1.0, 2.1, 4.3])           # 1.05: a little more than in proportion
    parabola([128, 256, 512], [1.0, 2.1, 4.3]).square    # share of c n^2 at the longest
    leaves([1, 2, 4, 8], [1.0, 1.0, 1.05, 1.3], 1.1)     # 4.6: linear between the points next to it, on the axis' own scale of doublings
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

Points = Sequence[float]


@dataclass(frozen=True)
class Parabola:
    """t = constant + linear n + quadratic n^2, no coefficient negative; `at`: the largest n, where the shares are taken."""

    constant: float
    linear: float
    quadratic: float
    at: float

    @property
    def square(self) -> float:
        """Share of the quadratic term at the largest n."""
        return self.quadratic * self.at**2 / self(self.at)

    def __call__(self, n: float) -> float:
        return self.constant + self.linear * n + self.quadratic * n * n


def exponent(x: Points, y: Points) -> float | None:
    """k of y = a x^k, by least squares of the logarithms; None for fewer than two different x or where a number is not positive."""
    if len(set(x)) < 2 or min(*x, *y) <= 0:
        return None
    logs = [(math.log(a), math.log(b)) for a, b in zip(x, y, strict=True)]
    mean_x, mean_y = (math.fsum(values) / len(logs) for values in zip(*logs, strict=True))
    return math.fsum((a - mean_x) * (b - mean_y) for a, b in logs) / math.fsum((a - mean_x) ** 2 for a, _ in logs)


def parabola(n: Points, t: Points) -> Parabola | None:
    """The least sum of squared relative errors with no negative coefficient: times are of very different size, and none of their parts
    takes time back. None for fewer than three different n or where a number is not positive."""
    if len(set(n)) < 3 or min(*n, *t) <= 0:
        return None
    found = _non_negative([[1 / time, at / max(n) / time, (at / max(n)) ** 2 / time] for at, time in zip(n, t, strict=True)])
    constant, linear, quadratic = found
    return Parabola(constant, linear / max(n), quadratic / max(n) ** 2, max(n))


def growth(x: Points, y: Points) -> tuple[float, float]:
    """(a, b) of y = a + b x with neither negative, by the least sum of squared relative errors; the mean where all x are alike. At least
    one point, all of them positive."""
    if len(set(x)) < 2:
        return math.fsum(y) / len(y), 0.0
    constant, linear = _non_negative([[1 / value, at / max(x) / value] for at, value in zip(x, y, strict=True)])
    return constant, linear / max(x)


def leaves(x: Points, y: Points, factor: float) -> float | None:
    """The x from which on y stays more than `factor` (at least 1) times its first value, between two points on a straight line over log x;
    None where its last value is not. x ascends from a positive first value."""
    limit = factor * y[0]
    last = max(place for place, value in enumerate(y) if value <= limit)
    if last == len(y) - 1:
        return None
    (x0, y0), (x1, y1) = (x[last], y[last]), (x[last + 1], y[last + 1])
    return x0 * math.exp(math.log(x1 / x0) * (limit - y0) / (y1 - y0))


def _non_negative(rows: Sequence[Sequence[float]]) -> list[float]:
    """The coefficients, none negative, with which each row comes as near as can be to 1 (least squares): the best of all subsets of the
    columns whose own solution has no negative one."""
    width = len(rows[0])
    best, least = [0.0] * width, math.inf
    subsets = (chosen for size in range(1, width + 1) for chosen in itertools.combinations(range(width), size))
    for chosen in subsets:
        solved = _solved([[math.fsum(row[i] * row[j] for row in rows) for j in chosen] for i in chosen], [
            math.fsum(row[i] for row in rows) for i in chosen
        ])  # fmt: skip
        if solved is None or min(solved) < 0:
            continue
        given = dict(zip(chosen, solved, strict=True))
        full = [given.get(place, 0.0) for place in range(width)]
        error = math.fsum((math.fsum(a * b for a, b in zip(full, row, strict=True)) - 1) ** 2 for row in rows)
        if error < least:
            best, least = full, error
    return best


def _solved(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """Gauss with pivots; None where the matrix is singular."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for place in range(size):
        pivot = max(range(place, size), key=lambda number: abs(rows[number][place]))
        rows[place], rows[pivot] = rows[pivot], rows[place]
        if abs(rows[place][place]) < 1e-14 * max(map(abs, rows[place])):
            return None
        for number in range(size):
            if number != place:
                factor = rows[number][place] / rows[place][place]
                rows[number] = [a - factor * b for a, b in zip(rows[number], rows[place], strict=True)]
    return [row[-1] / row[place] for place, row in enumerate(rows)]
