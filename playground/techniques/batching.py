"""Batching: how many sequences one forward pass carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from playground.core.knobs import Range
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique, flipped
from playground.techniques.setup import TransformersSetup


class Batching(Technique):
    """Requests are put together into batches of this size; fewer prompts than rows are repeated."""

    name = "batching"
    title = "Batching"
    group = "Throughput"
    order = 40
    phase = "run"
    common = True
    knobs = (
        Range(
            "batch_size",
            "Batch size",
            1,
            256,
            1,
            1,
            "Sequences in one forward pass. Fewer prompts than this are repeated, more are split into batches.",
            unit="rows",
        ),
    )
    explain = Explanation(
        what="Runs several sequences through each forward pass. Rows of different length are padded to the longest.",
        helps="Decoding one row reads all weights for one token; 32 rows read them once for 32. Throughput rises almost for free until "
        "arithmetic, not memory, is the limit.",
        costs="A KV cache per row, a longer prefill, and a step that gets slower for everyone once the limit is reached.",
    )
    cases = ({"batch_size": 1}, {"batch_size": 3})

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """More rows are more tokens a step, and more work in it."""
        rows, before = int(knobs["batch_size"]), int(baseline["batch_size"])
        if rows == before:
            return {}
        more: dict[str, Effect] = {
            "output_tokens_per_s": "up", "itl_s": "up", "ttft_s": "up", "kv_cache_bytes": "up", "weights_bytes": "same",
        }  # fmt: skip
        return more if rows > before else flipped(more)

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """Rows of KV cache and activations."""
        return replace(footprint, rows=int(knobs["batch_size"]))

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """Nothing to prepare: the run forms the batches, and the engine pads them."""

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Looks at the shape of the first input that the model was given; where requests arrive over time, at how many ran together."""
        if work := engine.options.run.seen.get("serving"):
            most = f"at most {work.most_rows} requests ran together, of {knobs['batch_size']} that may"
            return Finding(work.most_rows <= int(knobs["batch_size"]), most)
        rows, tokens, padding = engine.first_input
        text = f"the first forward pass carried {rows} {'row' if rows == 1 else 'rows'} of {tokens} tokens, {padding} of them padding"
        return Finding(rows == knobs["batch_size"], text)


TECHNIQUE = Batching()
