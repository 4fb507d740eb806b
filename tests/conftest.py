"""Fixtures of the whole suite. Results and logs go to a temporary folder; models are kept between runs in a test cache of their own."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

TEST_CACHE = Path(os.environ.get("PLAYGROUND_TEST_CACHE", Path.home() / ".cache" / "inference-playground-tests"))


@pytest.fixture(scope="session", autouse=True)
def playground_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """$PLAYGROUND_HOME for the session: a fresh folder whose `models` is the kept test cache."""
    home = tmp_path_factory.mktemp("home")
    (TEST_CACHE / "models").mkdir(parents=True, exist_ok=True)
    (home / "models").symlink_to(TEST_CACHE / "models")
    before = os.environ.get("PLAYGROUND_HOME")
    os.environ["PLAYGROUND_HOME"] = str(home)
    yield home
    if before is None:
        del os.environ["PLAYGROUND_HOME"]
    else:
        os.environ["PLAYGROUND_HOME"] = before
    (home / "models").unlink()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(autouse=True)
def own_interrupt() -> Iterator[None]:
    """A command that runs in this process sets what Ctrl-C does, and that would outlive its test."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)
