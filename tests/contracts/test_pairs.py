"""Techniques meet: each pair, in every engine, runs with the evidence of all true, or is refused in a sentence. From the registries. On a
machine with a GPU there as well as on its CPU."""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from playground.core.engine import Batch, Engine
from playground.core.plan import Plan, load_key, ordered, plan_for
from playground.core.problem import Problem
from playground.core.spec import RunSpec, Workload
from playground.core.technique import Technique
from playground.engines import engines
from playground.measure.machine import probe
from playground.techniques import techniques

KINDS = [engine for engine in engines().values() if not engine.any_technique]
ACTIVE = {technique: [case for case in technique.cases if technique.active(case)] for technique in ordered(techniques())}
PAIRS = list(itertools.combinations(ACTIVE, 2))
WORDS = tuple(range(512))  # each token of the model, so that whatever it says can be looked up in the prompt
PROMPTS = ((*WORDS, 7, 8, 9), (*WORDS, 7, 8), (*WORDS, 7, 8, 10, 11))  # with a common start
KEPT = 4  # loaded engines
MACHINE = probe()
DEVICES = ["cpu", *([pytest.param("cuda", marks=pytest.mark.gpu)] if MACHINE.device == "cuda" else [])]
# Pairs that a reader would try first; that they run is not left to what happens to be planned.
RUN = [
    ("transformers", {"kv_cache": "static", "compile": "default"}),
    ("transformers", {"kv_cache": "quantized", "kv_bits": "2", "batch_size": 3}),
    ("transformers", {"quantization": "nf4", "adapter": "random:4", "adapter_mode": "unmerged"}),
    ("transformers", {"prune": "mlp_width", "kv_cache": "static"}),
    ("transformers", {"torchao": "int8_weight_only", "precision": "bf16", "batch_size": 3}),
    ("graph", {"weight_only": "int4", "adapter": "random:4", "kv_cache": "static"}),
    ("graph", {"weight_only": "int8", "batch_size": 3, "kv_cache": "static"}),
]
Case = Mapping[str, Any]


