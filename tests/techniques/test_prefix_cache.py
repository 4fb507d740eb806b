"""Prefix caching: the same text with and without it, less to compute, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from playground.core.engine import Batch
from playground.core.events import BatchEnd, BatchStart, Counts, Done, Tick
from playground.core.machine import Machine
from playground.core.plan import Plan, complete, plan_for
from playground.core.problem import Problem
from playground.core.spec import DEFAULT_MODEL, RunSpec
from playground.engines import engine_class
from playground.measure.machine import probe
from playground.measure.metrics import METRICS
from playground.measure.trace import Trace
from playground.techniques import techniques
from playground.techniques.prefix_cache import shared_prefix

Rows = tuple[tuple[int, ...], ...]
PROMPTS: Rows = ((5, 6, 7, 8, 9, 10, 11), (5, 6, 7, 8, 12), (5, 6, 7, 8, 9, 13, 14, 15, 16))


def plan(model: str = "shape:tiny", **knobs: Any) -> Plan:
    spec = RunSpec(model=model, device="cpu", knobs={"precision": "fp32", **knobs})
    return plan_for(spec, techniques(), engine_class("transformers"), probe())


def loaded(model: str) -> Any:
    engine = engine_class("transformers")()
    engine.load(plan(model), lambda event: None)
    return engine


@pytest.fixture(scope="module")
def tiny() -> Iterator[Any]:
    engine = loaded("shape:tiny")
    yield engine
    engine.close()


def written(engine: Any, rows: Rows, tokens: int = 24, prompts: Rows = PROMPTS, **knobs: Any) -> list[list[int]]:
    engine.setup(plan(batch_size=len(rows), **knobs))
    engine.know(prompts)
    ticks = list(engine.generate(Batch(rows, tokens)))
    return [[token for tick in ticks for token in tick.tokens[row]] for row in range(len(rows))]


@pytest.mark.parametrize("kv_cache", ["dynamic", "static"])
def test_the_text_is_the_same_alone_and_in_a_batch_whose_rests_differ_in_length(tiny: Any, kv_cache: str) -> None:
    plain = [written(tiny, (row,))[0] for row in PROMPTS]
    assert written(tiny, PROMPTS, prefix_cache=True, kv_cache=kv_cache) == plain
    assert [written(tiny, (row,), prefix_cache=True, kv_cache=kv_cache)[0] for row in PROMPTS] == plain


@pytest.mark.slow
def test_the_default_model_answers_the_same_in_fp32() -> None:
    engine = loaded(DEFAULT_MODEL)
    text = "A parrot lives on a ship. It is green, it is forty years old and it speaks three languages. "
    prompts = tuple(engine.prepare(text + end, True)[1] for end in ("What colour is it?", "How many languages does the parrot speak?"))
    plain = written(engine, prompts, 12, prompts)
    assert written(engine, prompts, 12, prompts, prefix_cache=True) == plain
    assert len(engine.options.run.fill.tokens) > 40, "the text must be in the prefix"
    engine.close()


def test_later_requests_compute_only_what_follows_the_prefix(tiny: Any) -> None:
    tiny.setup(plan(prefix_cache=True))
    sizes: list[int] = []
    hook = tiny.model.register_forward_pre_hook(lambda m, args, given: sizes.append(given["input_ids"].shape[1]), with_kwargs=True)
    tiny.know(PROMPTS)
    assert sizes == [4], "the prefix is computed before any request, so that it is in no time to first token"
    for row in PROMPTS:
        list(tiny.generate(Batch((row,), 1)))
    hook.remove()
    assert sizes == [4, 3, 1, 5]  # then each rest


def test_the_prefix_is_reported_with_its_real_bytes_and_the_rows_that_used_it(tiny: Any) -> None:
    written(tiny, PROMPTS, prefix_cache=True)
    used = plan(prefix_cache=True)
    technique = techniques()["prefix_cache"]
    counts = tiny.counts(technique, used)
    layers, heads, size, width = 2, 2, 16, 4  # shape:tiny in fp32
    assert (counts["prefix_tokens"], counts["prefix_bytes"]) == (4, 2 * layers * heads * size * width * 4)
    assert counts["prefix_s"] > 0
    found = tiny.evidence(technique, used)
    assert found.ok
    assert "the first 4 tokens of all 3 prompts" in found.text
    assert "computed 12 tokens fewer" in found.text
    assert tiny.evidence(techniques()["batching"], plan(batch_size=3)).text.startswith("the first forward pass carried 3 rows of 5 tokens")


def test_a_row_with_another_beginning_is_computed_in_full_and_is_no_proof(tiny: Any) -> None:
    other = ((20, 21, 22, 23, 24, 25),)
    plain = written(tiny, other)
    assert written(tiny, other, prefix_cache=True) == plain
    assert not tiny.evidence(techniques()["prefix_cache"], plan(prefix_cache=True)).ok


@pytest.mark.parametrize(("prompts", "sentence"), [(((1, 2, 3),), "at least two prompts"), (((1, 2), (3, 2)), "no token in common")])
def test_prompts_without_a_common_beginning_are_refused_with_the_way_out(tiny: Any, prompts: Rows, sentence: str) -> None:
    with pytest.raises(Problem, match=sentence) as caught:
        written(tiny, prompts[:1], prompts=prompts, prefix_cache=True)
    assert caught.value.kind == "user"


def test_the_last_token_of_the_shortest_prompt_is_never_in_the_prefix() -> None:
    assert shared_prefix(((1, 2, 3), (1, 2, 3))) == (1, 2)
    assert shared_prefix(((1, 2, 3, 4), (1, 2))) == (1,)
    assert shared_prefix(((1, 2, 3, 4), (1, 2, 5, 4))) == (1, 2)


def test_a_cache_that_is_not_kept_and_the_engine_graph_are_refused() -> None:
    with pytest.raises(Problem, match="Set kv_cache to dynamic or static"):
        complete(RunSpec(knobs={"prefix_cache": True, "kv_cache": "off"}), techniques())
    graph = RunSpec(model="shape:tiny", engine="graph", device="cpu", knobs={"prefix_cache": True})
    with pytest.raises(Problem, match="choose the engine transformers"):
        plan_for(graph, techniques(), engine_class("graph"), Machine("h", "cpu", 2, 8, 4, packages={"torch": "2", "transformers": "5"}))


def test_its_metrics_are_the_counted_ones_and_say_why_they_are_missing() -> None:
    events = [
        BatchStart(0, "timed", 0, (0,), (400,)),
        Tick(10, ((1,),)),
        BatchEnd(10),
        Counts(20, {"prefix_tokens": 300, "prefix_bytes": 6000, "prefix_s": 0.5}),
        Done(30),
    ]
    trace = Trace.of(RunSpec(), events)
    found = {name: METRICS[name].measure(trace, None) for name in ("prefix_tokens", "prefix_share", "prefix_bytes", "prefix_s")}
    assert found == {"prefix_tokens": 300, "prefix_share": 0.75, "prefix_bytes": 6000, "prefix_s": 0.5}
    assert "no common beginning" in METRICS["prefix_share"].measure(Trace.of(RunSpec(), events[:3]), None).reason  # type: ignore[union-attr]
