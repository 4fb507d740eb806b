"""Experiments and the queue of jobs: variants in order, failures, Stop, the store, and who comes first."""

from __future__ import annotations

import errno
import itertools
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from playground.core.events import ENDINGS, Cancelled, Done, Failed, Loaded, Tick, Warned
from playground.core.places import ROOT, home
from playground.core.problem import Problem
from playground.results.store import Store
from playground.run.experiment import clear_leftovers, run_experiment
from playground.run.jobs import Jobs

SLOW = "step_ms=30"


@pytest.fixture
def store(tmp_path):
    """A real store in a file of its own."""
    store = Store(tmp_path / "results.sqlite")
    yield store
    store.close()


@pytest.fixture
def jobs(store):
    """A queue that ends with the test."""
    jobs = Jobs(store)
    yield jobs
    jobs.close()


def endings(pairs):
    """(variant, type of its ending) of all variants."""
    return [(variant, type(event)) for variant, event in pairs if isinstance(event, ENDINGS)]


def leftovers():
    """Folders of baselines that were not deleted."""
    return list(home().glob("baseline-*"))


def wait_until(condition, within_s=60.0):
    """Wait for a condition; fails where it does not come."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def test_a_failed_variant_does_not_stop_the_next_one_and_each_has_a_result(runner, script, store):
    specs = [script(), script("fail=crash"), script("fail=oom,at=load"), script("weights_mb=3")]
    experiment = run_experiment(specs, runner, threading.Event(), store=store, title="Four")
    pairs = list(experiment)
    assert endings(pairs) == [(0, Done), (1, Failed), (2, Failed), (3, Done)]
    assert [document["status"] for document in experiment.results] == ["done", "failed", "failed", "done"]
    assert [(document["error"] or {}).get("kind") for document in experiment.results] == [None, "crash", "oom", None]
    assert experiment.results[3]["metrics"]["weights_bytes"]["value"] == 3e6
    assert not leftovers()
    kept = store.load(experiment.experiment_id)
    assert (kept.title, [run.status for run in kept.runs]) == ("Four", ["done", "failed", "failed", "done"])
    for number, run in enumerate(kept.runs):
        assert [event for variant, event in pairs if variant == number] == list(run.events)
        assert run.result == experiment.results[number]


def test_the_second_variant_is_compared_with_the_first(runner, script):
    experiment = run_experiment([script(max_new_tokens=5), script(max_new_tokens=3)], runner, threading.Event())
    list(experiment)
    assert experiment.results[0]["metrics"]["matching_tokens"]["value"] is None
    assert experiment.results[1]["metrics"]["matching_tokens"]["value"] == 3
    assert experiment.experiment_id is None


def test_stop_cancels_the_current_variant_and_all_that_follow(runner, script, store):
    cancel = threading.Event()
    specs = [script(), script(SLOW, max_new_tokens=500), script(), script()]
    experiment = run_experiment(specs, runner, cancel, store=store)
    pairs = []
    for variant, event in experiment:
        pairs.append((variant, event))
        if variant == 1 and isinstance(event, Tick):
            cancel.set()
    assert endings(pairs) == [(0, Done), (1, Cancelled), (2, Cancelled), (3, Cancelled)]
    assert [run.status for run in store.load(experiment.experiment_id).runs] == ["done", "cancelled", "cancelled", "cancelled"]
    assert not leftovers()


def test_closing_an_experiment_in_the_middle_ends_the_worker_and_cleans_up(runner, script):
    experiment = run_experiment([script(SLOW, max_new_tokens=500), script()], runner, threading.Event())
    next(event for _, event in experiment if isinstance(event, Tick))
    assert leftovers()
    experiment.close()
    assert runner.pid is None
    assert not leftovers()


class FullDisk:
    """A store whose call number `number` of the method `failing` fails, and every call after it, `failures` of them in all."""

    def __init__(self, failing="", number=1, failures=1000):
        self.failing, self.number, self.failures = failing, number, failures
        self.calls = []
        self.full = False

    def _call(self, name):
        self.calls.append(name)
        self.full = self.full or (name == self.failing and self.calls.count(name) == self.number)
        if self.full and self.failures:
            self.failures -= 1
            raise Problem("user", "The results cannot be stored: the disk is full.")

    def create(self, title, specs):
        self._call("create")
        return "abc"

    def begin(self, experiment_id, variant):
        self._call("begin")

    def append(self, experiment_id, variant, events):
        self._call("append")

    def finish(self, experiment_id, variant, result):
        self._call("finish")
        self.finished = [*getattr(self, "finished", []), variant]

    def ceilings(self):
        return {}

    def keep_ceilings(self, found):
        pass

    def mark_interrupted(self, over=()):
        return 0


@pytest.mark.parametrize(
    ("failing", "number"), [("create", 1), ("begin", 1), ("append", 1), ("finish", 1), ("begin", 2), ("append", 2), ("finish", 2)]
)
def test_a_full_disk_at_any_moment_costs_one_warning_and_never_the_run(runner, script, failing, number):
    store = FullDisk(failing, number)
    experiment = run_experiment([script(), script()], runner, threading.Event(), store=store)
    pairs = list(experiment)
    assert endings(pairs) == [(0, Done), (1, Done)]
    assert isinstance(pairs[-1][1], Done)
    warnings = [event.message for _, event in pairs if isinstance(event, Warned)]
    assert len(warnings) == 1
    assert "disk is full" in warnings[0]
    assert "goes on" in warnings[0]
    assert [document["status"] for document in experiment.results] == ["done", "done"]
    assert store.calls.count("append") <= 2 * 3  # one that failed is not asked again before the variant's end


@pytest.mark.parametrize(("failing", "number"), [("begin", 1), ("append", 1), ("finish", 1), ("begin", 2)])
def test_a_disk_that_has_space_again_gets_every_result(runner, script, failing, number):
    store = FullDisk(failing, number, failures=1)
    pairs = list(run_experiment([script(), script()], runner, threading.Event(), store=store))
    assert sorted(store.finished) == [0, 1]
    assert len([event for _, event in pairs if isinstance(event, Warned)]) == 1


def test_a_failed_write_loses_no_event_when_the_disk_has_space_again(runner, script, store, monkeypatch):
    append, left = store.append, [1]

    def once(*arguments):
        if left:
            left.pop()
            raise Problem("user", "The disk is full.")
        append(*arguments)

    monkeypatch.setattr(store, "append", once)
    experiment = run_experiment([script(SLOW, max_new_tokens=40)], runner, threading.Event(), store=store)
    events = [event for _, event in experiment if event.__class__ is not Warned]
    run = store.load(experiment.experiment_id).runs[0]
    assert list(run.events) == events
    assert (run.status, left) == ("done", [])


def test_without_a_place_for_the_baseline_the_variants_run_and_the_page_is_told(runner, script, monkeypatch):
    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    seen = []

    class Noting:
        def run(self, spec, **settings):
            seen.append((settings["reference"], settings["save_reference"]))
            yield Done(time.perf_counter_ns())

    pairs = list(run_experiment([script(), script()], Noting(), threading.Event()))
    assert endings(pairs) == [(0, Done), (1, Done)]
    assert [event.message for _, event in pairs if isinstance(event, Warned)] == [
        "Quality is not compared with the baseline: its figures have no place on the disk (No space left on device)."
    ]
    assert seen[0] == (None, None)
    assert seen[1][1] is None
    assert not seen[1][0].exists()  # so that the comparison is missing for this reason, not for being the baseline


OWNER = """
import sys, threading, time
from playground.core.events import Done
from playground.core.spec import RunSpec
from playground.run.experiment import run_experiment
class Waiting:
    def run(self, spec, **settings):
        settings["save_reference"].write_bytes(b"big")
        print("ready", flush=True)
        time.sleep(60)
        yield Done(0)
