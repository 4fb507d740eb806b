"""Metrics of time: latency, throughput and token counts, from the stamps of the timed passes.

Pure. Per-repeat values are means over the pass's rows (requests), so that a pass of mixed rows counts each request once. Example::

    METRICS[0].measure(trace, None)   # ttft_s of each timed pass
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from playground.measure.stats import percentile
from playground.measure.trace import Pass, Row, TimedBatch, Trace
from playground.measure.values import Found, Measure, Metric, Missing, Pooled

NO_PASS = Missing("no timed pass was completed")
NO_TOKEN = Missing("a request gave no token")
SCHEDULED = Missing("requests arrive over time, so prompts and steps of several of them share the time")
ONE_TOKEN = Missing("a gap between tokens needs at least two output tokens in each request")


def _each_pass(trace: Trace, measure: Callable[[Pass], float | Missing]) -> Found:
    """One value a timed pass; the first Missing stands for all."""
    values = [measure(item) for item in trace.timed]
    missing = next((value for value in values if isinstance(value, Missing)), None)
    if missing or not values:
        return missing or NO_PASS
    return [value for value in values if not isinstance(value, Missing)]


def _mean_over_rows(of_row: Callable[[TimedBatch, Row], float | None], missing: Missing) -> Measure:
    """Per-repeat mean over the rows of a pass."""

    def of_pass(item: Pass) -> float | Missing:
        values = [of_row(batch, row) for batch, row in item.pairs]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else missing

    return lambda trace, baseline: _each_pass(trace, of_pass)


def _itl_s(batch: TimedBatch, row: Row) -> float | None:
    return sum(row.gaps_s) / len(row.gaps_s) if row.gaps_s else None


def _gap_percentile(q: float) -> Measure:
    def measure(trace: Trace, baseline: Trace | None) -> Found:
        gaps = [gap for item in trace.timed for _, row in item.pairs for gap in row.gaps_s]
        if not trace.timed:
            return NO_PASS
        return Pooled(percentile(gaps, q), len(gaps)) if gaps else ONE_TOKEN

    return measure


def _decode_rate(trace: Trace, baseline: Trace | None) -> Found:
    itl = _mean_over_rows(_itl_s, ONE_TOKEN)(trace, baseline)
    if not isinstance(itl, Sequence):
        return itl
    return [1 / seconds for seconds in itl] if all(itl) else Missing("the tokens came without any gap")


def _prefill_rate(trace: Trace, baseline: Trace | None) -> Found:
    def of_pass(item: Pass) -> float | Missing:
        if any(batch.scheduled for batch in item.batches):
            return SCHEDULED
        waits = [batch.ttft_s for batch in item.batches]
        seconds = sum(wait for wait in waits if wait is not None)
        if None in waits or seconds <= 0:
            return NO_TOKEN
        return sum(row.prompt_tokens for _, row in item.pairs) / seconds

    return _each_pass(trace, of_pass)


def _output_rate(trace: Trace, baseline: Trace | None) -> Found:
    def of_pass(item: Pass) -> float | Missing:
        stamps = [row.stamps_ns[-1] for _, row in item.pairs if row.stamps_ns]
        seconds = (max(stamps) - item.batches[0].start_ns) / 1e9 if stamps else 0.0
        return sum(len(row.token_ids) for _, row in item.pairs) / seconds if seconds > 0 else NO_TOKEN

    return _each_pass(trace, of_pass)


def _cold_ttft(trace: Trace, baseline: Trace | None) -> Found:
    if trace.loaded and trace.loaded.reused:
        return Missing("the loaded model had served an earlier run, so no first call was cold")
    if not trace.spec.protocol.warmups:
        return Missing("the protocol has no warm-up pass, so the cold first call is in the timed passes")
    first = trace.warmups[0].batches[0].ttft_s if trace.warmups else None
    return Missing("no warm-up pass was completed") if first is None else first


def _load(trace: Trace, baseline: Trace | None) -> Found:
    if trace.loaded is None:
        return Missing("the model was not loaded")
    if trace.loaded.reused:
        return Missing("the model of an earlier run was still loaded and was used again")
    return trace.loaded.seconds


def _compile(trace: Trace, baseline: Trace | None) -> Found:
    if trace.compiled is None:
        return Missing("nothing is compiled with these settings")
    if trace.compiled.seconds is None:
        return Missing("the steps of an earlier run were ready and were used again")
    return trace.compiled.seconds


METRICS = (
    Metric(
        "ttft_s",
        "Time to first token",
        "s",
        "lower",
        "first token on the host - tokenised input ready; mean over requests",
        _mean_over_rows(lambda batch, row: batch.first_s(row), NO_TOKEN),
    ),
    Metric(
        "itl_s",
        "Inter-token latency",
        "s",
        "lower",
        "(last token - first token) / (output tokens - 1) of a request; mean over requests",
        _mean_over_rows(_itl_s, ONE_TOKEN),
    ),
    Metric("itl_p50_s", "Inter-token latency, median", "s", "lower", "median of all gaps of all timed passes", _gap_percentile(50)),
    Metric("itl_p95_s", "Inter-token latency, p95", "s", "lower", "95th percentile of all gaps of all timed passes", _gap_percentile(95)),
    Metric("itl_p99_s", "Inter-token latency, p99", "s", "lower", "99th percentile of all gaps of all timed passes", _gap_percentile(99)),
    Metric(
        "e2e_s",
        "Request latency",
        "s",
        "lower",
        "last token of a request - tokenised input ready; mean over requests",
        _mean_over_rows(lambda batch, row: batch.e2e_s(row), NO_TOKEN),
    ),
    Metric(
        "prefill_tokens_per_s",
        "Prefill speed",
        "tokens/s",
        "higher",
        "prompt tokens of all requests, without padding / sum of the batches' times to first token",
        _prefill_rate,
    ),
    Metric("decode_tokens_per_s", "Decode speed of one request", "tokens/s", "higher", "1 / inter-token latency", _decode_rate),
    Metric(
        "output_tokens_per_s",
        "Output throughput",
        "tokens/s",
        "higher",
        "output tokens of all requests / (last token - start of the first batch)",
        _output_rate,
    ),
    Metric("cold_ttft_s", "Time to first token, cold", "s", "lower", "time to first token of the first warm-up pass", _cold_ttft),
    Metric(
        "load_s",
        "Load time",
        "s",
        "lower",
        "from files to a model ready to run, without fetching; up to 2026-11-28 with the imports of a fresh process",
        _load,
    ),
    Metric("compile_s", "Compile time", "s", "lower", "compiling and capturing the decode steps of all batches", _compile),
    Metric(
        "prompt_tokens",
        "Prompt tokens",
        "tokens",
        "none",
        "tokens of a prompt after the chat template, without padding; mean over requests",
        _mean_over_rows(lambda batch, row: row.prompt_tokens, NO_TOKEN),
    ),
    Metric(
        "output_tokens",
        "Output tokens",
        "tokens",
        "none",
        "tokens generated for a request; mean over requests",
        _mean_over_rows(lambda batch, row: len(row.token_ids), NO_TOKEN),
    ),
)
