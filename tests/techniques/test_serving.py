"""Requests that arrive over time: who waits for whom, what is computed for nobody, and the same text whichever way they are served."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from playground.core import events as ev
from playground.core.engine import Batch
from playground.core.plan import Plan, complete, plan_for
from playground.core.problem import Problem
from playground.core.spec import Protocol, RunSpec, Workload
from playground.engines import engine_class
from playground.measure.machine import probe
from playground.measure.metrics import derive
from playground.measure.quality import score_quality
from playground.measure.trace import Trace
from playground.results.timeline_chart import requests_of, timeline
from playground.run.failures import from_exception
from playground.run.passes import Stopped
from playground.techniques import techniques

SERVING = techniques()["serving"]
PROMPTS = ((5, 6, 7), (8, 9, 10, 11, 12), (13,))
BATCH = Batch((*PROMPTS, PROMPTS[0]), 9, row_tokens=(9, 2, 5, 7), arrivals_s=(0.0, 0.0, 0.0, 0.0))


def plan(**knobs: Any) -> Plan:
    spec = RunSpec("shape:tiny", device="cpu", knobs={"precision": "fp32", **knobs})
    return plan_for(spec, techniques(), engine_class("transformers"), probe())


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    loaded = engine_class("transformers")()
    loaded.load(plan(), lambda event: None)
    yield loaded
    loaded.close()


def answers(engine: Any, batch: Batch, **knobs: Any) -> list[list[int]]:
    engine.setup(plan(**knobs))
    rows: list[list[int]] = [[] for _ in batch.token_ids]
    for tick in engine.generate(batch):
        for row, tokens in zip(rows, tick.tokens, strict=True):
            row += tokens
    return rows


def counts(engine: Any, **knobs: Any) -> dict[str, float]:
    found = dict(SERVING.counts_for_transformers(plan(**knobs).spec.knobs, engine))  # type: ignore[attr-defined]
    found.pop("served_passes", None)
    return found


@pytest.fixture(scope="module")
def alone(engine: Any) -> list[list[int]]:
    """What each request gets when nothing else runs."""
    return [answers(engine, Batch((ids,), new))[0] for ids, new in zip(BATCH.token_ids, BATCH.row_tokens, strict=True)]


def test_one_by_one_computes_nothing_for_nobody(engine: Any, alone: list[list[int]]) -> None:
    assert answers(engine, BATCH, serving="one_by_one") == alone
    # Each prompt, and each token but the last of its row, goes through the model once: 3 + 8, 5 + 1, 1 + 4, 3 + 6.
    assert counts(engine, serving="one_by_one") == {"rows_together": 1.0, "places_computed": 31.0, "places_useful": 31.0}


def test_a_static_batch_pads_and_runs_to_its_longest_row(engine: Any, alone: list[list[int]]) -> None:
    assert answers(engine, BATCH, serving="batches", batch_size=3) == alone
    # Three rows padded to 5 tokens and 8 more steps of 3 rows, then one row of 3 + 6: 15 + 24 + 9 = 48, of which 31 are of use.
    assert counts(engine, serving="batches", batch_size=3) == {"rows_together": 3.0, "places_computed": 48.0, "places_useful": 31.0}


def test_continuous_batching_gives_the_same_text_and_stays_within_its_rows(engine: Any, alone: list[list[int]]) -> None:
    knobs = {"serving": "continuous", "batch_size": 3}
    assert answers(engine, BATCH, **knobs) == alone
    found = counts(engine, **knobs)
    assert 2 <= found["rows_together"] <= 3
    assert found["places_useful"] == 31.0
    assert SERVING.evidence_for_transformers(plan(**knobs).spec.knobs, engine).ok  # type: ignore[attr-defined]
    for name in ("batching", "kv_cache"):
        assert techniques()[name].evidence_for_transformers(plan(**knobs).spec.knobs, engine).ok  # type: ignore[attr-defined]
    assert [list(tick.tokens) for tick in engine.generate(Batch(PROMPTS[:1], 2))], "a second pass uses the same thread and cache"


def test_what_the_warm_up_counted_is_forgotten_and_reused_places_are_not_called_padding(engine: Any) -> None:
    answers(engine, BATCH, serving="one_by_one")
    engine.reset_peaks()
    assert counts(engine, serving="one_by_one") == {}
    answers(engine, BATCH, serving="batches", batch_size=3, kv_cache="off")
    assert counts(engine, serving="batches", batch_size=3, kv_cache="off") == {"rows_together": 3.0}


def test_a_stopped_pass_of_continuous_batching_leaves_the_next_one_right(engine: Any, alone: list[list[int]]) -> None:
    engine.setup(plan(serving="continuous", batch_size=3))
    steps = engine.generate(BATCH)
    next(steps)
    steps.close()
    rows: list[list[int]] = [[] for _ in BATCH.token_ids]
    for tick in engine.generate(BATCH):
        for row, tokens in zip(rows, tick.tokens, strict=True):
            row += tokens
    assert rows == alone


@pytest.mark.parametrize(("kind", "size"), [("one_by_one", 1), ("continuous", 2)])
def test_stop_is_heard_while_a_request_has_not_arrived(engine: Any, monkeypatch: pytest.MonkeyPatch, kind: str, size: int) -> None:
    engine.setup(plan(serving=kind, batch_size=size))
    answered: list[Any] = []

    def stop() -> None:  # once the first request is answered in full, in however many ticks
        if sum(len(tick.tokens[0]) for tick in answered) == 2:
            raise Stopped

    monkeypatch.setattr(engine, "check", stop)
    ticks = engine.generate(Batch(PROMPTS[:2], 2, arrivals_s=(0.0, 1e6)))
    with pytest.raises(Stopped):
        collections.deque(map(answered.append, ticks))


def test_what_a_stopped_pass_of_continuous_batching_had_not_answered_is_given_up(engine: Any) -> None:
    engine.setup(plan(serving="continuous", batch_size=2))
    steps = engine.generate(Batch(PROMPTS[:2], 1500))
    next(steps)
    manager = engine.options.run.closing[-1].__self__.manager
    steps.close()
    end = time.monotonic() + 60
    while manager.batch_processor.has_pending_requests():
        assert time.monotonic() < end, "nobody gave them up"
        time.sleep(0.01)
    assert engine.options.run.counts["served_passes"] < 1000


def test_memory_that_runs_out_in_the_thread_of_continuous_batching_is_told_as_that(
    engine: Any, monkeypatch: pytest.MonkeyPatch, alone: list[list[int]]
) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    knobs = {"serving": "continuous", "batch_size": 3}
    engine.setup(plan(**knobs))
    with monkeypatch.context() as patch:
        patch.setattr(engine.model, "forward", full)
        with pytest.raises(RuntimeError) as caught:
            list(engine.generate(BATCH))
    failed = from_exception(caught.value)
    assert (failed.kind, "20.00 MiB" in failed.message) == ("oom", True)
    assert answers(engine, BATCH, **knobs) == alone, "the next run works"


def test_quality_of_continuous_batching_is_not_that_of_another_pass(engine: Any) -> None:
    engine.setup(plan(serving="continuous", batch_size=2))
    values, missing, _ = score_quality(engine, Protocol(text="What is this?"))
    assert values == {}
    assert all("passes of its own over its paged cache" in missing[name] for name in ("ppl", "kld_mean", "kld_mean_floor"))


def test_nobody_is_answered_before_arriving(engine: Any) -> None:
    late = Batch(PROMPTS[:2], 2, arrivals_s=(0.0, 0.3))
    for kind, size in (("one_by_one", 1), ("batches", 2), ("continuous", 2)):
        engine.setup(plan(serving=kind, batch_size=size))
        list(engine.generate(late))  # what is slow the first time
        ticks = list(engine.generate(late))
        first, second = (next(tick.t_ns for tick in ticks if tick.tokens[row]) for row in (0, 1))
        assert second - first > 0.15e9, kind


def test_draws_are_refused_where_the_schedule_cannot_follow_them(engine: Any) -> None:
    engine.setup(plan(serving="continuous", batch_size=2))
    with pytest.raises(Problem, match="set the temperature to 0"):
        list(engine.generate(Batch(PROMPTS[:1], 2, temperature=0.7)))


@pytest.mark.parametrize(
    ("knobs", "way_out"),
    [
        ({"serving": "one_by_one", "batch_size": 2}, "set the batch size to 1"),
        ({"serving": "continuous", "kv_cache": "off"}, "set the KV cache to dynamic"),
        ({"requests": 5}, "applies where serving is on"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_way_out(knobs: dict[str, Any], way_out: str) -> None:
    with pytest.raises(Problem, match=way_out):
        plan(**knobs)


def test_arrivals_and_lengths_follow_the_seed_and_stay_in_their_bounds() -> None:
    knobs = complete(RunSpec(knobs={"serving": "batches", "requests": 40, "length_spread": 0.5}), techniques()).knobs

    def drawn(seed: int) -> Batch:
        batches = SERVING.batches(knobs, Workload(("a", "b"), max_new_tokens=20, seed=seed), PROMPTS[:2])
        assert batches is not None
        ((rows, batch),) = batches
        assert rows == tuple(range(40))
        return batch

    first = drawn(1)
    assert first == drawn(1) != drawn(2)
    assert first.arrivals_s[0] == 0
    assert list(first.arrivals_s) == sorted(first.arrivals_s)
    assert first.arrivals_s[-1] == pytest.approx(39 / 2, rel=0.6)  # two a second
    assert min(first.row_tokens) >= 10
    assert max(first.row_tokens) <= 20
    assert first.token_ids[:3] == (PROMPTS[0], PROMPTS[1], PROMPTS[0])


def served() -> Trace:
    """Two requests: at 0 s with tokens at 1 and 3 s, at 2 s with tokens at 3 and 6 s."""
    second = 10**9
    events: list[ev.Event] = [
        ev.BatchStart(10 * second, "timed", 0, (0, 1), (4, 6), (0.0, 2.0)),
        ev.Tick(11 * second, ((1,), ())),
        ev.Tick(13 * second, ((2,), (3,))),
        ev.Tick(16 * second, ((), (4,))),
        ev.BatchEnd(16 * second),
        ev.Counts(17 * second, {"places_computed": 20.0, "places_useful": 12.0, "rows_together": 2.0}),
        ev.Done(17 * second),
    ]
    return Trace.of(RunSpec(), events)


def test_waits_are_counted_from_each_arrival() -> None:
    found = {name: value.value for name, value in derive(served(), None).items()}
    assert found["ttft_s"] == 1.0
    assert found["e2e_s"] == pytest.approx((3 + 4) / 2)
    assert found["request_ttft_p50_s"] == 1.0
    assert found["request_latency_p50_s"] == pytest.approx(3.5)
    assert found["requests_per_s"] == pytest.approx(2 / 6)
    assert found["padding_waste"] == pytest.approx(0.4)
    assert found["rows_together"] == 2
    assert found["mbu"] is None
    assert found["kv_cache_formula_bytes"] is None


def test_the_timeline_shows_each_request_from_its_arrival_to_its_last_token() -> None:
    requests = requests_of(served())
    assert [(item["arrived_s"], item["first_s"], item["last_s"]) for item in requests] == [(0, 1, 3), (2, 3, 6)]
    drawn = timeline([{"requests": requests}, {}], ["A", "B"])
    assert drawn is not None
    waiting, answering = drawn["figure"]["data"]
    assert (waiting["base"], waiting["x"]) == ([0, 2], [1, 1])
    assert (answering["base"], answering["x"]) == ([1, 3], [2, 3])
    assert timeline([{}], ["A"]) is None
