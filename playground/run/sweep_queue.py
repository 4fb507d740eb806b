"""Sweeps in the queue of jobs: begin, pause, stop, go on, look. What goes on is known here, everything else is in the store.

After the program was started anew nothing goes on by itself: what was interrupted says so, and `go_on` runs what is missing. Example::

    queue = SweepQueue(jobs, store)
    sweep = queue.begin(plan)
    queue.look(sweep).cells; queue.status(queue.look(sweep)); queue.pause(sweep)
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from playground.core.problem import Problem
from playground.core.sweep import SweepSpec
from playground.results.store import Store
from playground.results.sweeps import StoredSweep, Sweeps
from playground.run.experiment import Runs
from playground.run.jobs import Job, Jobs
from playground.run.recorded_sweep import PREFIX, load_recorded
from playground.run.sweep import Sweep, create, forget

COMPLETE = "Every run of this sweep has a result already."
GOES_ON = "This sweep still goes on: stop it first."


@dataclass
class _Going:
    """A sweep whose job is not over. `live`: the sweep itself once its turn has come."""

    job: Job
    pause: threading.Event
    live: Sweep | None = None


class SweepQueue:
    """The sweeps of a store that the queue works off; may be used from any thread."""

    def __init__(self, jobs: Jobs, store: Store) -> None:
        self._jobs, self._store, self._going = jobs, store, dict[str, _Going]()

    def begin(self, plan: SweepSpec) -> str:
        """Store a checked plan and queue it; returns the sweep's id. Raises Problem("user") where it cannot be kept."""
        sweep = create(self._store, plan)
        self.go_on(sweep)
        return sweep

    def go_on(self, sweep: str) -> Job:
        """Queue what is missing of a stored sweep, unless it goes on already. Raises Problem("user") for an unknown or complete one."""
        if found := self._of(sweep):
            return found.job
        stored, pause = Sweeps(self._store).load(sweep), threading.Event()
        if not stored.missing:
            raise Problem("user", COMPLETE)

        def start(runner: Runs, stop: threading.Event) -> Sweep:
            live = Sweep(self._store, sweep, runner, stop, pause)
            self._going[sweep].live = live
            return live

        going = self._going[sweep] = _Going(self._jobs.prepare_other(f"Sweep {stored.title}", start), pause)
        going.job.followed = False  # who looks at a sweep looks at its cells, and the events of hundreds of runs would fill the memory
        self._jobs.queue(going.job)
        return going.job

    def pause(self, sweep: str) -> bool:
        """Let the running cell end and go no further; whether there was anything to pause."""
        found = self._of(sweep)
        if found is None:
            return False
        found.pause.set()
        self._jobs.drop(found.job)  # where it waits for its turn
        return True

    def stop(self, sweep: str) -> bool:
        """End the running cell, which is run again when the sweep goes on; whether there was anything to stop."""
        found = self._of(sweep)
        if found:
            found.job.cancel()
        return found is not None

    def delete(self, sweep: str) -> None:
        """Forget a sweep with its runs; raises Problem("user") while it goes on, and for an unknown one."""
        if self._of(sweep):
            raise Problem("user", GOES_ON)
        forget(self._store, sweep)

    def look(self, sweep: str) -> StoredSweep:
        """The sweep as it is now, or a recorded one; raises Problem for an unknown one."""
        if sweep.startswith(PREFIX):
            return load_recorded(sweep)
        found = self._of(sweep)
        return found.live.stored if found and found.live else Sweeps(self._store).load(sweep)

    def status(self, stored: StoredSweep) -> str:
        """waiting, running, pausing, paused, stopped, interrupted, done, recorded; waiting also where an earlier try was another."""
        found = self._of(stored.id)
        if found is None:
            return stored.status
        return "waiting" if found.job.status == "waiting" else "pausing" if found.pause.is_set() else "running"

    def fault(self, sweep: str) -> str:
        """What ended its last try, where that was no run of its own; else ""."""
        found = self._going.get(sweep)
        return found.job.fault if found else ""

    def goes_on(self, sweep: str) -> bool:
        """Whether it waits or runs."""
        return self._of(sweep) is not None

    def ahead(self, sweep: str) -> int:
        """Jobs that come before it."""
        found = self._of(sweep)
        return found.job.ahead if found else 0

    def _of(self, sweep: str) -> _Going | None:
        found = self._going.get(sweep)
        return None if found is None or found.job.done.is_set() else found
