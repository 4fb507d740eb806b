"""Metrics of output quality against the baseline: divergence of distributions, agreement of tokens, perplexity.

Pure. The first four come from the Score event of the worker, which saw the baseline's log-probabilities; `matching_tokens` compares
the two runs' outputs here. Example::

    METRICS[-2].measure(trace, baseline)   # matching_tokens
"""

from __future__ import annotations

from playground.measure.trace import Trace
from playground.measure.values import Found, Measure, Metric, Missing

IS_BASELINE = Missing("this is the baseline: there is nothing to compare it with")
RANDOM = Missing("the weights of this model are random, so its output has no quality to measure")


def common_prefix(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Length of the common beginning of two token sequences."""
    return next((place for place, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))


def _scored(name: str, compares: bool) -> Measure:
    def measure(trace: Trace, baseline: Trace | None) -> Found:
        if trace.model.get("random_weights"):
            return RANDOM
        if compares and baseline is None:
            return Missing(trace.score.missing[name]) if trace.score and name in trace.score.missing else IS_BASELINE
        if not trace.spec.protocol.quality:
            return Missing("this run was set not to measure output quality")
        if trace.score is None:
            return Missing("the run ended before output quality was measured")
        value = trace.score.values.get(name)
        return Missing(trace.score.missing.get(name, "the engine gave no such figure")) if value is None else value

    return measure


def _matching(trace: Trace, baseline: Trace | None) -> Found:
    if trace.model.get("random_weights"):
        return RANDOM
    if baseline is None:
        return IS_BASELINE
    if trace.spec.workload.temperature > 0 or baseline.spec.workload.temperature > 0:
        return Missing("at a temperature above 0 tokens are drawn, so two runs need not match")
    if _vocabulary(trace) != _vocabulary(baseline):
        return Missing("the baseline's model has another vocabulary, so its token ids mean other things")
    theirs = {output.prompt: output.token_ids for output in reversed(baseline.outputs)}
    ours = {output.prompt: output.token_ids for output in reversed(trace.outputs)}
    lengths = [common_prefix(tokens, theirs[prompt]) for prompt, tokens in ours.items() if prompt in theirs]
    if not lengths:
        return Missing("the two runs have no output for the same prompt")
    return sum(lengths) / len(lengths)


def _vocabulary(trace: Trace) -> object:
    config = trace.model.get("config") or {}
    return (config.get("text_config") or config).get("vocab_size")


METRICS = (
    Metric(
        "kld_mean",
        "KL divergence, mean",
        "nats",
        "lower",
        "mean over positions of KL(p_baseline || p_variant) over the full vocabulary, on the same text",
        _scored("kld_mean", compares=True),
    ),
    Metric(
        "kld_p99",
        "KL divergence, p99",
        "nats",
        "lower",
        "99th percentile over positions of KL(p_baseline || p_variant)",
        _scored("kld_p99", compares=True),
    ),
    Metric(
        "top1_agreement",
        "Same top token",
        "share",
        "higher",
        "share of positions where the likeliest token is the baseline's",
        _scored("top1_agreement", compares=True),
    ),
    Metric(
        "matching_tokens",
        "Matching tokens",
        "tokens",
        "higher",
        "length of the common beginning of the greedy output with the baseline's; mean over prompts",
        _matching,
    ),
    Metric(
        "ppl",
        "Perplexity",
        "ppl",
        "lower",
        "exp(mean negative log-likelihood) of the English text",
        _scored("ppl", compares=False),
    ),
)