list(run_experiment([RunSpec(), RunSpec()], Waiting(), threading.Event()))
"""


def test_what_a_killed_process_left_is_deleted_and_what_a_live_one_uses_is_not():
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert owner.stdout.readline().strip() == "ready"
    clear_leftovers()
    assert len(leftovers()) == 1
    assert (leftovers()[0] / "baseline").exists()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    clear_leftovers()
    assert not leftovers()


def test_events_are_stored_at_most_about_once_a_second(runner, script):
    store = FullDisk()
    started = time.monotonic()
    list(run_experiment([script(SLOW, max_new_tokens=40, warmups=0, repeats=2)], runner, threading.Event(), store=store))
    assert 2 <= store.calls.count("append") <= time.monotonic() - started + 1


def test_the_id_is_told_before_the_first_event(runner, script, store):
    told = []
    experiment = run_experiment([script()], runner, threading.Event(), store=store, on_created=told.append)
    assert told == [experiment.experiment_id]
    assert [run.status for run in store.load(told[0]).runs] == ["waiting"]


def test_an_experiment_without_variants_is_refused(runner, jobs):
    for attempt in (lambda: run_experiment([], runner, threading.Event()), lambda: jobs.submit("none", [])):
        with pytest.raises(Problem, match="at least one variant"):
            attempt()


def test_jobs_are_served_in_order_and_know_how_many_are_ahead(jobs, script, store):
    first = jobs.submit("first", [script(SLOW, max_new_tokens=30)])
    second = jobs.submit("second", [script()])
    third = jobs.submit("third", [script(), script("fail=error")])
    wait_until(lambda: first.status == "running")
    assert [job.ahead for job in (first, second, third)] == [0, 1, 2]
    assert [job.status for job in (second, third)] == ["waiting", "waiting"]
    assert third.done.wait(20)
    assert [job.status for job in (first, second, third)] == ["done", "done", "failed"]
    assert [job.ahead for job in (first, second, third)] == [0, 0, 0]
    stamps = [[event.t_ns for _, event in job.events_since(0)[0] if isinstance(event, ENDINGS)] for job in (first, second, third)]
    assert stamps == sorted(stamps)
    assert store.load(third.id).title == "third"
    assert [document["status"] for document in third.results] == ["done", "failed"]


def test_a_page_that_comes_back_finds_its_job_and_all_its_events(jobs, script):
    job = jobs.submit("again", [script(SLOW, max_new_tokens=30)])
    collected, cursor = [], 0
    while not job.done.wait(0.05):
        new, cursor = jobs.get(job.id).events_since(cursor)
        collected += new
    new, cursor = job.events_since(cursor)
    collected += new
    assert collected == job.events_since(0)[0]
    assert isinstance(collected[-1][1], Done)
    assert job.events_since(cursor) == ([], cursor)
    assert jobs.get("unknown") is None


def test_a_waiting_job_is_cancelled_at_once_and_the_running_one_soon(jobs, script, store):
    first = jobs.submit("first", [script(SLOW, max_new_tokens=1000), script()])
    second = jobs.submit("second", [script(), script()])
    third = jobs.submit("third", [script()])
    wait_until(lambda: any(isinstance(event, Tick) for _, event in first.events_since(0)[0]))
    second.cancel()
    assert second.done.is_set()
    assert first.status == "running"
    assert third.ahead == 1
    assert endings(second.events_since(0)[0]) == [(0, Cancelled), (1, Cancelled)]
    assert [run.status for run in store.load(second.id).runs] == ["cancelled", "cancelled"]
    first.cancel()
    assert first.done.wait(5)
    assert third.done.wait(10)
    assert [job.status for job in (first, second, third)] == ["cancelled", "cancelled", "done"]


def test_jobs_share_a_loaded_worker(jobs, script):
    many = [jobs.submit(str(number), [script()]) for number in range(2)]
    assert all(job.done.wait(20) for job in many)
    loaded = [event.reused for job in many for _, event in job.events_since(0)[0] if isinstance(event, Loaded)]
    assert loaded == [False, True]


def test_a_store_that_cannot_create_costs_a_warning_and_not_the_job(script):
    jobs = Jobs(FullDisk("create"))
    job = jobs.submit("unkept", [script()])
    assert job.done.wait(20)
    jobs.close()
    assert (job.status, jobs.get(job.id)) == ("done", job)
    assert [event.message for _, event in job.events_since(0)[0] if isinstance(event, Warned)] == [
        "The results cannot be stored: the disk is full. The run goes on, but it is not kept."
    ]


class Broken:
    """A runner with a fault of its own in the first run."""

    def __init__(self):
        self.calls = itertools.count()

    def run(self, spec, **settings):
        if next(self.calls) == 0:
            raise ZeroDivisionError("a fault")
        yield Done(time.perf_counter_ns())

    def close(self):
        """Nothing to close."""


def test_a_fault_of_our_own_ends_its_job_and_no_other(script):
    jobs = Jobs(None, Broken)
    first, second = jobs.submit("first", [script()]), jobs.submit("second", [script()])
    assert second.done.wait(10)
    jobs.close()
    assert (first.status, second.status) == ("failed", "done")
    failed = first.events_since(0)[0][-1][1]
    assert "ZeroDivisionError: a fault" in failed.message
    assert "Broken" in failed.detail or "in run" in failed.detail


def test_a_job_that_is_over_leaves_nothing_that_looks_alive_even_where_the_store_failed_then(script, store, monkeypatch):
    mark = store.mark_interrupted

    def full(over=()):
        raise Problem("user", "The disk is full.")

    jobs = Jobs(store, Broken)
    monkeypatch.setattr(store, "mark_interrupted", full)
    first = jobs.submit("first", [script(), script()])  # a fault of our own
    assert first.done.wait(10)
    assert [run.status for run in store.load(first.id).runs] == ["running", "waiting"]
    monkeypatch.setattr(store, "mark_interrupted", mark)
    second = jobs.submit("second", [script()])
    assert second.done.wait(10)
    jobs.close()
    assert [run.status for run in store.load(first.id).runs] == ["interrupted", "interrupted"]
    assert [run.status for run in store.load(second.id).runs] == ["done"]


def test_only_the_last_twenty_finished_jobs_are_kept(script):
    jobs = Jobs(None, Broken)
    many = [jobs.submit(str(number), [script()]) for number in range(25)]
    assert all(job.done.wait(10) for job in many)
    jobs.close()
    assert [jobs.get(job.id) is not None for job in many] == [False] * 5 + [True] * 20


def test_an_idle_worker_is_freed_and_the_next_job_gets_a_new_one(script):
    closed = threading.Event()

    class Watched(Broken):
        def run(self, spec, **settings):
            yield Done(time.perf_counter_ns())

        def close(self):
            closed.set()

    jobs = Jobs(None, Watched, idle_s=0.1)
    assert jobs.submit("one", [script()]).done.wait(10)
    assert closed.wait(5)
    assert jobs.submit("two", [script()]).done.wait(10)
    jobs.close()


def test_closing_the_queue_cancels_everything_and_takes_no_more(script):
    jobs = Jobs(None)
    running, waiting = jobs.submit("running", [script(SLOW, max_new_tokens=1000)]), jobs.submit("waiting", [script()])
    wait_until(lambda: running.status == "running")
    jobs.close()
    assert (running.status, waiting.status) == ("cancelled", "cancelled")
    with pytest.raises(Problem, match="shutting down"):
        jobs.submit("late", [script()])


def test_a_store_sees_what_a_killed_program_had_so_far(runner, script, store):
    experiment = run_experiment([script(SLOW, max_new_tokens=60, warmups=0)], runner, threading.Event(), store=store)
    for _ in experiment:
        run = store.load(experiment.experiment_id).runs[0]
        if any(isinstance(event, Tick) for event in run.events):
            break
    assert run.status == "running"
    assert runner.pid is not None
    experiment.close()
