"""Keeping an experiment while it runs: what a store must offer, and the writer that never lets its failures stop the run.

Example::

    keeper = Keeper(store, None)
    keeper.create("Precision ladder", specs)
    warnings = keeper.begin(0)
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from playground.core.events import Ceilings, Event, Warned
from playground.core.problem import Problem
from playground.core.spec import RunSpec

STORE_S = 1.0


class Keeps(Protocol):
    """What experiments and their queue need of a results.store.Store; every method may raise Problem."""

    def create(self, title: str, specs: Sequence[RunSpec]) -> str:
        """A new experiment's id."""

    def begin(self, experiment_id: str, variant: int) -> None:
        """The variant runs now."""

    def append(self, experiment_id: str, variant: int, events: Sequence[Event]) -> None:
        """Further events of the variant."""

    def finish(self, experiment_id: str, variant: int, result: dict[str, Any]) -> None:
        """The variant ended with this result document."""

    def ceilings(self) -> dict[str, dict[str, Any]]:
        """What devices can do at best, as measured before, by key."""

    def keep_ceilings(self, found: Ceilings) -> None:
        """Remember what was measured."""

    def mark_interrupted(self, over: Collection[str] = ()) -> int:
        """What still looks alive in these experiments is not."""


class Keeper:
    """Writes to the store, at most once in STORE_S while events come. When that fails, the next try is at the variant's end, so that a slow
    disk does not hold up the run. A step returns the warning of the experiment's first failure, once."""

    def __init__(self, store: Keeps | None, experiment_id: str | None) -> None:
        self.experiment_id = experiment_id
        self._store = store
        self._written: dict[int, int] = {}  # events of each variant that are in the store
        self._last = 0.0
        self._failing = False
        self._late: dict[int, dict[str, Any]] = {}  # results that are not in the store yet
        self._warned: list[Warned] | None = None

    def create(self, title: str, specs: Sequence[RunSpec]) -> None:
        """Make the experiment in the store, if the caller has not."""
        with self._trying() as store:
            if store and self.experiment_id is None:
                self.experiment_id = store.create(title, specs)

    def begin(self, variant: int) -> list[Warned]:
        """Mark the variant as running."""
        self._written[variant], self._last, self._failing = 0, time.monotonic(), False
        with self._trying() as store:
            if store and self.experiment_id:
                store.begin(self.experiment_id, variant)
        return self._warnings()

    def append(self, variant: int, seen: Sequence[Event], *, now: bool = False) -> list[Warned]:
        """Write what is new, if it is time."""
        if now or (not self._failing and time.monotonic() - self._last >= STORE_S):
            with self._trying() as store:
                if store and self.experiment_id and len(seen) > self._written[variant]:
                    store.append(self.experiment_id, variant, seen[self._written[variant] :])
                    self._written[variant] = len(seen)
            self._last = time.monotonic()
        return self._warnings()

    def finish(self, variant: int, seen: Sequence[Event], document: dict[str, Any]) -> list[Warned]:
        """Write the rest and the result, and the results that could not be written before."""
        warned = self.append(variant, seen, now=True)
        self._late[variant] = document
        with self._trying() as store:
            if store and self.experiment_id:
                for number in sorted(self._late):
                    store.finish(self.experiment_id, number, self._late[number])
                    del self._late[number]
        return warned + self._warnings()

    def ceilings(self) -> dict[str, dict[str, Any]]:
        """What devices can do at best, as the store knows it."""
        with self._trying() as store:
            if store:
                return store.ceilings()
        return {}

    def keep_ceilings(self, found: Ceilings) -> None:
        """Remember what was measured, for the next runs."""
        with self._trying() as store:
            if store:
                store.keep_ceilings(found)

    @contextmanager
    def _trying(self) -> Iterator[Keeps | None]:
        try:
            yield self._store
        except Problem as problem:
            self._failing = True
            if self._warned is None:
                message = f"{problem.message.rstrip('.')}. The run goes on, but it may not be kept, or not all of it."
                self._warned = [Warned(time.perf_counter_ns(), message)]

    def _warnings(self) -> list[Warned]:
        given = list(self._warned or ())
        if self._warned:
            self._warned.clear()
        return given
