"""Serving: requests of different lengths that arrive over time, answered one by one, in static batches, or by continuous batching."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from playground.core.engine import Batch
from playground.core.knobs import Choice, Range
from playground.core.spec import Workload
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique, flipped
from playground.techniques.setup import TransformersSetup

RANK = {"one_by_one": 0, "batches": 1, "continuous": 2}  # by how little a request waits for others

UNSCORED = "continuous batching runs passes of its own over its paged cache and gives no log-probabilities of a text"


class Serving(Technique):
    """When a request that has arrived gets its first and its next forward pass."""

    name = "serving"
    title = "Serving"
    group = "Throughput"
    order = 45  # after batching, whose size is the most rows at once
    phase = "run"
    knobs = (
        Choice(
            "serving",
            "Serving",
            ("off", *RANK),
            "off",
            "Requests arrive over time and differ in length. one_by_one: each alone; batches: those that are there run together, at most "
            "the batch size; continuous: transformers' continuous batching lets a request in as soon as there is room.",
        ),
        Range("requests", "Requests", 2, 256, 1, 12, "How many requests arrive; the prompts are repeated in order.", advanced=True),
        Range(
            "requests_per_s",
            "Arrivals a second",
            0.0,
            1000.0,
            0.5,
            2.0,
            "Mean rate; the gaps are drawn from an exponential distribution by the workload's seed. 0: all are there at the start.",
            advanced=True,
        ),
        Range(
            "length_spread",
            "Spread of output lengths",
            0.0,
            0.9,
            0.1,
            0.8,
            "Output lengths are drawn evenly between this share below the workload's output length and that length.",
            advanced=True,
        ),
    )
    explain = Explanation(
        what="Decides which requests are computed together, as they come at any time and end at different lengths. One by one, each waits "
        "for all before it. A static batch runs until its longest row is done, and who comes meanwhile waits for all of it. Continuous "
        "batching decides at every step who is in the batch: a finished row leaves at once, and a waiting request takes its place.",
        helps="Many users at a time: throughput of a batch, with waiting times near those of a free machine. The more the lengths differ, "
        "the larger the gain over static batches, which compute padding and finished rows.",
        costs="Each step is slower for everyone in it, and the KV cache of all rows must fit. With few requests, or none that wait, "
        "it gains nothing, and its bookkeeping costs.",
    )
    cases = (
        {"serving": "one_by_one", "requests": 3, "requests_per_s": 0.0},
        {"serving": "batches", "requests": 4, "requests_per_s": 0.0, "batch_size": 3},
        {"serving": "continuous", "requests": 4, "requests_per_s": 0.0, "batch_size": 3},
    )

    def conflicts(self, knobs: Knobs) -> str | None:
        """One by one is one row."""
        if knobs["serving"] == "one_by_one" and knobs["batch_size"] != 1:
            return "Serving one by one runs one row at a time: set the batch size to 1, or choose batches."
        return None

    def irrelevant(self, knobs: Knobs) -> Mapping[str, str]:
        """Requests come over time only where somebody serves them."""
        if knobs["serving"] != "off":
            return {}
        return dict.fromkeys(("requests", "requests_per_s", "length_spread"), "it applies where serving is on.")

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """Rows that run together share the weights' reading, and nobody who has come waits for whole requests of others."""
        kind, before = str(knobs["serving"]), str(baseline["serving"])
        if kind == before:
            return {}
        if "off" in (kind, before):
            return {"weights_bytes": "same"}
        better = RANK[kind] > RANK[before]
        faster: dict[str, Effect] = {"output_tokens_per_s": "up", "request_ttft_p95_s": "down", "weights_bytes": "same"}
        return faster if better else flipped(faster)

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """Which requests share a step depends on when they come."""
        return replace(footprint, scheduled=knobs["serving"] != "off")

    def batches(self, knobs: Knobs, work: Workload, prompts: Sequence[tuple[int, ...]]) -> list[tuple[tuple[int, ...], Batch]] | None:
        """All requests are one batch, with the time at which each arrives and the tokens that it wants, both drawn by the seed."""
        if knobs["serving"] == "off":
            return None
        rows = tuple(range(int(knobs["requests"])))
        draw, rate, now = random.Random(work.seed), float(knobs["requests_per_s"]), 0.0
        arrivals, lengths = [], []
        for _ in rows:
            arrivals.append(now)
            now += draw.expovariate(rate) if rate else 0.0
            shorter = round(work.max_new_tokens * float(knobs["length_spread"]) * draw.random())
            lengths.append(max(work.max_new_tokens - shorter, 1))
        ids = tuple(prompts[row % len(prompts)] for row in rows)
        sampling = (work.temperature, work.seed, work.top_k, work.top_p)
        return [(rows, Batch(ids, work.max_new_tokens, work.ignore_eos, *sampling, tuple(lengths), tuple(arrivals)))]

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """The schedule decodes in place of the engine, which lends it its token loop."""
        from playground.techniques.schedules import Continuous, Work, count_places, in_batches

        kind, size = str(knobs["serving"]), int(knobs["batch_size"])
        if kind == "off":
            return
        if kind == "continuous":
            setup.run.unscored = UNSCORED
        work = setup.run.seen["serving"] = Work(setup.run.counts)
        many: Continuous | None = None
        counting = False

        def decode(engine: Any, batch: Batch) -> Any:
            nonlocal many, counting
            if not counting:
                counting = True
                setup.run.closing.append(count_places(engine.model, work))
                if kind == "continuous":
                    many = Continuous(engine, size)
                    setup.run.closing.append(many.close)
            if many is not None:
                return many(engine, batch, work)
            return in_batches(engine, batch, work, size)  # one by one is a size of 1: see conflicts

        setup.run.decode = decode

    def refuses_transformers(self, knobs: Knobs, device: str) -> str | None:
        """Continuous batching brings a paged cache, and needs attention that reads one."""
        if knobs["serving"] != "continuous":
            return None
        if knobs["kv_cache"] != "dynamic":
            return f"continuous batching keeps a paged KV cache of its own: set the KV cache to dynamic, not {knobs['kv_cache']}."
        if knobs["attention"] != "sdpa":
            return f"continuous batching reads a paged cache, which attention {knobs['attention']} does not: choose sdpa."
        return None

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Looks at what the forward passes of the first pass carried."""
        kind, work = str(knobs["serving"]), engine.options.run.seen.get("serving")
        if kind == "off":
            return Finding(work is None, "no request waits: 0 of them arrive after the start")
        if work is None or not work.passes:
            return Finding(False, "0 forward passes were seen")
        text = f"{work.passes} forward passes, at most {work.most_rows} requests got a token together"
        return Finding((work.most_rows == 1) if kind == "one_by_one" else work.most_rows <= int(knobs["batch_size"]), text)

    def counts_for_transformers(self, knobs: Knobs, engine: Any) -> Mapping[str, float]:
        """Token places that forward passes computed, and those that were of use. A CUDA graph does not tell what it computes; without a KV
        cache, or with a prefix that is there already, a place is not one token of a request."""
        found = dict(engine.options.run.counts) if "serving" in engine.options.run.seen else {}
        if (knobs["serving"] == "continuous" and engine.options.device == "cuda") or knobs["kv_cache"] == "off" or knobs["prefix_cache"]:
            return {"rows_together": found["rows_together"]} if found else {}
        return found

    def refuses_graph(self, knobs: Knobs, device: str) -> str | None:
        """Rows come and go; a captured step has a fixed number of them."""
        if knobs["serving"] == "off":
            return None
        return "a captured step has a fixed number of rows, and requests that arrive over time change it: choose the engine transformers."


TECHNIQUE = Serving()
