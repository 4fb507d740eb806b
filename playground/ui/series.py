"""Two ways to grow without cost: `Growing`, a tuple that is cheap to append to, and `Series`, a line of at most 300 points.

Both behave like values: adding returns a new object and leaves the old one as it was, and `changed` does so for any. Example::

    line = Series().plus(0.0, 21.5)
    line.points                      # ((0.0, 21.5),)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

MAX_POINTS = 300
MAX_BUCKETS = 200  # even, and two thirds: breaks between pieces of two points or more add at most half as many
T = TypeVar("T")


def changed(value: T, **fields: Any) -> T:
    """A copy of a dataclass with other values in some fields: `dataclasses.replace` without its checks, in a fraction of the time."""
    copy = object.__new__(type(value))
    copy.__dict__.update(value.__dict__, **fields)
    return copy


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


class Bucket(NamedTuple):
    """Sums of the samples that will become one point: x at the last sample, y as the weighted mean. `after_pause`: a pause comes before."""

    x: float = 0.0
    weighted: float = 0.0
    weight: float = 0.0
    samples: int = 0
    after_pause: bool = False

    def plus(self, x: float, y: float, weight: float, after_pause: bool) -> Bucket:
        """The bucket with one more sample."""
        return Bucket(x, self.weighted + y * weight, self.weight + weight, self.samples + 1, self.after_pause or after_pause)

    def merged(self, later: Bucket) -> Bucket:
        """One bucket of two neighbours."""
        weight, samples, after_pause = self.weight + later.weight, self.samples + later.samples, self.after_pause or later.after_pause
        return Bucket(later.x, self.weighted + later.weighted, weight, samples, after_pause)

    @property
    def point(self) -> tuple[float, float]:
        """(x, y)."""
        return self.x, self.weighted / self.weight if self.weight else 0.0


EMPTY = Bucket()


@dataclass(frozen=True, eq=False)
class Series:
    """A line that halves its resolution each time it reaches `MAX_BUCKETS`. Every sample counts: points are weighted means.

    Equal is only the same one, so that what is drawn of a line that has ended can be looked up.
    """

    full: tuple[Bucket, ...] = ()
    open: Bucket = EMPTY
    stride: int = 1

    def plus(self, x: float, y: float, weight: float = 1.0, *, after_pause: bool = False) -> Series:
        """The line with one more sample; `weight` is what the mean of merged samples weighs it with (such as its duration)."""
        bucket = self.open.plus(x, y, weight, after_pause)
        if bucket.samples < self.stride:
            return changed(self, open=bucket)
        full = (*self.full, bucket)
        if len(full) < MAX_BUCKETS:
            return Series(full, EMPTY, self.stride)
        halved = tuple(full[i].merged(full[i + 1]) for i in range(0, len(full), 2))
        return Series(halved, EMPTY, self.stride * 2)

    @property
    def points(self) -> tuple[tuple[float, float | None], ...]:
        """At most `MAX_POINTS` (x, y), the newest sample included; y None breaks the line at a pause.

        No break leaves a point alone, since a line of one point is invisible: where pieces are that short, the line goes on.
        """
        buckets = [bucket for bucket in (*self.full, self.open) if bucket.samples]
        points: list[tuple[float, float | None]] = []
        length = 0
        for bucket, following in zip(buckets, [*buckets[1:], None], strict=False):
            if bucket.after_pause and length > 1 and following is not None and not following.after_pause:
                points.append((bucket.x, None))
                length = 0
            points.append(bucket.point)
            length += 1
        return tuple(points)
