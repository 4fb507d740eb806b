"""torch.compile of the decode step: the same tokens, nothing compiled after its stage, and when it has paid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from playground.core.engine import Batch
from playground.core.events import BatchEnd, BatchStart, Compiled, Counts, Done, Event, Phase, Tick
from playground.core.machine import Machine
from playground.core.plan import Plan, complete, plan_for, refusal
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.engines import engines
from playground.engines.transformers import TransformersEngine
from playground.measure.compilation import METRICS
from playground.measure.machine import probe
from playground.measure.trace import Trace
from playground.measure.values import Missing
from playground.techniques import techniques
from playground.techniques.fusion import no_compiler

TECHNIQUE = techniques()["compiled"]
MEASURE = {metric.name: metric.measure for metric in METRICS}
TINY = Batch(((7, 8, 9), (4,)), 6)
NO_COMPILER = no_compiler(probe(), "cpu")


def plan(**knobs: Any) -> Plan:
    full = {"precision": "fp32", "kv_cache": "static", "batch_size": 2, **knobs}
    return plan_for(RunSpec(model="shape:tiny", device="cpu", knobs=full), techniques(), TransformersEngine, probe())


def tokens(engine: TransformersEngine) -> list[Any]:
    return [tick.tokens for tick in engine.generate(TINY)]


@pytest.fixture(scope="module")
def engine() -> Iterator[TransformersEngine]:
    engine = TransformersEngine()
    engine.load(plan(), lambda event: None)
    yield engine
    engine.close()


@pytest.mark.slow
@pytest.mark.skipif(NO_COMPILER is not None, reason=str(NO_COMPILER))
def test_a_compiled_step_gives_the_eager_tokens_and_is_compiled_once_before_the_passes(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    engine.setup(plan())
    assert not engine.compiles(plan())
    eager = tokens(engine)
    compiled = plan(compile="default")
    engine.setup(compiled)
    assert engine.compiles(compiled)
    assert (engine.compile(TINY) or 0.0) > 0
    assert engine.compile(TINY) is None
    run = engine.compiled_step._run
    monkeypatch.setattr(engine.compiled_step, "_run", lambda **inputs: seen.append((inputs, run(**inputs))) or seen[-1][1])
    assert [tokens(engine), tokens(engine)] == [eager, eager]
    assert engine.counts(TECHNIQUE, compiled) == {"compiled_graphs": 1, "recompiles": 0}
    found = engine.evidence(TECHNIQUE, compiled)
    assert found.ok
    assert found.text.startswith("1 graphs compiled (torch.compile, mode default, 0 breaks), ")
    assert len(seen) == 2 * (TINY.max_new_tokens - 1)
    with pytest.raises(Problem, match="finds no parts of the model"):
        engine.profile(TINY)
    tokens(engine)

    inputs, output = seen[-1]  # the last step again, without torch.compile, on the cache as it was before
    cache = inputs["past_key_values"]
    with torch.inference_mode():
        for layer in cache.layers:
            layer.cumulative_length.sub_(1)
        again = engine.compiled_step._plain(**inputs).logits
    torch.testing.assert_close(output.logits, again, rtol=1e-4, atol=1e-5)

    engine.setup(plan())
    assert "forward" not in vars(engine.model)
    assert tokens(engine) == eager
    assert not engine.evidence(TECHNIQUE, compiled).ok


def test_steps_that_only_seem_to_be_compiled_are_no_proof(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    compiled = plan(compile="default")
    engine.setup(compiled)
    engine.compile(TINY)
    found = engine.evidence(TECHNIQUE, compiled)
    assert engine.compiled_step.calls == 3
    assert (found.ok, found.text[:18]) == (False, "0 graphs compiled ")


def test_quality_is_that_of_the_compiled_step_token_by_token(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tuple(range(3, 23))
    engine.setup(plan())
    plain = engine.score(text)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    engine.setup(plan(compile="default"))
    engine.compiled_step.calls = 0
    torch.testing.assert_close(engine.score(text), plain, rtol=1e-4, atol=1e-5)
    assert engine.compiled_step.calls == len(text) - 1
    with pytest.raises(Problem, match="no other batch shape"):
        engine.score(text, stepwise=True)


def test_one_output_token_has_no_step_to_compile(engine: TransformersEngine) -> None:
    engine.setup(plan(compile="default") if NO_COMPILER is None else plan())
    if NO_COMPILER is None:
        with pytest.raises(Problem, match="ask for two at least") as caught:
            engine.compile(replace(TINY, max_new_tokens=1))
        assert caught.value.kind == "user"


@pytest.mark.parametrize(
    ("knobs", "way_out"),
    [
        ({"kv_cache": "dynamic"}, "Set kv_cache to static, or compile to off."),
        ({"kv_cache": "off"}, "Set kv_cache to static, or compile to off."),
        ({"kv_cache": "static", "quantization": "int8", "precision": "fp16"}, "Set quantization to nf4 or none, or compile to off."),
    ],
)
def test_what_a_graph_cannot_have_is_refused_with_the_way_out(knobs: dict[str, Any], way_out: str) -> None:
    with pytest.raises(Problem) as caught:
        complete(RunSpec(knobs={"compile": "default", **knobs}), techniques())
    assert caught.value.message.startswith("Compile default and ")
    assert caught.value.message.endswith(way_out)


def test_a_cuda_graph_on_a_cpu_and_a_second_compiler_in_the_engine_graph_are_refused() -> None:
    machine = Machine("h", "cpu", 2, 8, 4, packages={"torch": "2", "transformers": "5", "accelerate": "1"})
    for engine, kind, words in (
        ("transformers", "reduce_overhead", "which a CPU does not have: choose default."),
        ("graph", "default", "set fusion"),
    ):
        spec = complete(RunSpec(engine=engine, device="cpu", knobs={"compile": kind, "kv_cache": "static"}), techniques())
        assert words in str(refusal(spec, techniques(), engines()[engine], machine))


def test_a_cpu_without_a_compiler_is_told_to_install_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    machine = Machine("h", "cpu", 2, 8, 4)
    assert "install g++ or clang++" in str(TECHNIQUE.requires({"compile": "default"}, machine, "cpu"))
    assert TECHNIQUE.requires({"compile": "off"}, machine, "cpu") is None


def timed(gap_ms: int) -> list[Event]:
    """One timed pass of one row and three tokens."""
    ticks = [Tick(at * 1_000_000, ((5,),)) for at in (50, 50 + gap_ms, 50 + 2 * gap_ms)]
    return [Phase(0, "timed"), BatchStart(0, "timed", 0, (0,), (3,)), *ticks, BatchEnd(10**9), Phase(10**9, "energy")]


def trace(gap_ms: int, seconds: float | None = None, compiled: bool = True, **counts: float) -> Trace:
    made: list[Event] = [Compiled(0, seconds), Counts(0, counts)] if compiled else []
    return Trace.of(RunSpec(), [*made, *timed(gap_ms), Done(10**12)])


def test_compiling_has_paid_after_its_seconds_by_what_a_token_saves() -> None:
    assert MEASURE["compile_pays_after_tokens"](trace(10, 2.0), trace(30, compiled=False)) == pytest.approx(100)  # 2 s / 20 ms


@pytest.mark.parametrize(
    ("own", "baseline", "reason"),
    [
        (trace(10, compiled=False), trace(30, compiled=False), "nothing is compiled"),
        (trace(10, 2.0), None, "needs a baseline"),
        (trace(10, 2.0), trace(30, 1.0), "the baseline is compiled too"),
        (trace(10, None), trace(30, compiled=False), "used again"),
        (trace(30, 2.0), trace(30, compiled=False), "never pays"),
    ],
)
def test_where_it_never_pays_or_nobody_can_say_the_reason_stands_there(own: Trace, baseline: Trace | None, reason: str) -> None:
    found = MEASURE["compile_pays_after_tokens"](own, baseline)
    assert isinstance(found, Missing)
    assert reason in found.reason


def test_graphs_and_recompiles_are_what_was_counted() -> None:
    own = trace(10, 2.0, compiled_graphs=3, recompiles=1)
    assert [MEASURE[name](own, None) for name in ("compiled_graphs", "recompiles")] == [3, 1]
    assert isinstance(MEASURE["recompiles"](trace(10, compiled=False), None), Missing)
