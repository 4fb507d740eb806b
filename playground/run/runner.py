"""The parent's side of a run: validate, start or reuse a worker, pass its events on, and turn whatever becomes of it into one ending.

A Runner owns at most one worker process. `run` yields events as they come, gauges sampled in this process among them, and returns to the
caller at least every 250 ms: it yields None when there was nothing. Its last event, always, is the run's only Done, Cancelled or Failed.
Example::

    runner = Runner()
    for event in runner.run(spec, cancel=threading.Event()):
        if event is not None: print(event)
    runner.close()
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from playground.core.engine import Engine
from playground.core.events import ENDINGS, Cancelled, Event, Failed, Gauge, Loaded, Phase, Profile, from_json
from playground.core.plan import load_key, plan_for
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.engines import engine_class
from playground.measure.gauges import Gauges
from playground.measure.machine import probe
from playground.models.made import when_made
from playground.run.child import COMMAND, Child
from playground.run.failures import from_death, from_exception, oom_kills
from playground.techniques import techniques

HEARTBEAT_S = 0.25
GAUGES_S = 0.25
GRACE_S = 2.0
HANG_S = 300.0
LOAD_HANG_S = 3600.0
BUSY_TIMES = 12  # a worker that computes may be silent for so many times HANG_S
BUSY_SHARE = 0.1  # of one core, from which on a worker counts as computing; its beats alone stay far below
LITTLE_MEMORY = 0.03  # a share of all memory: when less was free just before a SIGKILL, the killer was the system


class Runner:
    """Runs variants one after the other in a worker process; used from one thread at a time. `command`: what starts a worker."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = tuple(command)
        self._child: Child | None = None
        self._key = ""

    @property
    def pid(self) -> int | None:
        """The worker's process id, or None when there is no worker."""
        return self._child.pid if self._child else None

    def run(
        self,
        spec: RunSpec,
        *,
        reference: Path | None = None,
        save_reference: Path | None = None,
        ceilings: Mapping[str, Mapping[str, Any]] | None = None,
        fresh: bool = False,
        cancel: threading.Event,
    ) -> Generator[Event | None, None, None]:
        """Events of one run. A spec that cannot run fails without a worker being started; `cancel` may be set from any thread.

        reference, save_reference, ceilings: see `run.execute.execute`; fresh: in a new worker, whatever the present one has loaded.
        Closing the iterator before its end ends the worker.
        """
        if cancel.is_set():
            yield Cancelled(time.perf_counter_ns())
            return
        try:
            engine = engine_class(spec.engine)
            spec = plan_for(spec, techniques(), engine, probe()).spec
            if fresh:
                self.close()
            key = load_key(spec, techniques())
            child = self._child_for(key + when_made(key))
        except (Problem, OSError) as error:
            yield from_exception(error)
            return
        paths = {"reference": reference, "save_reference": save_reference}
        settings = {name: str(path) if path else None for name, path in paths.items()}
        child.send({"cmd": "run", "spec": spec.to_dict(), **settings, "ceilings": dict(ceilings or {})})
        gauges = Gauges(child.pid) if engine.replay is Engine.replay else None
        watch = Watch(child, cancel, gauges)
        try:
            yield from watch.events()
        finally:
            if gauges:
                gauges.close()
            if not watch.reusable:
                self.close()

    def close(self) -> None:
        """End the worker, if there is one; its memory returns to the system."""
        child, self._child = self._child, None
        if child:
            child.end()

    def _child_for(self, key: str) -> Child:
        if self._child and (self._key != key or self._child.exit_status() is not None):
            self.close()
        if self._child is None:
            self._child = Child(self._command)
        self._key = key
        return self._child


