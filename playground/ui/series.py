"""Two ways to grow without cost: `Growing`, a tuple that is cheap to append to, and `Series`, a line of at most 300 points.

Both behave like values: adding returns a new object and leaves the old one as it was. Example::

    line = Series().plus(0.0, 21.5)
    line.points                      # ((0.0, 21.5),)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

MAX_POINTS = 300
T = TypeVar("T")


@dataclass(frozen=True)
class Growing(Generic[T]):
    """An immutable sequence whose versions share one list; appending to the newest version costs only what is appended."""

    _items: list[T] = field(default_factory=list)
    _length: int = 0

    def plus(self, items: Iterable[T]) -> Growing[T]:
        """This sequence followed by `items`."""
        shared = self._items if len(self._items) == self._length else self._items[: self._length]
        shared.extend(items)
        return Growing(shared, len(shared))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        return iter(self._items[: self._length])


@dataclass(frozen=True)
class Bucket:
    """Sums of the samples that will become one point: x at the last sample, y as the weighted mean."""

    x: float = 0.0
    weighted: float = 0.0
    weight: float = 0.0
    count: int = 0

    def plus(self, x: float, y: float, weight: float) -> Bucket:
        """The bucket with one more sample."""
        return Bucket(x, self.weighted + y * weight, self.weight + weight, self.count + 1)

    def merged(self, later: Bucket) -> Bucket:
        """One bucket of two neighbours."""
        return Bucket(later.x, self.weighted + later.weighted, self.weight + later.weight, self.count + later.count)

    @property
    def point(self) -> tuple[float, float]:
        """(x, y)."""
        return self.x, self.weighted / self.weight if self.weight else 0.0


@dataclass(frozen=True)
class Series:
    """A line that halves its resolution each time it would exceed `MAX_POINTS`. Every sample counts: points are weighted means."""

    full: tuple[Bucket, ...] = ()
    open: Bucket = Bucket()
    stride: int = 1

    def plus(self, x: float, y: float, weight: float = 1.0) -> Series:
        """The line with one more sample; `weight` is what the mean of merged samples weighs it with (such as its duration)."""
        bucket = self.open.plus(x, y, weight)
        if bucket.count < self.stride:
            return replace(self, open=bucket)
        full = (*self.full, bucket)
        if len(full) < MAX_POINTS:
            return Series(full, Bucket(), self.stride)
        halved = tuple(full[i].merged(full[i + 1]) for i in range(0, len(full) - 1, 2))
        rest = full[-1] if len(full) % 2 else Bucket()
        return Series(halved, rest, self.stride * 2)

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        """At most `MAX_POINTS` (x, y), the newest sample included."""
        return tuple(bucket.point for bucket in (*self.full, self.open) if bucket.count)
