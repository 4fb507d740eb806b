"""Both sides of making something, such as training an adapter, in a process of its own: started, watched and stopped like a run.

`make` is the parent's side and yields events as `Runner.run` does, the last of which is the only Done, Cancelled or Failed. The child is
`python -m playground.run.making LOGFILE`: a worker whose commands name a module with a function `make(job, emit, check)`. Example::

    for event in make("playground.run.train_adapter", job.to_dict(), cancel=threading.Event()):
        if event is not None: print(event)
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from playground.core.events import Cancelled, Done, Event, Failed
from playground.run.child import Child
from playground.run.experiment import Ending, Runs
from playground.run.failures import from_exception
from playground.run.passes import Stopped
from playground.run.runner import Watch
from playground.run.worker import main

COMMAND = (sys.executable, "-m", "playground.run.making")


def make(module: str, job: Mapping[str, Any], *, cancel: threading.Event) -> Generator[Event | None, None, None]:
    """Events of one job, None at least every 250 ms; `cancel` may be set from any thread. `job`: plain JSON values for `module`'s make.

    Closing the iterator before its end ends the process.
    """
    if cancel.is_set():
        yield Cancelled(time.perf_counter_ns())
        return
    try:
        child = Child(COMMAND)
    except OSError as error:
        yield from_exception(error)
        return
    try:
        child.send({"cmd": "run", "module": module, "job": dict(job)})
        yield from Watch(child, cancel, gauges=None).events()
    finally:
        child.end()


class Making:
    """`make` as a job of `run.jobs`: its events as those of part 0. The runner's worker ends first, for the device is needed whole."""

    def __init__(self, module: str, job: Mapping[str, Any], runner: Runs, stop: threading.Event) -> None:
        self.results: list[dict[str, Any]] = []
        self.status: Ending = "done"
        self._module, self._job, self._runner, self._stop = module, job, runner, stop

    def __iter__(self) -> Iterator[tuple[int, Event]]:
        self._runner.close()
        for event in make(self._module, self._job, cancel=self._stop):
            if isinstance(event, Failed | Cancelled):
                self.status = "failed" if isinstance(event, Failed) else "cancelled"
            if event is not None:
                yield 0, event


class Maker:
    """The child's side: runs the jobs that come as commands."""

    def __init__(self, emit: Callable[[Event], None], cancelled: Callable[[], bool]) -> None:
        self.emit, self.cancelled = emit, cancelled

    def run(self, command: Mapping[str, Any]) -> None:
        """Run one job; every outcome is an event, and its ending the last one."""
        ending: Event
        try:
            importlib.import_module(command["module"]).make(command["job"], self.emit, self.check)
            ending = Done(time.perf_counter_ns())
        except Stopped:
            ending = Cancelled(time.perf_counter_ns())
        except Exception as error:
            ending = from_exception(error)
        self.emit(ending)

    def check(self) -> None:
        """Raises Stopped once a person has stopped the job."""
        if self.cancelled():
            raise Stopped


if __name__ == "__main__":
    main(Path(sys.argv[1]), Maker)
