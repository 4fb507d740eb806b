"""What every technique must keep; parametrised by the registry, so that a new file is tested without editing this one."""

from __future__ import annotations

from typing import Any

import pytest

from playground.core.engine import Batch, Engine
from playground.core.knobs import Choice, Range, Text, Toggle
from playground.core.plan import Plan, complete, full_knobs, knob_index, load_key, missing, ordered, plan_for
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.technique import Footprint, Technique
from playground.engines import engines
from playground.measure.machine import probe
from playground.measure.metrics import METRICS
from playground.techniques import techniques

ALL = ordered(techniques())
REAL = [engine for engine in engines().values() if not engine.any_technique]
CASES = [
    pytest.param(engine, technique, dict(case), id=f"{engine.name}-{technique.name}-{'-'.join(map(str, case.values()))}")
    for engine in REAL
    for technique in ALL
    if engine.supports(technique)
    for case in technique.cases
]


def tiny_plan(engine: type[Engine], knobs: dict[str, Any]) -> Plan:
    spec = RunSpec(model="shape:tiny", engine=engine.name, device="cpu", knobs={"precision": "fp32", **knobs})
    return plan_for(spec, techniques(), engine, probe())


@pytest.mark.parametrize("technique", ALL, ids=lambda t: t.name)
def test_a_technique_and_its_knobs_are_explained_in_sentences(technique: Technique) -> None:
    for text in (technique.explain.what, technique.explain.helps, technique.explain.costs, *(knob.help for knob in technique.knobs)):
        assert len(text) > 20
        assert text.endswith(".")
    assert technique.title
    assert technique.group
    for knob in technique.knobs:
        assert knob.label
        assert knob.parse(knob.default) == knob.default


def test_no_two_techniques_share_a_place_in_the_order_of_application() -> None:
    assert len({technique.order for technique in ALL}) == len(ALL)


@pytest.mark.parametrize("technique", ALL, ids=lambda t: t.name)
def test_a_technique_proves_itself_in_every_engine_that_supports_it(technique: Technique) -> None:
    supporting = [engine for engine in REAL if engine.supports(technique)]
    assert supporting
    for engine in supporting:
        assert engine.method(technique, "evidence_for"), f"{technique.name} has no evidence for the engine {engine.name}"


@pytest.mark.parametrize("technique", ALL, ids=lambda t: t.name)
def test_cases_cover_every_option_and_are_legal(technique: Technique) -> None:
    for knob in technique.knobs:
        tried = {case.get(knob.name, knob.default) for case in technique.cases}
        if isinstance(knob, Choice) and not knob.advanced:
            assert tried | {knob.default} == set(knob.options)
        assert isinstance(knob, Range) or tried
    for case in technique.cases:
        complete(RunSpec(knobs=case), techniques())


@pytest.mark.parametrize("technique", ALL, ids=lambda t: t.name)
def test_expectations_name_metrics_that_exist_and_turn_round_with_the_pair(technique: Technique) -> None:
    full = [complete(RunSpec(knobs=case), techniques()).knobs for case in (*technique.cases, {})]
    other = {"up": "down", "down": "up", "same": "same"}
    for knobs in full:
        assert technique.expect(knobs, knobs) == {}
        assert isinstance(technique.footprint(knobs, Footprint()), Footprint)
        for before in full:
            effects = technique.expect(knobs, before)
            assert set(effects) <= set(METRICS)
            back = technique.expect(before, knobs)
            for metric, effect in effects.items():
                compares = metric in ("kld_mean", "top1_agreement")  # against the baseline, whichever that is
                assert back[metric] == (effect if compares else other[effect])


@pytest.mark.parametrize("technique", ALL, ids=lambda t: t.name)
def test_a_technique_expects_something_of_each_pair_of_its_options(technique: Technique) -> None:
    first = technique.knobs[0]
    options = first.options if isinstance(first, Choice) else {Toggle: (False, True), Text: ("", "shape:tiny")}.get(type(first), (1, 3))
    full = complete(RunSpec(knobs={}), techniques()).knobs
    for option in options:
        for before in options:
            effects = technique.expect({**full, first.name: option}, {**full, first.name: before})
            assert bool(effects) == (option != before)


@pytest.mark.parametrize(("kind", "technique", "case"), CASES)
def test_a_case_runs_on_a_tiny_model_and_its_evidence_holds(kind: type[Engine], technique: Technique, case: dict[str, Any]) -> None:
    if reason := missing(technique, full_knobs(case, techniques(), kind.defaults("cpu")), kind, probe(), "cpu"):
        assert reason.endswith(".")
        with pytest.raises(Problem) as caught:
            tiny_plan(kind, case)
        assert (caught.value.kind, caught.value.message) == ("unsupported", f"{technique.title}: {reason}")
        return
    plan = tiny_plan(kind, case)
    engine = kind()
    engine.load(plan, lambda event: None)
    engine.setup(plan)
    words = (*range(512), 7, 8, 9, 10)  # each token of the model, so that whatever it says can be looked up in the prompt
    rows = tuple(words[: 514 + row % 3] for row in range(int(plan.spec.knobs["batch_size"])))
    engine.know((*rows, words))
    ticks = list(engine.generate(Batch(rows, 4)))
    assert [sum(len(tick.tokens[row]) for tick in ticks) for row in range(len(rows))] == [4] * len(rows)
    for each in plan.techniques:
        finding = engine.evidence(each, plan)
        assert finding.ok, f"{each.name}: {finding.text}"
        assert any(character.isdigit() for character in finding.text) or "no cache" in finding.text
    engine.close()


@pytest.mark.parametrize("kind", REAL, ids=lambda kind: kind.name)
def test_evidence_fails_when_the_model_is_not_what_was_asked_for(kind: type[Engine]) -> None:
    engine = kind()
    plan = tiny_plan(kind, {})
    engine.load(plan, lambda event: None)
    engine.setup(plan)
    list(engine.generate(Batch(((7, 8),), 3)))
    has = plan.spec.knobs
    for technique in plan.techniques:
        names = [knob.name for knob in technique.knobs]
        for case in technique.cases:
            wrong = {**has, **{name: case[name] for name in names if name in case}}
            if wrong == has or missing(technique, wrong, kind, probe(), "cpu"):
                continue
            finding = engine.method(technique, "evidence_for")(wrong, engine)
            assert not finding.ok, f"{technique.name} found proof of {case}, which is not there: {finding.text}"


def test_no_two_techniques_share_a_knob() -> None:
    names = [knob.name for technique in ALL for knob in technique.knobs]
    assert len(names) == len(set(names)) == len(knob_index(techniques()))


def test_a_pair_that_excludes_itself_is_refused_with_the_way_out() -> None:
    with pytest.raises(Problem, match="Set precision to fp16") as caught:
        complete(RunSpec(knobs={"quantization": "int8", "precision": "bf16"}), techniques())
    assert caught.value.kind == "user"


def test_a_value_without_effect_is_refused() -> None:
    with pytest.raises(Problem, match="applies to nf4 and fp4"):
        complete(RunSpec(knobs={"double_quantization": True}), techniques())


def test_run_time_knobs_share_a_worker_and_load_time_knobs_do_not() -> None:
    def key(**knobs: Any) -> str:
        return load_key(complete(RunSpec(knobs=knobs), techniques()), techniques())

    assert key(kv_cache="off", batch_size=4) == key()
    assert key(precision="fp32") != key()
