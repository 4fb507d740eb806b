"""Alternating rounds: A B A B, fresh workers, one result a variant over all rounds, and what becomes of a variant that fails in one."""

from __future__ import annotations

import threading
import time

import pytest

from playground.core.events import (
    ENDINGS,
    BatchEnd,
    BatchStart,
    Cancelled,
    Ceilings,
    Done,
    Failed,
    Loaded,
    Memory,
    Output,
    Phase,
    Tick,
    Warned,
)
from playground.core.spec import Protocol, RunSpec, Workload
from playground.results.store import Store
from playground.run.experiment import part_of, run_experiment


class Scripted:
    """A runner that notes what it was asked for; `fails`: (call number, kind) of the call that does not end well."""

    def __init__(self, fails=None, fresh_ceilings=False):
        self.calls, self.fails, self.fresh_ceilings = [], fails or {}, fresh_ceilings

    def run(self, spec, **settings):
        number = len(self.calls)
        self.calls.append((spec, settings))
        yield Loaded(time.perf_counter_ns(), 1.0, {}, {})
        if self.fresh_ceilings:
            yield Ceilings(1, "a cpu, float32", "cpu", "float32", 1e10, 1e11, 1e-6, "2026-01-01T00:00:00+00:00", fresh=True)
        for index in range(spec.protocol.repeats):
            yield Phase(0, "timed")
            yield BatchStart(0, "timed", index, (0,), (3,))
            yield Tick(int((number + 1) * 1e6), ((1,),))
            yield Tick(int((number + 1) * 2e6), ((2,),))
            yield BatchEnd(0)
        yield Memory(0, "timed", {})
        if number in self.fails:
            yield self.fails[number]
            return
        yield Done(time.perf_counter_ns())


def spec(label, **protocol):
    return RunSpec(label=label, workload=Workload(max_new_tokens=2), protocol=Protocol(**{"repeats": 5, "rounds": 2, **protocol}))


def test_variants_alternate_in_fresh_workers_and_the_repeats_are_shared_out():
    runner = Scripted()
    experiment = run_experiment([spec("a"), spec("b")], runner, threading.Event())
    pairs = list(experiment)
    assert [(asked.label, asked.protocol.repeats) for asked, _ in runner.calls] == [("a", 3), ("b", 3), ("a", 2), ("b", 2)]
    assert all(settings["fresh"] for _, settings in runner.calls)
    assert [(variant, type(event)) for variant, event in pairs if isinstance(event, ENDINGS)] == [(0, Done), (1, Done)]
    assert [result["label"] for result in experiment.results] == ["a", "b"]


def test_a_result_holds_the_repeats_of_all_rounds():
    experiment = run_experiment([spec("a"), spec("b")], Scripted(), threading.Event())
    list(experiment)
    # Call n ticks at n and 2n milliseconds; variant a is calls 1 (three repeats) and 3 (two): (3 x 1 + 2 x 3) / 5.
    ttft = experiment.results[0]["metrics"]["ttft_s"]
    assert ttft["n"] == 5
    assert ttft["value"] == pytest.approx(1.8e-3)


def test_only_the_first_round_measures_energy_quality_and_profile():
    first, second = part_of(spec("a"), 0).protocol, part_of(spec("a"), 1).protocol
    assert (first.energy, first.quality, first.profile) == (True, True, True)
    assert (second.energy, second.quality, second.profile) == (False, False, False)
    assert part_of(spec("a", rounds=1), 0) == spec("a", rounds=1)


def test_a_variant_that_fails_in_the_first_round_is_not_run_again_and_keeps_its_place():
    runner = Scripted({0: Failed(0, "oom", "no memory")})
    experiment = run_experiment([spec("a"), spec("b")], runner, threading.Event())
    pairs = list(experiment)
    assert [asked.label for asked, _ in runner.calls] == ["a", "b", "b"]
    assert [(result["label"], result["status"]) for result in experiment.results] == [("a", "failed"), ("b", "done")]
    assert [variant for variant, event in pairs if isinstance(event, ENDINGS)] == [0, 1]
    told = [variant for variant, event in pairs[: pairs.index(next(p for p in pairs if p[0] == 1))] if isinstance(event, Warned)]
    assert told == [0]  # at once, not only when the last round comes to it


