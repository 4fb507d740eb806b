"""Metrics of memory, from what the worker reported after its stages and from gauges during the run. Bytes throughout.

Pure. Each figure is what one observer saw: real tensors <= torch's allocator <= this process on the device <= the whole device; a figure
that breaks that order is not available, with the reason. Example::

    METRICS[0].measure(trace, None)   # weights_bytes
"""

from __future__ import annotations

from collections.abc import Mapping

from playground.core.problem import Problem
from playground.measure.estimate import kv_bytes_per_token, reduced
from playground.measure.timing import SCHEDULED
from playground.measure.trace import Trace
from playground.measure.values import Found, Measure, Metric, Missing

AFTER_NS = 300_000_000  # one sampling interval: memory that a pass took is still held then
ON_CUDA_ONLY = "the allocator's peak exists on a CUDA device only"


def _remembered(name: str, reason: str, stages: tuple[str, ...] = ("timed", "load")) -> Measure:
    """A value by name from the first of `stages` that has it."""

    def measure(trace: Trace, baseline: Trace | None) -> Found:
        return next((trace.memory[stage][name] for stage in stages if name in trace.memory.get(stage, {})), Missing(reason))

    return measure


def _gauge_peak(trace: Trace, name: str) -> float | None:
    """Largest sample in the timed passes; other passes (quality, profile, another round's load) take memory of their own."""
    windows = [(item.batches[0].start_ns, max(item.batches[-1].ticks_ns, default=0) + AFTER_NS) for item in trace.timed]
    seen = (gauge for gauge in trace.gauges if any(begin <= gauge.t_ns <= end for begin, end in windows))
    return max((gauge.values[name] for gauge in seen if name in gauge.values), default=None)


def _process(trace: Trace, baseline: Trace | None) -> Found:
    seen = _gauge_peak(trace, "process_bytes")
    reserved = trace.remembered("peak_reserved_bytes")
    if seen is None:
        return Missing("no gauge could read this process's memory on a GPU")
    if reserved is not None and seen < reserved:
        return Missing("the driver reported less for this process than torch had reserved: it sees another process, or sampled too rarely")
    return seen


def _device_used(trace: Trace, baseline: Trace | None) -> Found:
    seen = _gauge_peak(trace, "device_used_bytes")
    process = _gauge_peak(trace, "process_bytes")
    if seen is None:
        return Missing("no gauge could read a GPU's memory")
    if process is not None and seen < process:
        return Missing("the driver reported less for the device than for this process: they are not the same device")
    return seen


def _kv_formula(trace: Trace, baseline: Trace | None) -> Found:
    """The largest batch of the last timed pass; the last token of a row is never fed back, so it is not cached."""
    config = trace.model.get("config")
    if not trace.timed or not config:
        return Missing("no timed pass was completed" if config else "the model's config is not known")
    if trace.memory.get("timed", {}).get("kv_cache_bytes") == 0:
        return Missing("this variant keeps no KV cache")
    width = trace.memory.get("timed", {}).get("kv_bytes_per_number")
    if width is None:
        return Missing("the engine did not say how many bytes a number its KV cache takes")
    try:
        per_token = kv_bytes_per_token(reduced(config, trace.footprint) if trace.footprint else config, width)
    except Problem as problem:
        return Missing(problem.message)
    if any(batch.scheduled for batch in trace.timed[-1].batches):
        return SCHEDULED
    cached = 0.0
    for batch in trace.timed[-1].batches:
        longest = max(row.prompt_tokens for row in batch.rows)
        fed = max(max(len(row.token_ids) for row in batch.rows) - 1, 0)
        cached = max(cached, len(batch.rows) * _whole_tokens(trace.memory["timed"], longest, fed))
    return per_token * cached


def _whole_tokens(memory: Mapping[str, float], prompt: int, steps: int) -> float:
    """Tokens a row that are cached after the prompt and that many steps, packed ones counted as the share of a whole one that they take."""
    tokens = min(prompt + steps, memory.get("kv_window", prompt + steps))
    if "kv_packed_bytes_per_number" not in memory:
        return tokens
    whole = steps % memory["kv_residual_tokens"]  # the prompt is packed at once, then so many tokens at a time
    return whole + (tokens - whole) * memory["kv_packed_bytes_per_number"] / memory["kv_bytes_per_number"]


def _rss(trace: Trace, baseline: Trace | None) -> Found:
    value = trace.memory.get("timed", {}).get("peak_rss_bytes")
    return Missing("the worker did not report its resident peak") if value is None else value


def _rss_growth(trace: Trace, baseline: Trace | None) -> Found:
    peak = trace.memory.get("timed", {}).get("peak_rss_bytes")
    before = trace.memory.get("start", {}).get("rss_bytes")
    if peak is None or before is None:
        return Missing("the worker did not report its resident memory before loading and at its peak")
    if trace.loaded and trace.loaded.reused and peak - before < (trace.remembered("weights_bytes") or 0):
        return Missing("the model was loaded already when this run began, so the memory before loading is not known")
    return max(peak - before, 0.0)


