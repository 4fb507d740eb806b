"""Metrics of speculative decoding, from what its loop counted in the timed passes.

Pure. A pass of the target gives one token of its own and those proposed tokens that it agrees with. Example::

    METRICS[0].measure(trace, None)   # acceptance_rate: 33 of 155 drafted tokens
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from playground.measure.trace import Trace
from playground.measure.values import Found, Measure, Metric, Missing

OFF = Missing("no tokens are proposed with these settings")
NO_DRAFT = Missing("no tokens were proposed in the timed passes")

Counts = Mapping[str, float]


def _counted(of: Callable[[Counts], Found]) -> Measure:
    def measure(trace: Trace, baseline: Trace | None) -> Found:
        if not trace.counts.get("target_passes"):
            return OFF
        return of(trace.counts)

    return measure


def _acceptance(counts: Counts) -> Found:
    return counts["accepted_tokens"] / counts["drafted_tokens"] if counts.get("drafted_tokens") else NO_DRAFT


def _share(counts: Counts) -> Found:
    draft_s = counts.get("draft_s", 0) + counts.get("draft_prompt_s", 0)
    total_s = draft_s + counts.get("target_s", 0)
    return draft_s / total_s if total_s else Missing("one output token comes from the prompt's own pass, so nothing was checked")


def _break_even(counts: Counts) -> Found:
    if not counts.get("cycles"):
        return NO_DRAFT
    if not counts.get("plain_pass_s"):
        return Missing("a pass over one token was not timed in this run")
    drafted = counts["drafted_tokens"] / counts["cycles"]
    cost = counts["cycle_s"] / counts["cycles"] / counts["plain_pass_s"]
    return max(cost - 1, 0.0) / drafted


def _draft_bytes(trace: Trace, baseline: Trace | None) -> Found:
    weights = trace.counts.get("draft_weights_bytes")
    return Missing("no draft model is loaded") if weights is None else weights + trace.counts.get("draft_kv_bytes", 0)


METRICS = (
    Metric(
        "acceptance_rate",
        "Accepted drafted tokens",
        "share",
        "higher",
        "drafted tokens that the target accepted / drafted tokens, over the timed passes",
        _counted(_acceptance),
    ),
    Metric(
        "tokens_per_pass",
        "Tokens a pass of the target",
        "tokens",
        "higher",
        "output tokens / forward passes of the target, the prompt's included; plain decoding gives 1",
        _counted(lambda counts: counts["speculated_tokens"] / counts["target_passes"]),
    ),
    Metric(
        "draft_time_share",
        "Time in the draft",
        "share",
        "lower",
        "seconds in which tokens were proposed, the draft's own pass over the prompt included / these and those of the target's passes "
        "after the prompt",
        _counted(_share),
    ),
    Metric(
        "break_even_acceptance",
        "Break-even acceptance",
        "share",
        "lower",
        "(seconds to propose and check k tokens / seconds of a pass over one token - 1) / k: with this share of drafted tokens accepted "
        "the speed is that of plain decoding, above 1 it is never reached. From Leviathan et al. 2023, theorem 3.8, where the seconds are "
        "(k c + 1) passes, c of them for a drafted token, and (1 - a^(k+1)) / (1 - a) = 1 + k x this share tokens come of them",
        _counted(_break_even),
    ),
    Metric(
        "draft_bytes",
        "Draft model",
        "B",
        "lower",
        "weights of the draft, which weights_bytes counts too, and its largest KV cache, which kv_cache_bytes does not",
        _draft_bytes,
    ),
)
