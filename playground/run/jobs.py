"""Work that waits its turn: one background thread with one Runner serves experiments, trainings and all else in the order in which they
came, so that no two of them share the device.

A job outlives the page that asked for it: whoever knows its id can follow its events from any point. Example::

    jobs = Jobs(Store(home() / "results.sqlite"))
    job = jobs.submit("Precision ladder", specs)
    events, cursor = job.events_since(0)
"""

from __future__ import annotations

import threading
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal, Protocol

from playground.core.events import Event, Failed, Loaded, Phase, Warned
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.run.experiment import Ending, Runs, run_experiment
from playground.run.keeper import Keeps
from playground.run.runner import Runner

KEPT_JOBS = 20
IDLE_S = 600.0

Status = Literal["waiting", "running"] | Ending


class Steps(Protocol):
    """What a job does once its turn has come: (part, event) pairs while it goes on; then how it ended, and result documents if it has any.
    It stops at the next step once its Stop is set."""

    results: list[dict[str, Any]]

    @property
    def status(self) -> Ending:
        """How it ended."""

    def __iter__(self) -> Iterator[tuple[int, Event]]:
        """The pairs."""


Start = Callable[[Runs, threading.Event], Steps]  # with the runner that it may use, and its Stop


class Job:
    """One submitted piece of work. Everything may be called from any thread.

    id: the store's id of an experiment (one made here where nothing is kept); specs: an experiment's variants, baseline first; results: the
    result documents of the variants that ended; done: set when the job is over; status: failed when one of its variants failed; fault: what
    ended the job itself, "" where nothing did; followed: whether its events are kept for `events_since`.
    """

    def __init__(self, job_id: str, title: str, start: Start, jobs: Jobs, specs: Sequence[RunSpec] = ()) -> None:
        self.id, self.title, self.start, self.specs = job_id, title, start, tuple(specs)
        self.status: Status = "waiting"
        self.results: list[dict[str, Any]] = []
        self.done = threading.Event()
        self.stop = threading.Event()
        self.kept = True
        self.followed, self.fault = True, ""
        self._events: list[tuple[int, Event]] = []
        self._jobs = jobs
        self._phase, self.on_cpu = "", False

    @property
    def quiet(self) -> bool:
        """Whether a timed pass runs on this machine's CPU. Who shares the cores with it should hold still: watching changes the result."""
        return self.status == "running" and self.on_cpu and self._phase == "timed"

    @property
    def ahead(self) -> int:
        """How many jobs come before this one; 0 when it runs or is over."""
        return self._jobs.ahead_of(self)

    def events_since(self, cursor: int) -> tuple[list[tuple[int, Event]], int]:
        """The (variant, event) pairs from number `cursor` on, and the cursor for the next call."""
        new = self._events[cursor:]
        return new, cursor + len(new)

    def add(self, variant: int, event: Event) -> None:
        """Append an event (the job's own thread does)."""
        if isinstance(event, Phase):
            self._phase = event.name
        elif isinstance(event, Loaded):
            self.on_cpu = event.model.get("device") == "cpu"
        if self.followed:
            self._events.append((variant, event))

    def cancel(self) -> None:
        """Stop it: at once where it waits, else as soon as the worker can."""
        self.stop.set()
        self._jobs.drop(self)


