"""How many bits a weight takes on the whole, so that models whose layers are packed differently can be laid side by side.

Pure. Example::

    METRICS[0].measure(Trace.of(spec, events, footprint), None)   # 4.9
"""

from __future__ import annotations

from playground.core.problem import Problem
from playground.measure.estimate import parameters, reduced
from playground.measure.trace import Trace
from playground.measure.values import Found, Metric, Missing


def _bits(trace: Trace, baseline: Trace | None) -> Found:
    config, weights = trace.model.get("config"), trace.remembered("weights_bytes")
    if not config or weights is None or trace.footprint is None:
        return Missing("the sizes of the model's weights are not known")
    try:
        own = weights + trace.counts.get("offloaded_bytes", 0) - trace.counts.get("draft_weights_bytes", 0)
        return own * 8 / parameters(reduced(config, trace.footprint)).total
    except Problem as problem:
        return Missing(problem.message)


METRICS = (
    Metric(
        "bits_per_weight",
        "Bits a weight",
        "bits",
        "lower",
        "bytes of weights, scales, adapters and what is kept off the device, without a draft / number of the model's parameters * 8",
        _bits,
    ),
)
