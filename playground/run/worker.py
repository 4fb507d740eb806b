"""The child process that holds one loaded engine and runs variants on it: `python -m playground.run.worker LOGFILE`.

Commands come as JSON lines on stdin ({"cmd": "run", "spec": {...}, "reference": PATH or null, "save_reference": PATH or null,
"ceilings": {KEY: {...}}}, {"cmd":
"cancel"}, {"cmd": "exit"}), events go out as JSON lines on what was stdout, and about every second a line {"beat": n} shows that the
process lives. Whatever else is printed, by anyone, goes to the log file. The end of stdin, so also the death of the parent, ends the
process at once, whatever it is doing.
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from playground.core.engine import Engine
from playground.core.events import ENDINGS, Event, Failed, to_json
from playground.core.plan import load_key, plan_for
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.engines import engine_class
from playground.measure.machine import probe
from playground.run.execute import execute
from playground.run.failures import from_exception
from playground.run.resident import give_back
from playground.techniques import techniques

FLUSH_S = 0.08
BEAT_S = 1.0
ENVIRONMENT = {
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def main(log: Path, bench: Callable[..., Any] | None = None) -> None:
    """Serve runs until stdin ends. `bench`: what takes each command with `run`, in place of a Bench."""
    os.environ.update(ENVIRONMENT)
    commands, events = _own_pipes(log)
    faulthandler.enable()
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, all_threads=True)
    cancel = threading.Event()
    inbox: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(commands, inbox, cancel), daemon=True).start()
    writer = Writer(events)
    threading.Thread(target=writer.work, daemon=True).start()
    serving = (bench or Bench)(writer.emit, cancel.is_set)
    while True:
        serving.run(inbox.get())


class Bench:
    """One engine, kept between runs that share its load-time knobs."""

    def __init__(self, emit: Callable[[Event], None], cancelled: Callable[[], bool]) -> None:
        self.emit, self.cancelled = emit, cancelled
        self.engine: Engine | None = None
        self.key = ""

    def run(self, command: Mapping[str, Any]) -> None:
        """Run one variant; every outcome, and a refusal too, is an event."""
        try:
            spec = RunSpec.from_dict(command["spec"])
            machine = probe()
            plan = plan_for(spec, techniques(), engine_class(spec.engine), machine)
            key = load_key(plan.spec, techniques())
            if self.engine is not None and key != self.key:
                raise Problem("crash", "This worker holds another model or other load-time settings; it takes a new worker.")
        except Exception as error:
            self.emit(from_exception(error))
            return
        loaded = self.engine is not None
        engine = self.engine or engine_class(spec.engine)()
        reference, save = (Path(command[name]) if command.get(name) else None for name in ("reference", "save_reference"))
        settings: dict[str, Any] = {"reference": reference, "save_reference": save, "ceilings": command.get("ceilings")}
        execute(plan, engine, self.emit, self.cancelled, machine=machine, loaded=loaded, **settings)
        if engine.facts:
            self.engine, self.key = engine, key
        else:
            engine.close()
        give_back()


class Writer:
    """Turns events into lines off the main thread: nothing is written between two stamps of a pass."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._events: deque[Event] = deque()
        self._wake = threading.Event()

    def emit(self, event: Event) -> None:
        """Take an event; an ending is written at once, all others within FLUSH_S."""
        self._events.append(event)
        if isinstance(event, ENDINGS):
            self._wake.set()

    def work(self) -> None:
        """Write forever; ends the process when nobody reads any more."""
        beat = 0
        beaten = time.monotonic()
        while True:
            self._wake.wait(FLUSH_S)
            self._wake.clear()
            lines = [_line(self._events.popleft()) for _ in range(len(self._events))]
            if time.monotonic() - beaten >= BEAT_S:
                beat, beaten = beat + 1, time.monotonic()
                lines.append(f'{{"beat":{beat}}}')
            try:
                _write(self._fd, "".join(line + "\n" for line in lines).encode(errors="replace"))
            except OSError:
                os._exit(1)


def _line(event: Event) -> str:
    try:
        return to_json(event)
    except (TypeError, ValueError) as error:
        return to_json(Failed(event.t_ns, "crash", f"An event of type {type(event).__name__} cannot be written as JSON: {error}"))


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _own_pipes(log: Path) -> tuple[TextIO, int]:
    """Keep stdin and stdout for commands and events; in their place, readers find nothing and whatever is printed goes to the log."""
    commands = os.fdopen(os.dup(0), encoding="utf-8")
    events = os.dup(1)
    log.parent.mkdir(parents=True, exist_ok=True)
    nothing = os.open(os.devnull, os.O_RDONLY)
    printed = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    return commands, events


def _listen(commands: TextIO, inbox: queue.Queue[dict[str, Any]], cancel: threading.Event) -> None:
    for line in commands:
        command = json.loads(line)
        if command["cmd"] == "run":
            cancel.clear()
            inbox.put(command)
        elif command["cmd"] == "cancel":
            cancel.set()
        elif command["cmd"] == "exit":
            break
    _leave()


def _leave() -> None:
    """End this process now, and whatever it started if it leads a session of its own (as under the runner)."""
    if hasattr(os, "killpg") and os.getsid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
