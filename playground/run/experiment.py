"""Variants one after the other, against the first one, the baseline: events out, then result documents, kept where there is a store.

A variant that fails does not stop the next ones; Stop cancels the current one and all that follow. A store or a disk that fails costs a
warning and the keeping, never the run. Example::

    experiment = run_experiment(specs, runner, threading.Event(), store=store, title="Precision ladder")
    for variant, event in experiment: print(variant, event)
    print(experiment.results[0]["metrics"]["itl_s"])
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from playground.core.events import ENDINGS, Event, Warned
from playground.core.places import home
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.results.result import result
from playground.results.store import alive, owner

STORE_S = 1.0
NO_FOLDER = Path("no folder for the baseline") / "logprobs.npy"  # its absence becomes the reason why a comparison is missing


class Runs(Protocol):
    """What an experiment needs of a Runner."""

    def run(
        self, spec: RunSpec, *, reference: Path | None = None, save_reference: Path | None = None, cancel: threading.Event
    ) -> Generator[Event | None, None, None]:
        """See `run.runner.Runner.run`."""


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

    def mark_interrupted(self, over: Collection[str] = ()) -> int:
        """What still looks alive in these experiments is not."""


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
        compared = len(self._specs) > 1 and any(spec.protocol.quality for spec in self._specs)
        with ExitStack() as stack:
            logprobs = NO_FOLDER
            if compared:
                try:
                    logprobs = Path(stack.enter_context(_baseline_folder())) / "logprobs.npy"
                except OSError as error:
                    message = (
                        f"Quality is not compared with the baseline: its figures have no place on the disk ({error.strerror or error})."
                    )
                    yield 0, Warned(time.perf_counter_ns(), message)
            for variant, spec in enumerate(self._specs):
                compares = compared and spec.protocol.quality
                reference = logprobs if compares and variant > 0 else None
                save = logprobs if compares and variant == 0 and logprobs != NO_FOLDER else None
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


def clear_leftovers() -> None:
    """Delete the baselines' figures (hundreds of megabytes) that experiments of killed processes left in the user's folder."""
    with suppress(OSError):  # without the folder there is nothing to delete
        for folder in home().glob("baseline-*-*-*"):
            _, pid, started, _ = folder.name.split("-", 3)
            if pid.isdecimal() and started.isdecimal() and not alive(int(pid), float(started)):
                shutil.rmtree(folder, ignore_errors=True)


def _baseline_folder() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder whose name tells its owner; raises OSError."""
    clear_leftovers()
    pid, started = owner()
    return tempfile.TemporaryDirectory(prefix=f"baseline-{pid}-{started:.0f}-", dir=home(), ignore_cleanup_errors=True)


class _Keeper:
    """Writes to the store, at most once in STORE_S while events come. When that fails, the next try is at the variant's end, so that a slow
    disk does not hold up the run. A step returns the warning of the experiment's first failure, once."""

    def __init__(self, store: Keeps | None, experiment_id: str | None) -> None:
        self.experiment_id = experiment_id
        self._store = store
        self._written = 0
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
        self._written, self._last, self._failing = 0, time.monotonic(), False
        with self._trying() as store:
            if store and self.experiment_id:
                store.begin(self.experiment_id, variant)
        return self._warnings()

    def append(self, variant: int, seen: Sequence[Event], *, now: bool = False) -> list[Warned]:
        """Write what is new, if it is time."""
        if now or (not self._failing and time.monotonic() - self._last >= STORE_S):
            with self._trying() as store:
                if store and self.experiment_id and len(seen) > self._written:
                    store.append(self.experiment_id, variant, seen[self._written :])
                    self._written = len(seen)
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