class Jobs:
    """A queue of jobs and the thread that works it off; the thread starts with the first job. `store` None keeps nothing."""

    def __init__(self, store: Keeps | None, runner_factory: Callable[[], Any] = Runner, *, idle_s: float = IDLE_S) -> None:
        self._store, self._factory, self._idle_s = store, runner_factory, idle_s
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._over: set[str] = set()
        self._known: dict[str, Job] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, title: str, specs: Sequence[RunSpec]) -> Job:
        """Queue an experiment; raises Problem("user") without variants or after `close`."""
        if not specs:
            raise Problem("user", "An experiment needs at least one variant.")
        return self.queue(self._created(title, specs))

    def submit_other(self, title: str, start: Start) -> Job:
        """Queue work that is no single experiment, such as a training; `start` is called when its turn has come. Raises Problem("user")
        after `close`."""
        return self.queue(self.prepare_other(title, start))

    def prepare_other(self, title: str, start: Start) -> Job:
        """The job of `submit_other`, to be given to `queue` once what `start` needs to know of it is there."""
        job = Job(uuid.uuid4().hex, title, start, self)
        job.kept = False
        return job

    def queue(self, job: Job) -> Job:
        """Put a prepared job at the end of the queue; raises Problem("user") after `close`."""
        with self._changed:
            if self._closed:
                raise Problem("user", "The playground is shutting down.")
            self._known[job.id] = job
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return job

    def get(self, job_id: str) -> Job | None:
        """The job of that id: any that waits or runs, and the last ones that ended."""
        with self._changed:
            return self._known.get(job_id)

    def forget(self, job_ids: Collection[str]) -> None:
        """Know no longer of these jobs, as far as they are over."""
        with self._changed:
            self._known = {name: job for name, job in self._known.items() if name not in job_ids or not job.done.is_set()}

    @property
    def quiet(self) -> bool:
        """Whether the job that runs is `Job.quiet`."""
        running = self._running
        return running is not None and running.quiet

    @property
    def busy(self) -> bool:
        """Whether a job runs on this machine's CPU."""
        running = self._running
        return running is not None and running.on_cpu

    def ahead_of(self, job: Job) -> int:
        """Jobs before this one."""
        with self._changed:
            return self._waiting.index(job) + (self._running is not None) if job in self._waiting else 0

    def drop(self, job: Job) -> None:
        """Take a cancelled or paused job out of the queue and end it; nothing to do where it runs or is over."""
        with self._changed:
            if job not in self._waiting:
                return
            self._waiting.remove(job)
        self._do(job, None)

    def close(self) -> None:
        """Cancel everything and end the worker."""
        with self._changed:
            self._closed = True
            jobs = [*self._waiting, *filter(None, [self._running])]
            self._changed.notify_all()
        for job in jobs:
            job.cancel()
        if self._thread:
            self._thread.join()

    def _created(self, title: str, specs: Sequence[RunSpec]) -> Job:
        store, warning = self._store, ""
        try:
            job_id = store.create(title, specs) if store else ""
        except Problem as problem:
            store, job_id, warning = None, "", f"{problem.message.rstrip('.')}. The run goes on, but it is not kept."

        def start(runner: Runs, stop: threading.Event) -> Steps:
            return run_experiment(specs, runner, stop, store=store, title=title, experiment_id=job_id or None)

        job = Job(job_id or uuid.uuid4().hex, title, start, self, specs)
        job.kept = store is not None
        if warning:
            job.add(0, Warned(time.perf_counter_ns(), warning))
        return job

    def _work(self) -> None:
        runner: Any = None
        while True:
            with self._changed:
                self._running = None
                if not self._waiting and not self._closed:
                    self._changed.wait(self._idle_s)
                self._running = self._waiting.popleft() if self._waiting else None
                job, closed = self._running, self._closed
            if job is None:
                if runner:
                    runner.close()
                if closed:
                    return
            else:
                runner = runner or self._factory()
                self._do(job, runner)

    def _do(self, job: Job, runner: Runs | None) -> None:
        """Run a job to its end; without a runner, for a cancelled one. A fault of ours ends this job and no other."""
        job.status = "running"
        try:
            steps = job.start(runner or Runner(), job.stop)
            job.results = steps.results
            for part, event in steps:
                job.add(part, event)
            job.status = steps.status
        except Exception as error:
            ours = f"The experiment ended with an error of the playground itself: {type(error).__name__}: {error}"
            job.fault = error.message if isinstance(error, Problem) else ours
            failed = Failed(time.perf_counter_ns(), "crash", job.fault, traceback.format_exc())
            job.add(max(0, min(len(job.results), len(job.specs) - 1)), failed)
            job.status = "failed"
        self._settle(job)
        job.done.set()
        self._forget()

    def _settle(self, job: Job) -> None:
        """Nothing of a job that is over may look alive in the store; where that cannot be written, the next job's end tries again."""
        if self._store is None or not job.kept:
            return
        with self._changed:
            self._over.add(job.id)
            over = frozenset(self._over)
        try:
            self._store.mark_interrupted(over)
        except Problem:  # the job has its warning already
            return
        with self._changed:
            self._over -= over

    def _forget(self) -> None:
        with self._changed:
            over = [job.id for job in self._known.values() if job.done.is_set()]
            for job_id in over[: max(0, len(over) - KEPT_JOBS)]:
                del self._known[job_id]
