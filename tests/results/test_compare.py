"""Stored runs of several experiments side by side: what is computed anew, what is not comparable, and what differs."""

import dataclasses

import pytest

from playground.core.events import Departure, Done, Loaded, Output, Score
from playground.core.problem import Problem
from playground.core.spec import Protocol, RunSpec, Workload
from playground.results.compare import Picked, picked, side_by_side
from playground.results.result import result
from playground.results.store import Store

BASE = RunSpec(label="fp32", knobs={"precision": "fp32"})
H200 = {"gpu": "NVIDIA H200", "cpu": "Xeon", "host": "lab", "cores": 16, "versions": {"torch": "2.11.0"}}


def events(tokens, kld=None, machine=H200, source="hub", about="the English text"):
    values = {} if kld is None else {"kld_mean": kld, "top1_agreement": 0.9}
    return (
        Loaded(1, 1.0, {"source": source, "config": {"vocab_size": 9}}, machine),
        Output(2, 0, "hello", tuple(tokens), tuple("abcdefgh"[: len(tokens)])),
        Score(3, values, {}, about),
        Departure(4, 0, 1, 5, 6, "x", "y", 0.5, 0.4),
        Done(5),
    )


def pick(spec, seen, baseline=None, experiment="One"):
    own, theirs = (spec, seen), baseline or (spec, seen)
    document = result(*own, None if baseline is None else theirs)
    return Picked(spec, seen, experiment, theirs[0], document)


def test_matching_tokens_are_counted_anew_and_divergence_from_another_baseline_is_not_shown():
    other = BASE.replace(knobs={"precision": "bf16"}, label="bf16")
    far = BASE.replace(knobs={"precision": "fp16"}, label="fp16")
    first = pick(BASE, events([1, 2, 3, 4]))
    same = pick(other, events([1, 2, 3, 9], 0.1), (BASE, events([1, 2, 3, 4])))
    foreign = pick(other.replace(label="other"), events([1, 2, 7, 8], 0.2), (far, events([5])), "Two")
    found = side_by_side([first, same, foreign])
    values = [run["metrics"]["matching_tokens"]["value"] for run in found.results]
    assert values == [None, 3, 2]
    assert found.results[1]["metrics"]["kld_mean"]["value"] == 0.1
    refused = found.results[2]["metrics"]["kld_mean"]
    assert (refused["value"], refused["kind"], refused["unit"]) == (None, "not_available", "nats")
    assert refused["reason"] == "measured against another baseline than the first run's: fp16 of “Two”, not fp32 of “One”"
    assert [len(run["departures"]) for run in found.results] == [1, 1, 0]
    assert found.warnings == []


def test_variants_of_one_baseline_keep_their_figures_without_it_and_a_note_says_against_what():
    base = (BASE, events([1, 2]))
    one, two = (
        pick(BASE.replace(knobs={"precision": name}, label=name), events([1, 2], kld), base) for name, kld in (("bf16", 0.1), ("fp16", 0.2))
    )
    found = side_by_side([one, two])
    assert [run["metrics"]["kld_mean"]["value"] for run in found.results] == [0.1, 0.2]
    assert found.warnings == ["Quality is measured against fp32 of “One”, and not against the first of these runs."]
    text = pick(two.spec, events([1, 2], 0.2, about="a text of mine"), base)
    assert side_by_side([one, text]).results[1]["metrics"]["kld_mean"]["reason"].startswith("measured on another text")
    lone = pick(BASE.replace(knobs={"precision": "fp16"}, label="fp16"), events([1, 2]), experiment="Two")  # a baseline of its own
    assert "another baseline" in side_by_side([pick(*base), lone]).results[1]["metrics"]["kld_mean"]["reason"]


def test_what_differs_is_named_with_both_values_and_whose_they_are():
    epyc = {**H200, "gpu": None, "cpu": "AMD EPYC", "host": "laptop", "versions": {"torch": "2.13.0"}}
    longer = dataclasses.replace(BASE.workload, max_new_tokens=8)
    runs = [
        pick(BASE, events([1])),
        pick(BASE.replace(label="again"), events([1])),
        pick(BASE.replace(workload=longer), events([1], machine=epyc, source="a folder"), experiment="Two"),
    ]
    found = side_by_side(runs)
    assert found.warnings == [
        "Machine differs: NVIDIA H200 (Baseline, B) and AMD EPYC (C).",
        "Model source differs: hub (Baseline, B) and a folder (C).",
        "Version of torch differs: 2.11.0 (Baseline, B) and 2.13.0 (C).",
        "Number of new tokens differs: 64 (Baseline, B) and 8 (C).",
    ]
    assert found.names == ["Baseline: fp32 (One)", "B: again", "C: fp32 (Two)"]
    texts = [BASE.replace(protocol=Protocol(text="same beginning " * 9 + end)) for end in ("a", "bcd")]
    said = side_by_side([pick(spec, events([1])) for spec in texts]).warnings[0]
    assert said.startswith("Evaluation text differs: same beginning")
    assert "(138 characters)" in said
    assert "(140 characters)" in said
    prompts = [BASE.replace(workload=Workload(prompts=given)) for given in (("a",), ("a", "b"))]
    assert side_by_side([pick(spec, events([1])) for spec in prompts]).warnings == [
        "Set of prompts differs: a (Baseline) and 2 beginning with a (B)."
    ]


def test_runs_whose_events_are_gone_are_shown_as_they_were_and_unexplained():
    gone = dataclasses.replace(pick(BASE, events([1, 2]), (BASE, events([1, 2]))), events=None)
    shown = side_by_side([pick(BASE, events([1, 2])), gone]).results[1]
    assert shown["metrics"]["matching_tokens"]["kind"] == "not_available"
    assert "events cannot be read" in shown["verdict"]["sentence"]
    for number in (1, 9):
        with pytest.raises(Problem, match="Choose 2 to 8 runs"):
            side_by_side([gone] * number)


def test_runs_are_picked_from_the_store_with_their_events_and_their_baseline(tmp_path):
    store, seen = Store(tmp_path / "a.sqlite"), events([1, 2])
    experiment = store.create("One", [BASE, BASE.replace(label="b"), BASE.replace(label="c")])
    for index in (0, 1):
        store.begin(experiment, index)
        store.append(experiment, index, seen)
        store.finish(experiment, index, result(BASE, seen))
    one = picked(store.load(experiment), 1)
    assert (one.spec.label, one.baseline.label, one.experiment, one.events) == ("b", "fp32", "One", seen)
    with pytest.raises(Problem, match="Run 3 of “One” has no result"):
        picked(store.load(experiment), 2)
