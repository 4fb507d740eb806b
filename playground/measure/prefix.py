"""Metrics of prefix caching, from what the technique kept.

Pure. Example::

    METRICS[0].measure(trace, None)   # prefix_tokens
"""

from __future__ import annotations

from playground.measure.trace import Trace
from playground.measure.values import Found, Measure, Metric, Missing

OFF = Missing("no common beginning of prompts is kept with these settings")


def _counted(name: str) -> Measure:
    return lambda trace, baseline: trace.counts.get(name, OFF)


def _share(trace: Trace, baseline: Trace | None) -> Found:
    kept = trace.counts.get("prefix_tokens")
    prompts = [row.prompt_tokens for item in trace.timed for _, row in item.pairs]
    if kept is None or not prompts:
        return OFF
    return kept * len(prompts) / sum(prompts)


METRICS = (
    Metric(
        "prefix_tokens", "Shared prefix", "tokens", "none", "tokens that all prompts begin with, computed once", _counted("prefix_tokens")
    ),
    Metric(
        "prefix_share",
        "Prompt tokens from the prefix",
        "share",
        "higher",
        "prompt tokens that were copied and not computed / prompt tokens of all requests",
        _share,
    ),
    Metric(
        "prefix_bytes",
        "Memory of the prefix",
        "B",
        "lower",
        "keys and values of the prefix, kept beside each request's own cache, which holds a copy",
        _counted("prefix_bytes"),
    ),
    Metric(
        "prefix_s",
        "Time for the prefix",
        "s",
        "lower",
        "seconds in which it was computed, once, before the first pass, so that it is in no time to first token",
        _counted("prefix_s"),
    ),
)
