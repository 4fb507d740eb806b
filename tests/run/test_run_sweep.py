"""Sweeps with the scripted engine: memory that runs out, stop, pause, and going on in a new process without running a cell twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from playground.core.events import Cancelled, Done, Phase, Prepared, Progress, Tick
from playground.core.places import ROOT
from playground.core.spec import Protocol, RunSpec, Workload
from playground.core.sweep import Axis, SweepSpec
from playground.models.tokenizer import ByteTokenizer
from playground.results.store import Store
from playground.results.sweeps import Sweeps
from playground.run.prompts import text_of
from playground.run.sweep import Sweep, create, forget
from playground.techniques import techniques

PROTOCOL = Protocol(warmups=0, repeats=1, energy=False, quality=False, profile=False)


@pytest.fixture
def store(tmp_path):
    """A real store in a file of its own."""
    store = Store(tmp_path / "results.sqlite")
    yield store
    store.close()


def planned(*scripts, step_ms=1, **axes):
    """A plan with a line a script."""
    specs = [
        RunSpec(f"script:step_ms={step_ms},prefill_ms=1{text}", "fake", workload=Workload(max_new_tokens=4), protocol=PROTOCOL, label=text)
        for text in scripts or ("",)
    ]
    return SweepSpec(tuple(specs), tuple(Axis(name, tuple(values)) for name, values in axes.items()), "Sizes").checked(techniques())


def statuses(store, sweep):
    return [cell.status for cell in Sweeps(store).load(sweep).cells]


def test_a_cell_without_memory_is_a_result_and_the_larger_ones_of_its_line_are_skipped(store, runner):
    sweep = create(store, planned(",oom_rows=2", "", batch_size=[1, 2, 4, 8]))
    running = Sweep(store, sweep, runner, threading.Event())
    told = [event for _, event in running if isinstance(event, Progress)]
    assert statuses(store, sweep) == ["done", "oom", "skipped", "skipped", "done", "done", "done", "done"]
    assert running.status == "done"
    assert [(event.done, event.total) for event in told] == [(number, 8) for number in range(1, 9)]
    stored = Sweeps(store).load(sweep)
    assert stored.status == "done"
    assert stored.cells[3].reason == f"{stored.cells[1].cell.label} ran out of memory, and this takes more."
    assert stored.cells[3].experiment is None
    kept = store.load(stored.cells[2 + 4].experiment)
    assert (kept.source, kept.runs[0].spec.knobs["batch_size"]) == (f"sweep {sweep}", 4)
    assert kept.runs[0].result == stored.cells[6].result


def test_stop_ends_the_running_cell_which_is_run_again_while_finished_ones_are_not(store, runner):
    sweep, stop = create(store, planned(step_ms=60, max_new_tokens=[6, 12, 13])), threading.Event()
    running = Sweep(store, sweep, runner, stop)
    for index, event in running:
        if index == 1 and isinstance(event, Tick):
            stop.set()
    assert running.status == "cancelled"
    before = Sweeps(store).load(sweep)
    assert (before.status, [cell.status for cell in before.cells]) == ("stopped", ["done", "cancelled", "waiting"])
    assert before.left_s > 0
    again = Sweep(store, sweep, runner, threading.Event())
    assert {index for index, _ in again} == {1, 2}
    after = Sweeps(store).load(sweep)
    assert (after.status, {cell.status for cell in after.cells}) == ("done", {"done"})
    assert after.cells[0] == before.cells[0]
    assert after.cells[1].experiment == before.cells[1].experiment, (
        "the run that was cut off is not left in the history beside the whole one"
    )
    assert len(store.history()) == 3
    assert list(Sweep(store, sweep, runner, threading.Event())) == []


def test_pause_lets_the_running_cell_end_and_the_sweep_wait(store, runner):
    sweep, pause = create(store, planned(max_new_tokens=[4, 5])), threading.Event()
    running = Sweep(store, sweep, runner, threading.Event(), pause)
    for _, event in running:
        if isinstance(event, Phase):
            pause.set()
    assert (Sweeps(store).load(sweep).status, statuses(store, sweep)) == ("paused", ["done", "waiting"])
    list(Sweep(store, sweep, runner, threading.Event()))
    assert statuses(store, sweep) == ["done", "done"]


def test_closing_a_sweep_in_the_middle_leaves_nothing_that_looks_alive(store, runner):
    sweep = create(store, planned(step_ms=50, max_new_tokens=[200, 300]))
    running = Sweep(store, sweep, runner, threading.Event())
    next(event for _, event in running if isinstance(event, Tick))
    running.close()
    assert (Sweeps(store).load(sweep).status, statuses(store, sweep)) == ("stopped", ["interrupted", "waiting"])
    assert runner.pid is None
    forget(store, sweep)
    assert store.history() == Sweeps(store).history() == []


def test_a_killed_process_is_gone_on_with_by_another_and_no_finished_cell_runs_twice(tmp_path):
    environment = {**os.environ, "PLAYGROUND_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "playground", "sweep"]
    flags = ["--engine", "fake", "--model", "script:step_ms=20", "--axis", "max_new_tokens=4,8,150", "--repeats", "1", "--warmups", "0"]
    first = subprocess.Popen([*command, *flags], cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for line in first.stderr:
        if line.startswith("[150 output tokens] timed pass"):
            break
    first.send_signal(signal.SIGKILL)
    first.wait()
    store = Store(tmp_path / "results.sqlite")
    (head,) = Sweeps(store).history()
    assert (head["status"], head["finished"], head["cells"]) == ("interrupted", 2, 3)
    before = Sweeps(store).load(head["id"])
    done = subprocess.run([*command, "--resume", head["id"]], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[4 output tokens]" not in done.stderr
    assert "[150 output tokens]" in done.stderr
    after = Sweeps(store).load(head["id"])
    assert after.status == "done"
    assert after.cells[:2] == before.cells[:2]
    assert [cell.result["metrics"]["output_tokens"]["value"] for cell in after.cells] == [4, 8, 150]
    store.close()


def test_interrupting_the_command_says_how_to_go_on(tmp_path):
    environment = {**os.environ, "PLAYGROUND_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "playground", "sweep", "--engine", "fake", "--model", "script:step_ms=20"]
    flags = ["--axis", "max_new_tokens=4,150", "--repeats", "1", "--warmups", "0", "--json", str(tmp_path / "out.json")]
    running = subprocess.Popen([*command, *flags], cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for line in running.stderr:
        if line.startswith("[150 output tokens] timed pass"):
            break
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "1 of 2 runs are done. Go on: python -m playground sweep --resume " in err
    assert out.splitlines()[1].startswith("4 output tokens    done")
    assert (tmp_path / "out.json").is_file()


class Told:
    """Runs nothing; notes where each run finds the figures that it is compared with, and where it leaves its own."""

    def __init__(self):
        self.folders = []

    def run(self, spec, *, reference=None, save_reference=None, ceilings=None, fresh=False, cancel):
        self.folders.append((spec.model, reference, save_reference))
        yield Done(time.perf_counter_ns()) if not cancel.is_set() else Cancelled(time.perf_counter_ns())

    def close(self):
        pass


def test_quality_is_compared_with_the_first_run_of_the_same_model_also_after_a_restart(store):
    plan = planned(precision=["fp32", "bf16"], model=["script:step_ms=1", "script:step_ms=2"])
    specs = tuple(spec.replace(protocol=Protocol(0, 1, quality=True)) for spec in plan.specs)
    sweep = create(store, SweepSpec(specs, plan.axes).checked(techniques()))
    told, pause = Told(), threading.Event()
    for index, _ in Sweep(store, sweep, told, threading.Event(), pause):
        if index == 1:
            pause.set()
    list(Sweep(store, sweep, told, threading.Event()))
    assert len(told.folders) == 4
    saved = {model: save for model, _, save in told.folders if save}
    assert len(set(saved.values())) == 2
    assert Counter((model, found) for model, found, save in told.folders if not save) == Counter(saved.items())


def test_a_prompt_has_exactly_the_tokens_that_were_asked_for(runner, script, play):
    for tokens in (1, 37, 6000):
        events = play(runner, script(prompt_tokens=tokens, prompts=("one", "two"), max_new_tokens=1, repeats=1, quality=False))
        prepared = next((event for event in events if isinstance(event, Prepared)), None)
        assert prepared.token_counts == (tokens, tokens)
        assert prepared.texts[0] != prepared.texts[1] or tokens == 1
        assert isinstance(events[-1], Done) == (tokens < 4000), "the script's context holds 4,096 tokens"
    count = ByteTokenizer(512).encode
    assert len(count(text_of(777, lambda text: len(count(text))))) == 777


def test_a_tokenizer_that_adds_tokens_and_joins_characters_gets_its_exact_length():
    def count(text):  # one in front, and three characters a token: a character more is often no token more
        return 1 + (len(text) + 2) // 3 + text.count("e")

    for tokens in (2, 50, 1001):
        assert count(text_of(tokens, count, 3)) == tokens
