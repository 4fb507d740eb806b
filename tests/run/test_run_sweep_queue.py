"""Sweeps in the queue with the scripted engine: begin, pause before and during its turn, stop, go on, and delete only what is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from playground.core.problem import Problem
from playground.core.spec import Protocol, RunSpec, Workload
from playground.core.sweep import Axis, SweepSpec
from playground.results.store import Store
from playground.results.sweeps import Sweeps
from playground.run.jobs import Jobs
from playground.run.sweep_queue import SweepQueue
from playground.techniques import techniques

QUICK = Protocol(warmups=0, repeats=1, energy=False, quality=False, profile=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "results.sqlite")
    yield store
    store.close()


@pytest.fixture
def jobs(store: Store) -> Iterator[Jobs]:
    jobs = Jobs(store)
    yield jobs
    jobs.close()


@pytest.fixture
def queue(jobs: Jobs, store: Store) -> SweepQueue:
    return SweepQueue(jobs, store)


def planned(step_ms: int = 1, values: tuple[int, ...] = (4, 5)) -> SweepSpec:
    spec = RunSpec(f"script:step_ms={step_ms},prefill_ms=1", "fake", workload=Workload(("a",)), protocol=QUICK)
    return SweepSpec((spec,), (Axis("max_new_tokens", values),), "Lengths").checked(techniques())


def wait(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def seen(queue: SweepQueue, sweep: str) -> tuple[str, list[str]]:
    stored = queue.look(sweep)
    return queue.status(stored), [cell.status for cell in stored.cells]


def running(queue: SweepQueue, sweep: str) -> bool:
    return "running" in seen(queue, sweep)[1]


def test_a_sweep_that_waits_is_paused_at_once_and_goes_on_to_its_end(queue: SweepQueue, jobs: Jobs, store: Store) -> None:
    before = jobs.submit("before", [planned(step_ms=2000).specs[0]])
    sweep = queue.begin(planned())
    assert (seen(queue, sweep), queue.ahead(sweep)) == (("waiting", ["waiting", "waiting"]), 1)
    assert queue.go_on(sweep) is queue.go_on(sweep), "it is queued once, however often Go on is pressed"
    assert queue.pause(sweep)
    wait(lambda: seen(queue, sweep)[0] == "paused")
    assert not queue.pause(sweep)
    before.cancel()
    assert queue.go_on(sweep).done.wait(30)
    assert seen(queue, sweep) == ("done", ["done", "done"])
    with pytest.raises(Problem, match="Every run of this sweep has a result already"):
        queue.go_on(sweep)
    queue.delete(sweep)
    assert Sweeps(store).history() == []
    assert [item["id"] for item in store.history()] == [before.id], "its runs are gone with it"


def test_pause_lets_the_running_cell_end_and_delete_is_refused_until_then(queue: SweepQueue) -> None:
    sweep = queue.begin(planned(step_ms=60, values=(9, 10)))
    wait(lambda: running(queue, sweep))
    assert seen(queue, sweep)[0] == "running"
    with pytest.raises(Problem, match="still goes on: stop it first"):
        queue.delete(sweep)
    assert queue.pause(sweep)
    assert seen(queue, sweep) == ("pausing", ["running", "waiting"])
    wait(lambda: seen(queue, sweep)[0] == "paused")
    assert seen(queue, sweep)[1] == ["done", "waiting"]


def test_stop_cuts_the_running_cell_off_and_go_on_runs_it_again(queue: SweepQueue) -> None:
    sweep = queue.begin(planned(step_ms=25, values=(4, 40)))
    wait(lambda: seen(queue, sweep)[1] == ["done", "running"])
    first = queue.look(sweep).cells[0]
    assert queue.stop(sweep)
    wait(lambda: seen(queue, sweep)[0] == "stopped")
    assert seen(queue, sweep)[1][0] == "done"
    assert not queue.stop(sweep)
    assert queue.go_on(sweep).done.wait(30)
    after = queue.look(sweep)
    assert (queue.status(after), [cell.status for cell in after.cells]) == ("done", ["done", "done"])
    assert after.cells[0].experiment == first.experiment, "what had ended was not run again"


def test_an_unknown_sweep_is_said_to_be_so_and_nothing_is_there_to_pause(queue: SweepQueue) -> None:
    for ask in (queue.look, queue.go_on, queue.delete):
        with pytest.raises(Problem, match="nothere1"):
            ask("nothere1")
    assert not queue.pause("nothere1")
    assert not queue.stop("nothere1")


def test_what_ends_a_sweep_beside_its_runs_is_known_and_it_can_go_on(queue: SweepQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(*given: object) -> None:
        raise Problem("user", "It runs in another process.")

    with monkeypatch.context() as patch:
        patch.setattr("playground.run.sweep_queue.Sweep", elsewhere)
        sweep = queue.begin(planned())
        wait(lambda: not queue.goes_on(sweep))
    assert queue.fault(sweep) == "It runs in another process."
    assert queue.go_on(sweep).done.wait(30)
    assert (seen(queue, sweep)[0], queue.fault(sweep)) == ("done", "")
