"""Metrics of output quality: divergence from the baseline's distributions, agreement of tokens, perplexity, questions, and the noise floor.

Pure. Most come from the Score event of the worker, which saw the baseline's log-probabilities; `matching_tokens` compares the two runs'
outputs here. A noise floor is the baseline against itself at another batch shape: what is below it, the variant need not have caused.
Example::

    METRICS[0].measure(trace, baseline)   # kld_mean
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from playground.measure.trace import Trace
from playground.measure.values import Counted, Found, Measure, Metric, Missing

IS_BASELINE = Missing("this is the baseline: there is nothing to compare it with")
RANDOM = Missing("the weights of this model are random, so its output has no quality to measure")
DRAWN = Missing("at a temperature above 0 tokens are drawn, so two runs need not match")
ON_BASELINE = Missing("measured on the baseline: the noise floor is the baseline against itself")
NO_FIGURE = "this run's evaluation has no such figure"


def common_prefix(a: Sequence[object], b: Sequence[object]) -> int:
    """Length of the common beginning of two sequences, such as token ids."""
    return next((place for place, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))


def mean_common_prefix(pairs: Iterable[tuple[Sequence[int], Sequence[int]]]) -> float | None:
    """Mean length of the common beginnings of pairs of token sequences; None without a pair."""
    lengths = [common_prefix(one, other) for one, other in pairs]
    return sum(lengths) / len(lengths) if lengths else None


def _why_not(trace: Trace) -> Missing | None:
    """Why this run has no figures of output quality at all, or None."""
    if trace.model.get("random_weights"):
        return RANDOM
    if not trace.spec.protocol.quality:
        return Missing("this run was set not to measure output quality")
    return Missing("the run ended before output quality was measured") if trace.score is None else None


def _figure(trace: Trace, name: str) -> Found:
    if (why := _why_not(trace)) or trace.score is None:
        return why or Missing(NO_FIGURE)
    value = trace.score.values.get(name)
    return Missing(trace.score.missing.get(name, NO_FIGURE)) if value is None else value


def _scored(name: str) -> Measure:
    return lambda trace, baseline: _figure(trace, name)


def _compared(name: str) -> Measure:
    def measure(trace: Trace, baseline: Trace | None) -> Found:
        if baseline is None and not trace.model.get("random_weights"):
            return Missing(trace.score.missing[name]) if trace.score and name in trace.score.missing else IS_BASELINE
        return _figure(trace, name)

    return measure


def _floor(name: str) -> Measure:
    return lambda trace, baseline: _figure(trace, name) if baseline is None else ON_BASELINE


def _matching(trace: Trace, baseline: Trace | None) -> Found:
    if trace.model.get("random_weights"):
        return RANDOM
    if baseline is None:
        return IS_BASELINE
    if trace.spec.workload.temperature > 0 or baseline.spec.workload.temperature > 0:
        return DRAWN
    if _vocabulary(trace) != _vocabulary(baseline):
        return Missing("the baseline's model has another vocabulary, so its token ids mean other things")
    theirs = {output.prompt: output.token_ids for output in reversed(baseline.outputs)}
    ours = {output.prompt: output.token_ids for output in reversed(trace.outputs)}
    mean = mean_common_prefix((tokens, theirs[prompt]) for prompt, tokens in ours.items() if prompt in theirs)
    return Missing("the two runs have no output for the same prompt") if mean is None else mean


def _matching_floor(trace: Trace, baseline: Trace | None) -> Found:
    if baseline is None and trace.spec.workload.temperature > 0:
        return DRAWN
    return _floor("matching_tokens_floor")(trace, baseline)


def _vocabulary(trace: Trace) -> object:
    config = trace.model.get("config") or {}
    return (config.get("text_config") or config).get("vocab_size")


def _accuracy(trace: Trace, baseline: Trace | None) -> Found:
    if (why := _why_not(trace)) or trace.score is None:
        return why or Missing(NO_FIGURE)
    right, asked = (trace.score.values.get(name) for name in ("questions_right", "questions"))
    if right is None or not asked:
        return Missing(trace.score.missing.get("question_accuracy", NO_FIGURE))
    return Counted(round(right), round(asked))


_WINDOWS = "windows of 512 tokens, stride 512, no overlap"
_KLD = "KL(p_baseline || p_variant) per position over the full vocabulary, teacher-forced on the same texts"
_SHAPE = "the text's first 128 tokens in one forward pass against one token a pass, as decoding has it, same model"

METRICS = (
    Metric("kld_mean", "KL divergence, mean", "nats", "lower", f"mean of {_KLD}; {_WINDOWS}", _compared("kld_mean")),
    Metric(
        "kld_mean_floor", "KL divergence, mean: noise floor", "nats", "none", f"mean KL divergence of {_SHAPE}", _floor("kld_mean_floor")
    ),
    Metric("kld_p99", "KL divergence, p99", "nats", "lower", f"99th percentile of {_KLD}; {_WINDOWS}", _compared("kld_p99")),
    Metric(
        "kld_p99_floor",
        "KL divergence, p99: noise floor",
        "nats",
        "none",
        f"99th percentile of the KL divergence of {_SHAPE}",
        _floor("kld_p99_floor"),
    ),
    Metric(
        "top1_agreement",
        "Same top token",
        "share",
        "higher",
        f"share of positions where the likeliest token is the baseline's, on the same texts; {_WINDOWS}",
        _compared("top1_agreement"),
    ),
    Metric(
        "top1_agreement_floor",
        "Same top token: noise floor",
        "share",
        "none",
        f"share of positions with the same likeliest token in {_SHAPE}",
        _floor("top1_agreement_floor"),
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
        "matching_tokens_floor",
        "Matching tokens: noise floor",
        "tokens",
        "none",
        "length of the common beginning of the first request's greedy output with its own at another batch size: alone if it was one of "
        "several, else as one of two equal rows",
        _matching_floor,
    ),
    Metric(
        "ppl",
        "Perplexity",
        "ppl",
        "lower",
        f"exp(sum of negative log-likelihoods / tokens scored) of the English text, or of your own; {_WINDOWS}",
        _scored("ppl"),
    ),
    Metric(
        "ppl_floor",
        "Perplexity: noise floor",
        "ppl",
        "none",
        f"absolute difference of the perplexity of {_SHAPE}",
        _floor("ppl_floor"),
    ),
    Metric(
        "ppl_chinese",
        "Perplexity, Chinese",
        "ppl",
        "lower",
        f"exp(sum of negative log-likelihoods / tokens scored) of the Chinese text; {_WINDOWS}",
        _scored("ppl_chinese"),
    ),
    Metric(
        "question_accuracy",
        "Questions answered right",
        "share",
        "higher",
        "share of our own four-option questions where the right option has the largest sum of log-probabilities of its tokens after "
        "“Question: … Answer:”; 95 % Wilson interval",
        _accuracy,
    ),
)
