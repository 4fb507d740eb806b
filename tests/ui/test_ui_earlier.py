"""What a person does with an earlier experiment on the page: run it again, delete it, take the deletion back."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from playground.core.problem import Problem
from playground.core.spec import Protocol, RunSpec, Workload
from playground.ui import handlers
from playground.ui.handlers import App
from playground.ui.strings import STILL_GOING

QUICK = Protocol(warmups=0, repeats=1, energy=False, quality=False, profile=False)
SPEC = RunSpec("script:step_ms=1", "fake", workload=Workload(("a",), 4), protocol=QUICK, label="mine")


def shown_status(app: App, job_id: str) -> str:
    """The status with which the page shows it."""

    async def last() -> str:
        return [state.status async for state in handlers.watch(app, job_id, 0, "page")][-1]

    with ThreadPoolExecutor(1) as threads:  # this thread may have a loop already, of the browser tests
        return threads.submit(asyncio.run, last()).result()


def test_a_stored_experiment_runs_again_as_it_was_unless_one_of_the_pages_runs_goes_on(app: App) -> None:
    earlier = app.store.create("My title", [SPEC])
    slow = app.jobs.submit("slow", [SPEC.replace(model="script:step_ms=2000")])
    with pytest.raises(Problem, match=STILL_GOING[:20]):
        handlers.run_again(app, earlier, mine=[slow.id])
    slow.cancel()
    job = handlers.run_again(app, earlier, mine=[slow.id])
    assert job.done.wait(30)
    again = app.store.load(job.id)
    assert (again.title, [run.spec for run in again.runs], again.runs[0].status) == ("My title", [SPEC], "done")
    with pytest.raises(Problem, match="no stored experiment"):
        handlers.run_again(app, "nothere1")


def test_a_deleted_run_is_off_the_page_too_and_comes_back_whole(app: App) -> None:
    job = app.jobs.submit("one", [SPEC])
    with pytest.raises(Problem, match="Stop it, then delete it"):
        handlers.delete(app, [job.id])
    assert job.done.wait(30)
    handlers.delete(app, [job.id])
    assert shown_status(app, job.id) == "gone"
    assert handlers.specs_of_run(app, job.id) == []
    assert app.store.earlier.page()["experiments"] == []
    app.store.earlier.restore([job.id])
    assert shown_status(app, job.id) == "done"
    assert handlers.specs_of_run(app, job.id) == [SPEC]
