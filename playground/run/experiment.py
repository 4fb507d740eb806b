"""Variants one after the other, against the first one, the baseline: events out, then result documents, kept where there is a store.

A variant that fails does not stop the next ones; Stop cancels the current one and all that follow. A store that fails costs one warning
and the keeping, never the run. Example::

    experiment = run_experiment(specs, runner, threading.Event(), store=store, title="Precision ladder")
    for variant, event in experiment: print(variant, event)
    print(experiment.results[0]["metrics"]["itl_s"])
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from playground.core.events import ENDINGS, Event, Warned
from playground.core.places import home
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.results.result import result

STORE_S = 1.0


class Runs(Protocol):
    """What an experiment needs of a Runner."""

    def run(
        self, spec: RunSpec, *, reference: Path | None = None, save_reference: Path | None = None, cancel: threading.Event
    ) -> Generator[Event | None, None, None]:
        """See `run.runner.Runner.run`."""


class Keeps(Protocol):
    """What an experiment needs of a results.store.Store; every method may raise Problem."""

    def create(self, title: str, specs: Sequence[RunSpec]) -> str:
        """A new experiment's id."""

    def begin(self, experiment_id: str, variant: int) -> None:
        """The variant runs now."""

    def append(self, experiment_id: str, variant: int, events: Sequence[Event]) -> None:
        """Further events of the variant."""

    def finish(self, experiment_id: str, variant: int, result: dict[str, Any]) -> None:
        """The variant ended with this result document."""


class Experiment(Iterator[tuple[int, Event]]):
    """Runs while it is iterated: (variant, event) pairs, each variant's last one its ending.

    results: the result documents of the variants that ended so far; events: the raw events of each variant; experiment_id: the store's,
    None where nothing is kept. Closing it early ends the worker.
    """

    def __init__(self, specs: Sequence[RunSpec], runner: Runs, cancel: threading.Event, keeper: _Keeper) -> None:
        self.results: list[dict[str, Any]] = []
        self.events: list[list[Event]] = []
        self._specs, self._runner, self._cancel, self._keeper = tuple(specs), runner, cancel, keeper
        self._steps = self._run()

    @property
    def experiment_id(self) -> str | None:
        """The store's id of this experiment."""
        return self._keeper.experiment_id

    def __next__(self) -> tuple[int, Event]:
        return next(self._steps)

    def close(self) -> None:
        """Stop in the middle; what the variant had so far stays in `events`."""
        self._steps.close()

    def _run(self) -> Generator[tuple[int, Event], None, None]:
        with tempfile.TemporaryDirectory(prefix="baseline-", dir=home()) as folder:
            logprobs = Path(folder) / "logprobs.npy"
            for variant, spec in enumerate(self._specs):
                compares = spec.protocol.quality and len(self._specs) > 1
                reference = logprobs if compares and variant > 0 else None
                save = logprobs if compares and variant == 0 else None
                for event in self._variant(variant, spec, reference, save):
                    yield variant, event

    def _variant(self, variant: int, spec: RunSpec, reference: Path | None, save: Path | None) -> Iterator[Event]:
        seen: list[Event] = []
        self.events.append(seen)
        yield from self._keeper.begin(variant)
        with closing(self._runner.run(spec, reference=reference, save_reference=save, cancel=self._cancel)) as events:
            for event in events:
                if event is not None:
                    seen.append(event)
                if isinstance(event, ENDINGS):
                    self.results.append(result(spec, seen, (self._specs[0], self.events[0]) if variant else None))
                    yield from self._keeper.finish(variant, seen, self.results[-1])
                else:
                    yield from self._keeper.append(variant, seen)
                if event is not None:
                    yield event


def run_experiment(
    specs: Sequence[RunSpec],
    runner: Runs,
    cancel: threading.Event,
    *,
    store: Keeps | None = None,
    title: str = "",
    experiment_id: str | None = None,
    on_created: Callable[[str], None] | None = None,
) -> Experiment:
    """An experiment to iterate; nothing runs before the first step. `cancel` may be set from any thread.

    store: where it is kept, as `experiment_id` if the caller created it there already; on_created: called with its id.
    """
    if not specs:
        raise Problem("user", "An experiment needs at least one variant.")
    keeper = _Keeper(store, experiment_id)
    keeper.create(title, specs)
    if keeper.experiment_id is not None and on_created:
        on_created(keeper.experiment_id)
    return Experiment(specs, runner, cancel, keeper)


class _Keeper:
    """Writes to the store, at most once in STORE_S while events come, until the store fails for the first time. Each step returns the
    warning of that failure, once."""

    def __init__(self, store: Keeps | None, experiment_id: str | None) -> None:
        self.experiment_id = experiment_id
        self._store = store
        self._written = 0
        self._last = 0.0
        self._warned: list[Warned] = []

    def create(self, title: str, specs: Sequence[RunSpec]) -> None:
        """Make the experiment in the store, if the caller has not."""
        with self._trying() as store:
            if store and self.experiment_id is None:
                self.experiment_id = store.create(title, specs)

    def begin(self, variant: int) -> list[Warned]:
        """Mark the variant as running."""
        self._written, self._last = 0, time.monotonic()
        with self._trying() as store:
            if store and self.experiment_id:
                store.begin(self.experiment_id, variant)
        return self._warnings()

    def append(self, variant: int, seen: Sequence[Event], *, now: bool = False) -> list[Warned]:
        """Write what is new, if it is time."""
        if now or time.monotonic() - self._last >= STORE_S:
            with self._trying() as store:
                if store and self.experiment_id and len(seen) > self._written:
                    store.append(self.experiment_id, variant, seen[self._written :])
            self._written, self._last = len(seen), time.monotonic()
        return self._warnings()

    def finish(self, variant: int, seen: Sequence[Event], document: dict[str, Any]) -> list[Warned]:
        """Write the rest and the result."""
        warned = self.append(variant, seen, now=True)
        with self._trying() as store:
            if store and self.experiment_id:
                store.finish(self.experiment_id, variant, document)
        return warned + self._warnings()

    @contextmanager
    def _trying(self) -> Iterator[Keeps | None]:
        try:
            yield self._store
        except Problem as problem:
            self._store = None
            message = f"{problem.message.rstrip('.')}. The run goes on, but it is not kept from here on."
            self._warned.append(Warned(time.perf_counter_ns(), message))

    def _warnings(self) -> list[Warned]:
        given, self._warned = self._warned, []
        return given
