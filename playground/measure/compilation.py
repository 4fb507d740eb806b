"""Metrics of compiled steps: how many graphs, how many of them too late, and when compiling has paid for itself.

Pure. Example::

    METRICS[2].measure(trace, baseline)   # compile_s / (baseline's time per token - own time per token)
"""

from __future__ import annotations

from playground.measure.timing import METRICS as TIMES
from playground.measure.trace import Trace
from playground.measure.values import Found, Measure, Metric, Missing

NOT_COMPILED = Missing("nothing is compiled with these settings")
ITL = next(metric.measure for metric in TIMES if metric.name == "itl_s")


def _counted(name: str) -> Measure:
    def measure(trace: Trace, baseline: Trace | None) -> Found:
        if trace.compiled is None:
            return NOT_COMPILED
        return trace.counts.get(name, Missing("this engine does not count its graphs"))

    return measure


def _pays_after(trace: Trace, baseline: Trace | None) -> Found:
    if trace.compiled is None:
        return NOT_COMPILED
    if baseline is None:
        return Missing("it needs a baseline that is not compiled to compare with")
    if baseline.compiled is not None:
        return Missing("the baseline is compiled too, so the difference is not what compiling gained")
    if trace.compiled.seconds is None:
        return Missing("the steps of an earlier run were used again, so nothing was spent on compiling")
    gained = mean(ITL(baseline, None)), mean(ITL(trace, None))
    reason = next((value for value in gained if isinstance(value, Missing)), None)
    if reason is not None:
        return reason
    saved = gained[0] - gained[1]  # type: ignore[operator]
    return trace.compiled.seconds / saved if saved > 0 else Missing("a step takes no less time than the baseline's, so it never pays here")


def mean(found: Found) -> float | Missing:
    if isinstance(found, Missing):
        return found
    values = [float(found)] if isinstance(found, int | float) else list(found)  # type: ignore[arg-type]
    return sum(values) / len(values)


METRICS = (
    Metric(
        "compiled_graphs",
        "Compiled graphs",
        "graphs",
        "lower",
        "graphs that torch.compile made of the decode steps, up to the end of the timed passes; one for each batch shape is best",
        _counted("compiled_graphs"),
    ),
    Metric(
        "recompiles",
        "Recompiles",
        "graphs",
        "lower",
        "graphs made in warm-up and timed passes, after the compile stage had ended: 0, unless a pass was slow for it",
        _counted("recompiles"),
    ),
    Metric(
        "compile_pays_after_tokens",
        "Compiling has paid after",
        "tokens",
        "lower",
        "compile time / (baseline's inter-token latency - own inter-token latency): output tokens of a request",
        _pays_after,
    ),
)