@pytest.fixture(autouse=True)
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled steps run as torch traced them: what compilers make of that takes long, and is tested elsewhere."""
    import torch._inductor.compile_fx as compiler

    monkeypatch.setattr(compiler, "compile_fx", lambda graph, inputs, **settings: graph)


@pytest.fixture(scope="module")
def loaded() -> Iterator[OrderedDict[str, Engine]]:
    """Engines by what they were loaded with, the last few."""
    import torch

    kept: OrderedDict[str, Engine] = OrderedDict()
    yield kept
    for engine in kept.values():
        engine.close()
    torch._dynamo.reset()  # what was traced here is not what others would compile


def planned(kind: type[Engine], device: str, knobs: Case) -> Plan | Problem:
    """The plan, or why there is none."""
    try:
        return plan_for(RunSpec("shape:tiny", kind.name, device, dict(knobs)), techniques(), kind, MACHINE)
    except Problem as problem:
        return problem


def cases_of(first: Technique, second: Technique) -> list[tuple[Case, Case]]:
    """Pairs of cases that do not set the same knob to different values."""
    both = itertools.product(ACTIVE[first], ACTIVE[second])
    return [(a, b) for a, b in both if all(a[name] == b[name] for name in a.keys() & b.keys())]


@functools.cache
def all_planned(kind: type[Engine], device: str, first: Technique, second: Technique) -> list[Plan | Problem]:
    """What comes of each pair of their cases."""
    return [planned(kind, device, {**b, **a}) for a, b in cases_of(first, second)]


def chosen(kind: type[Engine], device: str, first: Technique, second: Technique) -> Plan | Problem | None:
    """One plan of the pair, another from pair to pair; a refusal where all are refused. What proves itself by compiled kernels or their
    CUDA graphs is left out, since nothing is compiled here."""
    found = all_planned(kind, device, first, second)
    plans = [plan for plan in found if isinstance(plan, Plan) and not _proves_by_compiling(plan)]
    turn = list(ACTIVE).index(first) + list(ACTIVE).index(second)
    return plans[turn % len(plans)] if plans else next((one for one in found if isinstance(one, Problem)), None)


def _proves_by_compiling(plan: Plan) -> bool:
    return plan.spec.knobs["compile"] == "reduce_overhead" or plan.spec.knobs["attention"] == "flex"


def engine_for(plan: Plan, kind: type[Engine], kept: OrderedDict[str, Engine]) -> Engine:
    key = load_key(plan.spec, techniques())
    if key not in kept:
        while len(kept) >= KEPT:
            kept.popitem(last=False)[1].close()
        engine = kind()
        engine.load(plan, lambda event: None)
        kept[key] = engine
    kept.move_to_end(key)
    return kept[key]


def run(plan: Plan, kind: type[Engine], kept: OrderedDict[str, Engine]) -> Problem | None:
    """Generates, and holds tokens and evidence to the plan; a refusal on the way is returned."""
    knobs, work = plan.spec.knobs, Workload(("a", "b", "c"), max_new_tokens=4)
    try:
        engine = engine_for(plan, kind, kept)
        engine.setup(plan)
        engine.know(PROMPTS)
        own = next((found for technique in plan.techniques if (found := technique.batches(knobs, work, PROMPTS))), None)
        rows = tuple(PROMPTS[row % len(PROMPTS)] for row in range(int(knobs["batch_size"])))
        batch = own[0][1] if own else Batch(rows, 4)
        if engine.compiles(plan):
            engine.compile(batch)
        ticks = list(engine.generate(batch))
    except Problem as problem:
        return problem
    wanted = batch.row_tokens or (4,) * len(batch.token_ids)
    assert [sum(len(tick.tokens[row]) for tick in ticks) for row in range(len(wanted))] == list(wanted)
    for technique in plan.techniques:
        finding = engine.evidence(technique, plan)
        assert finding is None or finding.ok, f"{technique.name} with {dict(knobs)}: {finding.text}"
    return None


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda technique: technique.name)
def test_every_pair_of_settings_is_planned_or_refused_in_a_sentence(
    first: Technique, second: Technique, kind: type[Engine], device: str
) -> None:
    for found in all_planned(kind, device, first, second):
        if isinstance(found, Problem):
            assert found.kind in ("user", "unsupported")
            assert found.message.endswith("."), found.message


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda technique: technique.name)
def test_a_pair_that_is_not_refused_runs_with_all_its_evidence(
    first: Technique, second: Technique, kind: type[Engine], device: str, loaded: OrderedDict[str, Engine]
) -> None:
    plan = chosen(kind, device, first, second)
    if not isinstance(plan, Plan):
        return  # refused, as the test above has seen
    if refused := run(plan, kind, loaded):
        assert refused.kind in ("user", "unsupported"), refused
        assert refused.message.endswith("."), refused.message


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "knobs"), RUN, ids=str)
def test_pairs_that_a_reader_would_try_first_run(name: str, knobs: Case, device: str, loaded: OrderedDict[str, Engine]) -> None:
    plan = planned(engines()[name], device, knobs)
    if isinstance(plan, Problem) and any(word in plan.message for word in ("pip install", "compiler")):
        pytest.skip(plan.message)
    assert isinstance(plan, Plan), plan
    assert run(plan, engines()[name], loaded) is None


@pytest.mark.parametrize(("name", "at_least"), [("transformers", 80), ("graph", 25)])
def test_most_pairs_are_not_refused(name: str, at_least: int) -> None:
    plans = [plan for first, second in PAIRS if isinstance(plan := chosen(engines()[name], "cpu", first, second), Plan)]
    assert len(plans) >= at_least


def test_speculation_with_several_rows_is_refused_with_the_way_out() -> None:
    found = planned(engines()["transformers"], "cpu", {"speculative": "prompt_lookup", "batch_size": 3})
    assert isinstance(found, Problem)
    assert "batch" in found.message
