"""The page as a process: a disk that keeps nothing, and the end of the process by a plain `kill`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from playground.core.places import ROOT

gradio_client = pytest.importorskip("gradio_client")


@contextmanager
def page(home: Path, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """app.py with that $PLAYGROUND_HOME on a free port, and its address."""
    environment = {name: value for name, value in os.environ.items() if name != "GRADIO_SERVER_PORT"} | {"PLAYGROUND_HOME": str(home)}
    with log.open("wb") as output:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-u", "app.py", "--port", str(port)]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not (ready := re.search(r"is ready: (\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield process, ready[1]
    finally:
        process.kill()
        process.wait()


def test_a_page_whose_results_have_no_place_says_so_and_serves(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with page(tmp_path / "file" / "home", tmp_path / "log") as (process, url):
        client = gradio_client.Client(url, verbose=False)
        assert client.predict(api_name="/history") == []
        client.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert "Warning: The folder of results cannot be used" in (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_plain_kill_ends_the_worker_and_leaves_no_baseline_and_no_run_that_looks_alive(tmp_path):
    home = tmp_path / "home"
    with page(home, tmp_path / "log") as (process, url):
        client = gradio_client.Client(url, verbose=False)
        spec = {"model": "script:step_ms=30", "engine": "fake", "workload": {"max_new_tokens": 1000}}
        client.submit({"variants": [spec, spec]}, api_name="/run")
        deadline = time.monotonic() + 60
        while not list(home.glob("baseline-*")) or not psutil.Process(process.pid).children():
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        workers = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not list(home.glob("baseline-*"))
        assert not psutil.wait_procs(workers, 50)[1]
    from playground.results.store import Store

    store = Store(home / "results.sqlite")
    assert [item["statuses"] for item in store.history()] == [["cancelled", "cancelled"]]
    store.close()