@dataclass
class Watch:
    """One run of one worker, seen from outside. `gauges` is None for a recording, whose own gauges are the ones to see."""

    child: Child
    cancel: threading.Event
    gauges: Gauges | None
    reusable: bool = False
    on_gpu: bool = False
    traced: bool = False  # a GPU's kernels were: every later launch of that process takes longer (a third, seen on an H200)
    phase: str = "load"
    loaded: bool = False
    beats: int = 0
    garbage: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    killed_before: int = field(default_factory=oom_kills)
    free_share: float = 1.0
    stop_at: float | None = None
    heard: float = field(default_factory=time.monotonic)
    busy: float = 0.0
    cpu: tuple[float, float] | None = None
    next_gauge: float = 0.0

    def events(self) -> Iterator[Event | None]:
        """Everything up to the ending."""
        while True:
            if self.cancel.is_set() and self.stop_at is None:
                self.child.send({"cmd": "cancel"})
                self.stop_at = time.monotonic() + GRACE_S
            yield from self._sample()
            line = self.child.read(self._patience())
            event = self._parsed(line) if line is not None else self._silence()
            yield event
            if isinstance(event, ENDINGS):
                return

    def _patience(self) -> float:
        """Seconds until something else than a line wants attention."""
        now = time.monotonic()
        wait = HEARTBEAT_S if self.gauges is None else min(HEARTBEAT_S, self.next_gauge - now)
        return wait if self.stop_at is None else min(wait, self.stop_at - now)

    def _parsed(self, line: str) -> Event | None:
        """The event of a line; None for a beat and for garbage, which is kept for the detail of a failure."""
        if line.startswith('{"beat":'):
            self.beats += 1
            return None
        try:
            event = from_json(line)
        except ValueError:
            self.garbage.append(line.rstrip())
            return None
        self.heard = time.monotonic()
        self.beats, self.cpu = 0, None
        if isinstance(event, Phase):
            self.phase = event.name
        self.loaded = self.loaded or isinstance(event, Loaded)
        if isinstance(event, Loaded):
            self.on_gpu = event.model.get("device") == "cuda"
        tracing = isinstance(event, Profile) and event.device == "cuda"
        self.traced = self.traced or tracing or (self.on_gpu and self.phase == "profile")
        if isinstance(event, ENDINGS):
            broken = isinstance(event, Failed) and event.kind in ("oom", "crash", "hang")
            self.reusable = self.loaded and not broken and not self.traced
        return event

    def _silence(self) -> Event | None:
        """The ending when the worker is dead, was too slow to stop or hangs; else None."""
        now = time.monotonic()
        status = self.child.exit_status()
        if self.cancel.is_set() and (status is not None or (self.stop_at is not None and now >= self.stop_at)):
            return Cancelled(time.perf_counter_ns())
        if status is not None:
            oom = oom_kills() > self.killed_before or self.free_share < LITTLE_MEMORY
            return from_death(status, self._detail(), oom=oom)
        limit = _hang_after_s(self.phase)
        if self.phase != "load":
            self._feel(now, limit / 10)
        computes = self.busy > self.heard and now - self.busy < limit
        if now - self.heard < (limit * BUSY_TIMES if computes else limit):
            return None
        self.child.dump_stacks()
        answers = "though its process still answers" if self.beats else "and its process does not answer"
        signs = "though it computes" if computes else answers
        silent = f"{now - self.heard:.0f} seconds in the stage {self.phase!r}"
        message = f"The worker hangs: nothing came from it for {silent}, {signs}. It was ended."
        return Failed(time.perf_counter_ns(), "hang", message, self._detail())

    def _feel(self, now: float, every_s: float) -> None:
        """Note whether the silent worker computed since the last look. Looks are rare, so as not to disturb a measurement."""
        since, spent_s = self.cpu or (self.heard, 0.0)
        if now - since < every_s:
            return
        total_s = _cpu_s(self.child.pid)
        if self.cpu and total_s - spent_s >= BUSY_SHARE * (now - since):
            self.busy = now
        self.cpu = (now, total_s)

    def _detail(self) -> str:
        garbage = "\n".join(["", "Lines on the event pipe that are no events:", *self.garbage]) if self.garbage else ""
        return self.child.tail() + garbage

    def _sample(self) -> Iterator[Gauge]:
        """A gauge when one is due."""
        if self.gauges is None or time.monotonic() < self.next_gauge:
            return
        self.next_gauge = time.monotonic() + GAUGES_S
        memory = psutil.virtual_memory()
        self.free_share = memory.available / memory.total
        yield self.gauges.sample()


def _cpu_s(pid: int) -> float:
    """CPU seconds that a worker and what it started (a compiler) have spent; what has ended counts for the one who waited for it."""
    total_s = 0.0
    with contextlib.suppress(psutil.Error):  # a process that ends meanwhile
        worker = psutil.Process(pid)
        for process in (worker, *worker.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total_s += sum(process.cpu_times()[:4])
    return total_s


def _hang_after_s(phase: str) -> float:
    """Seconds of silence that mean a hang; loading may fetch gigabytes. $PLAYGROUND_HANG_S overrides both limits."""
    given = os.environ.get("PLAYGROUND_HANG_S", "")
    try:
        return float(given)
    except ValueError:
        return LOAD_HANG_S if phase == "load" else HANG_S
