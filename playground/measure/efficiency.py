"""Metrics of efficiency: how much of what the device can do a run used, from its stamps, its profile and the device's measured ceilings.

Pure. What a step must move and compute comes from `roofline`, which needs the model's config and the knobs' footprint. Example::

    METRICS[0].measure(Trace.of(spec, events, footprint), None)   # mbu of each timed pass
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from playground.core.events import Profile
from playground.core.problem import Problem
from playground.measure.estimate import tokens_allocated
from playground.measure.roofline import Work, decode_work, middle, prefill_work
from playground.measure.timing import NO_PASS, NO_TOKEN, ONE_TOKEN, SCHEDULED
from playground.measure.trace import Pass, TimedBatch, Trace
from playground.measure.values import Found, Measure, Metric, Missing

NO_CEILINGS = Missing("the device's ceilings were not measured in this run")
SPECULATED = Missing("a step checks several proposed tokens, and a draft works beside it, which is not counted here")
NEAR = 4  # steps on either side of the profiled one
NO_KERNELS = Missing("this device has no kernels to launch: on a CPU operators run on the cores that also run the program")


def decode_step(trace: Trace, passes: Sequence[Pass] | None = None) -> tuple[Work, float] | Missing:
    """Work and seconds of the mean decode step of these passes (None: all timed ones), or why there is none."""
    seconds = step_s(trace.timed if passes is None else passes)
    if isinstance(seconds, Missing):
        return seconds
    if trace.counts.get("target_passes"):
        return SPECULATED
    total, steps = Work(0, 0, 0), 0
    for batch in _batches(trace.timed if passes is None else passes):
        longest, count = max(row.prompt_tokens for row in batch.rows), len(batch.ticks_ns)
        work = _work(trace, batch, longest, count)
        if isinstance(work, Missing):
            return work
        total, steps = total + work.times(max(count - 1, 0)), steps + max(count - 1, 0)
    return total.times(1 / steps), seconds


def prefill(trace: Trace, passes: Sequence[Pass] | None = None) -> tuple[Work, float] | Missing:
    """Work and seconds of the mean prefill of a batch of these passes (None: all timed ones), or why there is none."""
    batches = _batches(trace.timed if passes is None else passes)
    if _scheduled(trace.timed if passes is None else passes):
        return SCHEDULED
    waits = [batch.ttft_s for batch in batches if batch.ttft_s]
    if not batches or len(waits) != len(batches):
        return NO_TOKEN if batches else NO_PASS
    total = Work(0, 0, 0)
    for batch in batches:
        copied = int(trace.counts.get("prefix_tokens", 0))  # from a prefix that was computed once
        work = _work(trace, batch, max(row.prompt_tokens for row in batch.rows) - copied, None)
        if isinstance(work, Missing):
            return work
        total += work
    return total.times(1 / len(batches)), sum(waits) / len(batches)


def step_s(passes: Sequence[Pass], rows: int | None = None) -> float | Missing:
    """Seconds of the mean decode step, over the batches of `rows` rows where there are any (None: over all), or why there is none."""
    batches = _batches(passes)
    if _scheduled(passes):
        return SCHEDULED
    batches = [batch for batch in batches if len(batch.rows) == rows] or batches
    steps = sum(max(len(batch.ticks_ns) - 1, 0) for batch in batches)
    seconds = sum(batch.ticks_ns[-1] - batch.ticks_ns[0] for batch in batches if batch.ticks_ns) / 1e9
    if not batches:
        return NO_PASS
    return seconds / steps if steps and seconds > 0 else ONE_TOKEN


def tokens_a_step(trace: Trace) -> float:
    """Tokens that the mean decode step of the timed passes gives a row: one, or more where it checks proposed tokens."""
    batches = _batches(trace.timed) if trace.counts.get("target_passes") else []
    steps = sum(max(len(batch.ticks_ns) - 1, 0) for batch in batches)
    given = sum(max(len(row.token_ids) - 1, 0) for batch in batches for row in batch.rows)  # the prompt's own pass gives one
    return given / steps if steps else 1.0


def _scheduled(passes: Sequence[Pass]) -> bool:
    return any(batch.scheduled for batch in _batches(passes))


def _batches(passes: Sequence[Pass]) -> list[TimedBatch]:
    return [batch for item in passes for batch in item.batches]


def _work(trace: Trace, batch: TimedBatch, prompt_tokens: int, new_tokens: int | None) -> Work | Missing:
    """Of one batch: its middle decode step where there are `new_tokens`, else its prefill."""
    config = trace.model.get("config")
    if not config or trace.footprint is None:
        return Missing("what a step must move is not known without the model's config")
    footprint = replace(trace.footprint, rows=len(batch.rows))
    try:
        if new_tokens is None:
            return prefill_work(config, footprint, prompt_tokens)
        allocated = tokens_allocated(footprint, prompt_tokens + trace.spec.workload.max_new_tokens)
        return decode_work(config, footprint, middle(prompt_tokens, new_tokens), allocated)
    except Problem as problem:
        return Missing(problem.message)


def _used(of: Callable[[Trace, Sequence[Pass]], tuple[Work, float] | Missing], amount: str, ceiling: str) -> Measure:
    """Each timed pass's share of a ceiling."""

    def measure(trace: Trace, baseline: Trace | None) -> Found:
        if trace.ceilings is None:
            return NO_CEILINGS
        shares = []
        for item in trace.timed:
            found = of(trace, [item])
            if isinstance(found, Missing):
                return found
            work, seconds = found
            shares.append(getattr(work, amount) / seconds / getattr(trace.ceilings, ceiling))
        return shares or NO_PASS

    return measure


