"""Metrics of requests that arrive over time: how long each waited, how many were answered a second, and what was computed for nobody.

Pure. Percentiles are over all requests of all timed passes. Example::

    METRICS[0].measure(trace, None)   # Pooled: the median time to first token of a request
"""

from __future__ import annotations

from collections.abc import Callable

from playground.measure.stats import percentile
from playground.measure.timing import NO_PASS, NO_TOKEN
from playground.measure.trace import Row, TimedBatch, Trace
from playground.measure.values import Found, Measure, Metric, Missing, Pooled

AT_ONCE = Missing("all requests are there at the start of their batch: serving is off")


def _pairs(trace: Trace) -> list[tuple[TimedBatch, Row]]:
    return [(batch, row) for item in trace.timed for batch, row in item.pairs if batch.scheduled]


def _percentile(of_row: Callable[[TimedBatch, Row], float | None], q: float) -> Measure:
    def measure(trace: Trace, baseline: Trace | None) -> Found:
        pairs = _pairs(trace)
        if not pairs:
            return AT_ONCE if trace.timed else NO_PASS
        values = [value for value in (of_row(batch, row) for batch, row in pairs) if value is not None]
        return Pooled(percentile(values, q), len(values)) if len(values) == len(pairs) else NO_TOKEN

    return measure


def _rate(trace: Trace, baseline: Trace | None) -> Found:
    if not _pairs(trace):
        return AT_ONCE if trace.timed else NO_PASS
    rates = []
    for item in trace.timed:
        ends = [row.stamps_ns[-1] for _, row in item.pairs if row.stamps_ns]
        if len(ends) != len(item.pairs):
            return NO_TOKEN
        rates.append(len(ends) / ((max(ends) - item.batches[0].start_ns) / 1e9))
    return rates


def _waste(trace: Trace, baseline: Trace | None) -> Found:
    computed = trace.counts.get("places_computed")
    if not _pairs(trace):
        return AT_ONCE if trace.timed else NO_PASS
    if not computed:
        return Missing("replayed CUDA graphs do not tell what they compute; without a KV cache, or with a cached prefix, it is not padding")
    return 1 - trace.counts["places_useful"] / computed


def _together(trace: Trace, baseline: Trace | None) -> Found:
    return trace.counts.get("rows_together", AT_ONCE)


FIRST, LAST = TimedBatch.first_s, TimedBatch.e2e_s
METRICS = (
    Metric(
        "request_ttft_p50_s", "Wait for the first token, median", "s", "lower",
        "first token of a request - its arrival; median over all requests of all timed passes", _percentile(FIRST, 50),
    ),
    Metric(
        "request_ttft_p95_s", "Wait for the first token, p95", "s", "lower",
        "first token of a request - its arrival; 95th percentile over all requests of all timed passes", _percentile(FIRST, 95),
    ),
    Metric(
        "request_latency_p50_s", "Latency of a request, median", "s", "lower",
        "last token of a request - its arrival; median over all requests of all timed passes", _percentile(LAST, 50),
    ),
    Metric(
        "request_latency_p95_s", "Latency of a request, p95", "s", "lower",
        "last token of a request - its arrival; 95th percentile over all requests of all timed passes", _percentile(LAST, 95),
    ),
    Metric("requests_per_s", "Requests answered", "requests/s", "higher", "requests / (last token of all - start of the pass)", _rate),
    Metric(
        "padding_waste", "Computed for nobody", "share", "lower",
        "1 - (prompt tokens + output tokens fed back) / token places of all forward passes, padding and finished rows included", _waste,
    ),
    Metric(
        "rows_together", "Requests in one step", "requests", "none", "most requests that were being answered at a time", _together,
    ),
)  # fmt: skip