def _on_cuda(trace: Trace) -> bool:
    return "peak_allocated_bytes" in trace.memory.get("timed", {})


def _between(high: str, low: str) -> Measure:
    """What lies between two observers of a CUDA run: bytes that the one sees and the other does not."""

    def measure(trace: Trace, baseline: Trace | None) -> Found:
        above = _process(trace, None) if high == "process_bytes" else trace.memory.get("timed", {}).get(high)
        below = trace.memory.get("timed", {}).get(low)
        if below is None or above is None:
            return Missing(ON_CUDA_ONLY)
        return above - below if isinstance(above, int | float) else above

    return measure


def _rest(trace: Trace, baseline: Trace | None) -> Found:
    weights, cache = trace.remembered("weights_bytes"), trace.remembered("kv_cache_bytes")
    if weights is None or cache is None:
        return Missing("it needs the bytes of the weights and of the KV cache, and the engine did not report them")
    cache -= trace.remembered("kv_host_bytes") or 0
    peak: Found | None = trace.remembered("peak_allocated_bytes")
    if peak is None:
        peak = _rss_growth(trace, baseline)
    if not isinstance(peak, int | float):
        return peak
    if peak < weights + cache:
        return Missing("the peak is below weights plus KV cache, so they were not all resident when it was taken")
    return peak - weights - cache


METRICS = (
    Metric(
        "weights_bytes",
        "Weights",
        "B",
        "lower",
        "sum over the real tensors of the model, with the scales of quantised weights; tied ones once",
        _remembered("weights_bytes", "the engine did not report the bytes of its weights"),
    ),
    Metric(
        "kv_cache_bytes",
        "KV cache",
        "B",
        "lower",
        "sum over the real tensors of the cache at the end of the largest timed batch",
        _remembered("kv_cache_bytes", "the engine did not report the bytes of its KV cache", ("timed",)),
    ),
    Metric(
        "kv_host_bytes",
        "KV cache in host memory",
        "B",
        "lower",
        "what of kv_cache_bytes lies in host memory beside a GPU at the end of the largest timed batch",
        _remembered("kv_host_bytes", "no part of a KV cache was reported in host memory", ("timed",)),
    ),
    Metric(
        "kv_cache_formula_bytes",
        "KV cache by formula",
        "B",
        "lower",
        "2 x layers x KV heads x head size x bytes a number x tokens x batch; tokens: longest prompt + output tokens - 1, or the window; "
        "of a quantized cache, packed tokens count with their scales and zero points, those that wait to be packed whole",
        _kv_formula,
        estimated=True,
    ),
    Metric(
        "rest_bytes",
        "Activations and the rest",
        "B",
        "lower",
        "peak - weights - KV cache on the device; the peak is peak_allocated_bytes on CUDA, on a CPU rss_growth_bytes, with libraries and "
        "freed pages",
        _rest,
    ),
    Metric(
        "activations_bytes",
        "Activations and workspace",
        "B",
        "lower",
        "peak_allocated_bytes - weights - KV cache on the device: what a forward pass needs beside them (CUDA)",
        lambda trace, baseline: _rest(trace, None) if _on_cuda(trace) else Missing(ON_CUDA_ONLY),
    ),
    Metric(
        "slack_bytes",
        "Allocator slack",
        "B",
        "lower",
        "peak_reserved_bytes - peak_allocated_bytes: what torch's allocator holds and no tensor uses",
        _between("peak_reserved_bytes", "peak_allocated_bytes"),
    ),
    Metric(
        "context_bytes",
        "CUDA context and libraries",
        "B",
        "lower",
        "process_bytes - peak_reserved_bytes: context, kernels and workspaces outside of torch's allocator",
        _between("process_bytes", "peak_reserved_bytes"),
    ),
    Metric(
        "peak_allocated_bytes",
        "Peak in live tensors",
        "B",
        "lower",
        "torch.cuda.max_memory_allocated over the timed passes",
        _remembered("peak_allocated_bytes", ON_CUDA_ONLY, ("timed",)),
    ),
    Metric(
        "peak_reserved_bytes",
        "Peak reserved by the allocator",
        "B",
        "lower",
        "torch.cuda.max_memory_reserved over the timed passes",
        _remembered("peak_reserved_bytes", ON_CUDA_ONLY, ("timed",)),
    ),
    Metric(
        "process_bytes",
        "GPU memory of the process",
        "B",
        "lower",
        "largest sample of NVML's figure for the worker process during the timed passes",
        _process,
    ),
    Metric(
        "device_used_bytes",
        "GPU memory in use",
        "B",
        "lower",
        "largest sample of NVML's figure for the whole device during the timed passes, other programs included",
        _device_used,
    ),
    Metric("peak_rss_bytes", "Resident peak", "B", "lower", "largest resident memory of the worker process during the timed passes", _rss),
    Metric(
        "rss_growth_bytes",
        "Resident peak over start",
        "B",
        "lower",
        "resident peak of the worker - its resident memory before the model was loaded",
        _rss_growth,
    ),
)