def _profiled(trace: Trace) -> Profile | Missing:
    if trace.profile is None:
        asked = trace.spec.protocol.profile
        return Missing("the run took no profile of a step" if asked else "this run was set not to profile a step")
    return Missing(trace.profile.reason) if trace.profile.reason else trace.profile


def _busy(trace: Trace, baseline: Trace | None) -> Found:
    profile = _profiled(trace)
    if isinstance(profile, Missing) or profile.kernel_s is None:
        return profile if isinstance(profile, Missing) else NO_KERNELS
    shares = []
    for item in trace.timed:
        grows = trace.footprint is not None and not trace.footprint.kv_share
        seconds = _near_s(item, profile) if grows else step_s([item], profile.rows)
        if isinstance(seconds, Missing):
            return seconds
        shares.append(profile.kernel_s / seconds)
    return shares or NO_PASS


def _near_s(item: Pass, profile: Profile) -> float | Missing:
    """Mean seconds of the pass's decode steps next to the one that was profiled: without a KV cache a step grows with the text."""
    gaps = []
    for batch in item.batches:
        place = profile.cached_tokens - max(row.prompt_tokens for row in batch.rows) + 1  # of the tick that ends this step
        ticks = batch.ticks_ns[max(place - 1 - NEAR, 0) : place + 1 + NEAR] if len(batch.rows) == profile.rows else ()
        gaps += [(after - before) / 1e9 for before, after in itertools.pairwise(ticks)]
    return sum(gaps) / len(gaps) if gaps else ONE_TOKEN


def _kernels(trace: Trace, baseline: Trace | None) -> Found:
    profile = _profiled(trace)
    if isinstance(profile, Missing):
        return profile
    return NO_KERNELS if profile.kernels is None else profile.kernels / tokens_a_step(trace)


METRICS = (
    Metric(
        "mbu",
        "Memory bandwidth used",
        "share",
        "higher",
        "bytes that a decode step must move / its time / bytes a second of a large copy on this device",
        _used(decode_step, "bytes", "copy_bytes_per_s"),
    ),
    Metric(
        "mfu",
        "Arithmetic used",
        "share",
        "higher",
        "floating-point operations of a decode step (attention over all pairs of tokens, as without a causal mask) / its time / rate of a "
        "large matrix product on this device",
        _used(decode_step, "operations", "matmul_flops"),
    ),
    Metric(
        "prefill_mfu",
        "Arithmetic used in prefill",
        "share",
        "higher",
        "floating-point operations of the prefill / time to first token / rate of a large matrix product on this device",
        _used(prefill, "operations", "matmul_flops"),
    ),
    Metric(
        "gpu_busy",
        "GPU busy",
        "share",
        "none",
        "time in which a kernel ran in one profiled decode step / mean time of a step in the timed passes, since profiling slows the host",
        _busy,
    ),
    Metric(
        "kernels_per_token",
        "Kernels a token",
        "kernels",
        "lower",
        "kernels launched in one decode step / tokens that a step gives each row: one, or more where it checks proposed tokens",
        _kernels,
    ),
)
