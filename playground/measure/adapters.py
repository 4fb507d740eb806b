"""Metrics of adapters: how many numbers one has, and their share of the model's.

Pure. Example::

    METRICS[0].measure(trace, None)   # 610,560
"""

from __future__ import annotations

from playground.core.problem import Problem
from playground.measure.estimate import parameters
from playground.measure.trace import Trace
from playground.measure.values import Found, Metric, Missing

NONE = Missing("no adapter is chosen")


def _numbers(trace: Trace, baseline: Trace | None) -> Found:
    return trace.counts.get("adapter_numbers", NONE)


def _share(trace: Trace, baseline: Trace | None) -> Found:
    found, config = trace.counts.get("adapter_numbers"), trace.model.get("config")
    if found is None:
        return NONE
    try:
        return found / parameters(config).total if config else Missing("the model's config is not known")
    except Problem as problem:
        return Missing(problem.message)


METRICS = (
    Metric(
        "adapter_numbers",
        "Adapter's numbers",
        "numbers",
        "lower",
        "elements of the adapters' own matrices, counted in the model, or before they were merged into it",
        _numbers,
    ),
    Metric(
        "adapter_share",
        "Adapter's share",
        "share",
        "lower",
        "the adapters' numbers / parameters of the base, counted from its config",
        _share,
    ),
)
