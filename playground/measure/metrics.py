"""The table of metrics: one row each, a pure function over a run's trace and its baseline's. `derive` computes them all.

The rows live in files of this folder by what they are about, each a `METRICS` tuple; every file that has one is found. A new metric is one
more row, or one more file, whose rows are shown after those of FIRST.
Example::

    values = derive(Trace.of(spec, events), baseline=None)
    values["itl_s"].value
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from playground.measure.trace import Trace
from playground.measure.values import Kind, Metric, Value

FIRST = ("timing", "memory", "energy", "efficiency", "agreement")


def _tables() -> list[tuple[Metric, ...]]:
    names = sorted(info.name for info in pkgutil.iter_modules([str(Path(__file__).parent)]) if info.name != "metrics")
    ordered = [*FIRST, *(name for name in names if name not in FIRST)]
    return [getattr(importlib.import_module(f"playground.measure.{name}"), "METRICS", ()) for name in ordered]


METRICS: dict[str, Metric] = {metric.name: metric for table in _tables() for metric in table}


def derive(trace: Trace, baseline: Trace | None) -> dict[str, Value]:
    """Every metric of a run, by name in table order. Without a baseline, or with itself, what compares is not available. What a replayed
    run measured is "recorded"."""
    against = None if baseline is trace else baseline
    kind: Kind = "recorded" if trace.spec.engine == "replay" else "measured"
    return {
        name: Value.of(metric.measure(trace, against), metric.unit, "estimated" if metric.estimated else kind)
        for name, metric in METRICS.items()
    }
