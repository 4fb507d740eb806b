"""A recorded sweep in the tab Sweep: offered after the own ones, shown whole, and with nothing to press that would run or delete it."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from test_ui_earlier import SPEC
from test_ui_form import WORLD

from playground.core.problem import Problem
from playground.core.sweep import Axis, SweepSpec
from playground.results.store import Store
from playground.run.exchange import give_out_sweep, take_in
from playground.run.jobs import Jobs
from playground.run.sweep import create
from playground.techniques import techniques
from playground.ui.handlers import App
from playground.ui.sweeping import choices
from playground.ui.tabs.sweep import watch


def shown(app: App, sweep: str) -> list[Any]:
    """What the tab's components get: progress, charts, Pause, Stop, Go on, Explore, Delete."""

    async def last() -> list[Any]:
        return [state async for state in watch(app, sweep, "page")][-1]

    with ThreadPoolExecutor(1) as threads:  # this thread may have a loop already, of the browser tests
        return threads.submit(asyncio.run, last()).result()


def test_a_recorded_sweep_is_listed_last_and_shown_without_go_on_and_delete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYGROUND_HOME", str(tmp_path / "home"))
    with closing(Store(tmp_path / "results.sqlite")) as store, closing(Jobs(store)) as jobs:
        _try_in(App(jobs, store, WORLD), tmp_path)


def _try_in(app: App, tmp_path: Path) -> None:
    plan = SweepSpec((SPEC,), (Axis("batch_size", (1, 2)),), "Rows").checked(techniques())
    sweep = app.sweeps.begin(plan)
    assert app.sweeps.go_on(sweep).done.wait(30)
    give_out_sweep(app.sweeps.look(sweep), app.store, tmp_path / "rows.jsonl.gz")
    name = take_in(tmp_path / "rows.jsonl.gz")
    create(app.store, plan)
    lines = choices(app)
    assert [line.startswith("Recorded: Rows · ") for line, _ in lines[:3]] == [False, False, True]
    own, recorded = shown(app, sweep), shown(app, lines[2][1])
    assert lines[2][1] == f"recording:{name}"
    assert [part["visible"] for part in own[2:]] == [False, False, False, True, True]
    assert [part["visible"] for part in recorded[2:]] == [False, False, False, False, False]
    assert "Recorded · 2 of 2 runs" in recorded[0]
    assert json.loads(recorded[1])["groups"][0]["panels"][0]["figure"]["data"]
    for refused in (app.sweeps.go_on, app.sweeps.delete):
        with pytest.raises(Problem, match="no stored sweep"):
            refused(f"recording:{name}")
