"""Metrics of offloading: the bytes that each pass moves, the link that they move over, and what it costs, predicted and measured.

Pure. Example::

    METRICS[2].measure(trace, None)   # offloaded bytes / bytes a second of the link
"""

from __future__ import annotations

from playground.measure.compilation import ITL, mean
from playground.measure.trace import Trace
from playground.measure.values import Found, Measure, Metric, Missing

NOTHING = Missing("no layer is offloaded with these settings")


def _counted(name: str) -> Measure:
    return lambda trace, baseline: trace.counts.get(name, NOTHING)


def _predicted(trace: Trace, baseline: Trace | None) -> Found:
    moved, rate = trace.counts.get("offloaded_bytes"), trace.counts.get("link_bytes_per_s")
    return NOTHING if moved is None or not rate else moved / rate


def _measured(trace: Trace, baseline: Trace | None) -> Found:
    if "offloaded_bytes" not in trace.counts:
        return NOTHING
    if baseline is None:
        return Missing("it needs a baseline without offloading to compare with")
    if "offloaded_bytes" in baseline.counts:
        return Missing("the baseline offloads layers too, so the difference is not what offloading costs")
    ours, theirs = mean(ITL(trace, None)), mean(ITL(baseline, None))
    if isinstance(ours, Missing) or isinstance(theirs, Missing):
        return ours if isinstance(ours, Missing) else theirs
    return ours - theirs


METRICS = (
    Metric(
        "offloaded_bytes",
        "Offloaded weights",
        "B",
        "lower",
        "sum over the real tensors of the layers that are kept off the device: what each forward pass, and so each token, moves",
        _counted("offloaded_bytes"),
    ),
    Metric(
        "link_bytes_per_s",
        "Rate of the link",
        "B/s",
        "higher",
        "bytes of all offloaded layers / seconds of one copy of them to the device at load; from disk, what the system has cached counts",
        _counted("link_bytes_per_s"),
    ),
    Metric(
        "predicted_offload_s",
        "Offloading a token, predicted",
        "s",
        "lower",
        "offloaded bytes / rate of the link",
        _predicted,
        estimated=True,
    ),
    Metric(
        "offload_s",
        "Offloading a token, measured",
        "s",
        "lower",
        "own inter-token latency - baseline's",
        _measured,
    ),
)