def test_stop_in_the_first_round_cancels_every_variant():
    runner = Scripted({0: Cancelled(0), 1: Cancelled(0)})
    experiment = run_experiment([spec("a"), spec("b")], runner, threading.Event())
    list(experiment)
    assert len(runner.calls) == 2
    assert [result["status"] for result in experiment.results] == ["cancelled", "cancelled"]


def test_a_variant_with_fewer_rounds_waits_for_its_result_until_the_others_are_through():
    runner = Scripted()
    experiment = run_experiment([spec("a"), spec("b", rounds=1)], runner, threading.Event())
    list(experiment)
    assert [asked.label for asked, _ in runner.calls] == ["a", "b", "a"]
    assert [result["metrics"]["ttft_s"]["n"] for result in experiment.results] == [5, 5]


def test_the_store_keeps_the_events_of_all_rounds_once(tmp_path):
    store = Store(tmp_path / "results.sqlite")
    experiment = run_experiment([spec("a"), spec("b")], Scripted(), threading.Event(), store=store, title="rounds")
    list(experiment)
    kept = store.load(experiment.experiment_id).runs
    assert [list(run.events) for run in kept] == experiment.events
    assert [run.status for run in kept] == ["done", "done"]


def test_measured_ceilings_are_kept_for_the_next_run_and_forgotten_on_request(tmp_path):
    store = Store(tmp_path / "results.sqlite")
    runner = Scripted(fresh_ceilings=True)
    list(run_experiment([spec("a", rounds=1)], runner, threading.Event(), store=store))
    list(run_experiment([spec("a", rounds=1)], runner, threading.Event(), store=store))
    assert [list(settings["ceilings"]) for _, settings in runner.calls] == [[], ["a cpu, float32"]]
    assert runner.calls[1][1]["ceilings"]["a cpu, float32"]["copy_bytes_per_s"] == 1e10
    store.forget_ceilings()
    assert store.ceilings() == {}


def test_rounds_with_real_workers_load_twice(runner, script):
    specs = [script(repeats=2, rounds=2, warmups=0, quality=False), script("weights_mb=2", repeats=2, rounds=2, warmups=0, quality=False)]
    experiment = run_experiment(specs, runner, threading.Event())
    pairs = list(experiment)
    loads = [(variant, event.reused) for variant, event in pairs if isinstance(event, Loaded)]
    assert loads == [(0, False), (1, False), (0, False), (1, False)]
    assert [result["metrics"]["itl_s"]["n"] for result in experiment.results] == [2, 2]


def test_a_recording_is_played_once_whatever_the_protocol_asks_for():
    runner = Scripted(fresh_ceilings=True)
    played = [spec(label).replace(engine="replay", model="recording:any#0") for label in "ab"]
    experiment = run_experiment(played, runner, threading.Event(), store=None)
    list(experiment)
    assert [asked.label for asked, _ in runner.calls] == ["a", "b"]


def test_the_ceilings_of_a_recordings_machine_are_not_kept_as_this_ones(tmp_path):
    store = Store(tmp_path / "results.sqlite")
    played = spec("a", rounds=1).replace(engine="replay", model="recording:any#0")
    list(run_experiment([played], Scripted(fresh_ceilings=True), threading.Event(), store=store))
    assert store.ceilings() == {}


def test_outputs_of_several_rounds_are_listed_once():
    experiment = run_experiment([spec("a")], Talking(), threading.Event())
    list(experiment)
    assert [output["text"] for output in experiment.results[0]["outputs"]] == ["first"]


class Talking(Scripted):
    """Gives one output in each round."""

    def run(self, spec, **settings):
        for event in super().run(spec, **settings):
            if isinstance(event, Done):
                yield Output(0, 0, "p", (1,), ("first" if len(self.calls) == 1 else "second",))
            yield event
