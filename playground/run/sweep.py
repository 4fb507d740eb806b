"""A stored sweep, cell by cell: each is an experiment of its own, stored at once, so that a sweep goes on where it was left.

It runs while it is iterated and has the shape that `run.jobs` asks for. Finished cells are never run again; a cell that runs out of memory
is a result, and the larger ones of its line are skipped with that reason. A paused sweep waits in the store, not in the queue: its running
cell ends, and another Sweep of the same id goes on. Example::

    sweep = create(store, plan)
    for cell, event in Sweep(store, sweep, runner, stop=threading.Event()): print(cell, event)
    Sweeps(store).load(sweep).to_dict()
"""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Literal

from playground.core.events import Event, Failed, Progress, Warned
from playground.core.machine import Machine
from playground.core.places import home
from playground.core.plan import engine_defaults, plan_for
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.sweep import SweepSpec, cells, larger
from playground.engines import engine_class, engines
from playground.measure.machine import probe
from playground.results.store import Store
from playground.results.sweeps import StoredCell, StoredSweep, Sweeps, ended, reference_of
from playground.run.experiment import Reference, Runs, run_experiment
from playground.techniques import techniques


def create(store: Store, plan: SweepSpec) -> str:
    """Store a checked plan with its cells; returns the sweep's id. Raises Problem("user") where it cannot be stored."""
    return Sweeps(store).create(plan, cells(plan, techniques(), engine_defaults(engines(), probe())))


def require_runnable(specs: Sequence[RunSpec], machine: Machine) -> None:
    """Raises the first reason where none of these can run here; one that cannot among others that can is a result."""
    reasons: list[Problem] = []
    for spec in specs:
        try:
            plan_for(spec, techniques(), engine_class(spec.engine), machine)
        except Problem as problem:
            reasons.append(problem)
    if reasons and len(reasons) == len(specs):
        raise reasons[0]


def forget(store: Store, sweep: str) -> None:
    """Delete a sweep with all that its cells became; raises Problem("user") for an unknown id."""
    Sweeps(store).delete(sweep)
    shutil.rmtree(_folder(sweep), ignore_errors=True)


