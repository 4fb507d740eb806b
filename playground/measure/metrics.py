"""The table of metrics: one row each, a pure function over a run's trace and its baseline's. `derive` computes them all.

The rows live in files by what they are about: `timing`, `memory`, `energy`, `efficiency`, `agreement`. A new metric is one more row there.
Example::

    values = derive(Trace.of(spec, events), baseline=None)
    values["itl_s"].value
"""

from __future__ import annotations

from playground.measure import agreement, efficiency, energy, memory, timing
from playground.measure.trace import Trace
from playground.measure.values import Kind, Metric, Value

METRICS: dict[str, Metric] = {
    metric.name: metric
    for table in (timing.METRICS, memory.METRICS, energy.METRICS, efficiency.METRICS, agreement.METRICS)
    for metric in table
}


def derive(trace: Trace, baseline: Trace | None) -> dict[str, Value]:
    """Every metric of a run, by name in table order. Without a baseline, or with itself, what compares is not available. What a replayed
    run measured is "recorded"."""
    against = None if baseline is trace else baseline
    kind: Kind = "recorded" if trace.spec.engine == "replay" else "measured"
    return {
        name: Value.of(metric.measure(trace, against), metric.unit, "estimated" if metric.estimated else kind)
        for name, metric in METRICS.items()
    }
