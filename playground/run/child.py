"""The parent's handle on a worker process: start it, send commands, read lines, see whether it lives, end it.

It knows nothing of events. The worker leads a process group of its own, so that ending it ends what it started too (a `pip download`), and
a Ctrl-C in the terminal reaches the parent alone. Example::

    child = Child(); child.send({"cmd": "run", "spec": spec.to_dict()}); line = child.read(0.25); child.end()
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from playground.core.places import ROOT, home
from playground.run.worker import ENVIRONMENT

COMMAND = (sys.executable, "-m", "playground.run.worker")
KEPT_LOGS = 20
LEAVING_S = 1.0


class Child:
    """One worker process. Raises OSError where it cannot be started."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self.log = _new_log()
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, str(self.log)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read_all, daemon=True)
        self._reader.start()

    def send(self, command: Mapping[str, Any]) -> None:
        """Write a command. To a worker that is gone it does nothing: its death shows where its lines are read."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return

    def read(self, timeout_s: float) -> str | None:
        """The next line, or None when there was none in that time."""
        try:
            return self._lines.get(timeout=max(timeout_s, 0.001))
        except queue.Empty:
            return None

    def exit_status(self) -> int | None:
        """The exit status of a worker that is dead and all of whose lines were read, negative for a signal; None before."""
        status = self._process.poll()
        if status is None:
            return None
        self._reader.join(0.5)  # longer only where something that the worker started still holds the pipe
        return status if self._lines.empty() else None

    def dump_stacks(self) -> None:
        """Ask the worker to write the stacks of its threads into its log."""
        if hasattr(signal, "SIGUSR1") and self._process.poll() is None:
            os.kill(self.pid, signal.SIGUSR1)
            time.sleep(0.2)

    def tail(self, lines: int = 40) -> str:
        """The last lines of the log."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 65536))
                return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        except OSError as error:
            return f"The log cannot be read: {error}"

    def end(self) -> None:
        """End the worker: it leaves by itself when its commands end; else it is terminated, then killed."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # a dead worker reads no command that was still on its way
            self._process.stdin.close()
        if not self._ended_within(LEAVING_S):
            self._signal(signal.SIGTERM)
            if not self._ended_within(LEAVING_S):
                self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
                self._process.wait()
        self._reader.join(0.5)

    def _ended_within(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _signal(self, number: int) -> None:
        """Send a signal to the group of a worker that has not been waited for, so that its number is still its own."""
        if hasattr(os, "killpg"):
            os.killpg(self.pid, number)
        else:
            self._process.send_signal(number)

    def _read_all(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line.decode(errors="replace"))


def _new_log() -> Path:
    """A fresh log file; the oldest ones beyond KEPT_LOGS are deleted."""
    folder = home() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    old = sorted(folder.glob("worker-*.log"), key=lambda path: path.name)
    for path in old[: max(0, len(old) - KEPT_LOGS + 1)]:
        path.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=time.strftime("worker-%Y%m%d-%H%M%S-"), suffix=".log")
    os.close(handle)
    return Path(name)