class Sweep(Iterator[tuple[int, Event]]):
    """Runs the missing cells while it is iterated: (cell's index, event) pairs.

    stop: ends the running cell, which will be run again; pause: set, it ends after the running cell. Both may be set from any thread.
    results: the result documents of the cells that ended here; status: done once no cell is missing, failed if one of them failed for
    another reason than memory, cancelled while some are missing; stored: the sweep as it is now. Closing it early ends the worker.
    """

    def __init__(self, store: Store, sweep: str, runner: Runs, stop: threading.Event, pause: threading.Event | None = None) -> None:
        self._store, self._sweeps, self._runner = store, Sweeps(store), runner
        self._stop, self._pause = stop, pause or threading.Event()
        self.stored: StoredSweep = self._sweeps.load(sweep)
        self.results: list[dict[str, Any]] = []
        self.status: Literal["done", "failed", "cancelled"] = "cancelled"
        self._references: dict[int, Sequence[Event]] = {}  # events of the cells that others are compared with
        self._trouble: Problem | None = None
        self._steps = self._run()

    def __next__(self) -> tuple[int, Event]:
        return next(self._steps)

    def close(self) -> None:
        """Stop in the middle of a cell, which will be run again."""
        self._steps.close()

    def _run(self) -> Generator[tuple[int, Event], None, None]:
        try:
            self._sweeps.claim(self.stored.id)
        except Problem as problem:
            self.status = "failed"
            yield 0, Failed(time.perf_counter_ns(), problem.kind, problem.message, problem.detail)
            return
        try:
            for index, held in enumerate(self.stored.cells):
                if held.finished:
                    continue
                if self._stop.is_set() or self._pause.is_set():
                    break
                smaller = self._too_large(held)
                yield from self._skip(index, smaller) if smaller else self._cell(index)
                yield index, self._progress()
        finally:
            self._end()

    def _cell(self, index: int) -> Iterator[tuple[int, Event]]:
        held, started = self.stored.cells[index], time.monotonic()
        self._became(index, dataclasses.replace(held, status="running", experiment=held.experiment or self._created(held)))
        experiment = run_experiment(
            [held.cell.spec],
            self._runner,
            self._stop,
            store=self._store if self.stored.cells[index].experiment else None,
            title=self._title(held),
            experiment_id=self.stored.cells[index].experiment,
            against=self._reference(held),
        )
        with closing(experiment):
            for _, event in experiment:
                yield index, event
        document, seconds = experiment.results[0], time.monotonic() - started
        self.results.append(document)
        if self._is_reference(held):
            self._references[index] = experiment.events[0]
        after = dataclasses.replace(self.stored.cells[index], **ended(document))
        self._became(index, after)
        if after.finished:
            self._became(index, dataclasses.replace(after, seconds=seconds))
            self._keep(lambda: self._sweeps.finish(self.stored.id, index, seconds))
        yield from self._warned(index)

    def _skip(self, index: int, smaller: StoredCell) -> Iterator[tuple[int, Event]]:
        held = self.stored.cells[index]
        reason = f"{smaller.cell.label} ran out of memory, and this takes more."
        self._became(index, dataclasses.replace(held, status="skipped", reason=reason))
        self._keep(lambda: self._sweeps.skip(self.stored.id, index, reason))
        yield index, Warned(time.perf_counter_ns(), f"{held.cell.label}: {reason}")
        yield from self._warned(index)

    def _too_large(self, held: StoredCell) -> StoredCell | None:
        """The cell without enough memory that this one is larger than, if there is one."""
        axes = self.stored.plan.axes
        return next((item for item in self.stored.cells if item.status == "oom" and larger(held.cell, item.cell, axes)), None)

    def _reference(self, held: StoredCell) -> Reference | None:
        """What the cell's quality is compared with; None where no two cells can be compared."""
        first = reference_of(held.cell, [item.cell for item in self.stored.cells])
        if first is None:
            return None
        measured = None if first == held.cell else (first.spec, self._events(self.stored.cells[first.index]))
        return Reference(_folder(self.stored.id) / str(first.index), measured)

    def _is_reference(self, held: StoredCell) -> bool:
        reference = self._reference(held)
        return reference is not None and reference.measured is None

    def _events(self, held: StoredCell) -> Sequence[Event]:
        """Of a cell that ended, here or in an earlier process."""
        index = held.cell.index
        if index not in self._references:
            self._references[index] = ()
            with suppress(Problem):  # then there is nothing to compare with, and the numbers say so
                self._references[index] = self._store.load(held.experiment or "").runs[0].events
        return self._references[index]

    def _created(self, held: StoredCell) -> str | None:
        """The cell as a stored experiment; None where it cannot be stored."""
        made: list[str] = []

        def create() -> None:
            made.append(self._store.create(self._title(held), [held.cell.spec], source=f"sweep {self.stored.id}"))
            self._sweeps.begin(self.stored.id, held.cell.index, made[0])

        self._keep(create)
        return made[0] if made else None

    def _title(self, held: StoredCell) -> str:
        return f"{self.stored.title or 'Sweep'}: {held.cell.label}"

    def _became(self, index: int, cell: StoredCell) -> None:
        before = self.stored.cells
        self.stored = dataclasses.replace(self.stored, status="running", cells=(*before[:index], cell, *before[index + 1 :]))

    def _progress(self) -> Progress:
        total = len(self.stored.cells)
        return Progress(time.perf_counter_ns(), "cells", total - len(self.stored.missing), total, "cells")

    def _keep(self, write: Callable[[], None]) -> None:
        """A store that fails costs the keeping, never the run."""
        try:
            write()
        except Problem as problem:
            self._trouble = problem

    def _warned(self, index: int) -> Iterator[tuple[int, Event]]:
        if self._trouble:
            message = f"{self._trouble.message.rstrip('.')}. The sweep goes on, but this cell will be run again if it is resumed."
            self._trouble = None
            yield index, Warned(time.perf_counter_ns(), message)

    def _end(self) -> None:
        """Nothing of it may look alive in the store any more."""
        over = not self.stored.missing
        if over:
            shutil.rmtree(_folder(self.stored.id), ignore_errors=True)
            self.status = "failed" if any(item.status == "failed" for item in self.stored.cells) else "done"
        ending = "done" if over else "paused" if self._pause.is_set() and not self._stop.is_set() else "stopped"
        running = {item.experiment for item in self.stored.cells if item.status == "running" and item.experiment}
        for index, item in enumerate(self.stored.cells):
            if item.status == "running":
                self._became(index, dataclasses.replace(item, status="interrupted"))
        self.stored = dataclasses.replace(self.stored, status=ending)
        if running:
            self._keep(lambda: self._mark(running))
        self._keep(lambda: self._sweeps.release(self.stored.id, ending))

    def _mark(self, running: set[str]) -> None:
        self._store.mark_interrupted(running)


def _folder(sweep: str) -> Path:
    """Where the figures lie that the cells of a sweep are compared with, until it is over."""
    return home() / "sweeps" / sweep
