"""Fixtures for tests with real worker processes and the scripted engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from playground.core.events import Event
from playground.core.spec import Protocol, RunSpec, Workload
from playground.run.runner import Runner

Play = Callable[..., list[Event]]


@pytest.fixture
def runner() -> Iterator[Runner]:
    """A runner whose worker ends with the test."""
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture
def script() -> Callable[..., RunSpec]:
    """script("fail=oom", repeats=1, max_new_tokens=4): a spec of the scripted engine, fast unless it says otherwise."""

    def make(text: str = "", **settings: object) -> RunSpec:
        work = {name: settings.pop(name) for name in list(settings) if name in Workload.__dataclass_fields__}
        protocol = {name: settings.pop(name) for name in list(settings) if name in Protocol.__dataclass_fields__}
        given = ",".join(filter(None, ("step_ms=2,prefill_ms=2", text)))
        return RunSpec(
            model=f"script:{given}",
            engine="fake",
            workload=Workload(**{"max_new_tokens": 5, **work}),
            protocol=Protocol(**{"repeats": 2, **protocol}),
            **settings,
        )

    return make


@pytest.fixture
def play() -> Play:
    """play(runner, spec): all events of a run, without the heartbeats."""

    def run(runner: Runner, spec: RunSpec, cancel: threading.Event | None = None) -> list[Event]:
        return [event for event in runner.run(spec, cancel=cancel or threading.Event()) if event is not None]

    return run
