"""A sweep as plain text: a line a run with the metrics that its axis is about. Pure.

Example::

    print(sweep_table(Sweeps(store).load("k3x9mfq2")))
"""

from __future__ import annotations

from typing import Any

from playground.measure.metrics import METRICS
from playground.results.numbers import interval, shown, value_of
from playground.results.sweep_charts import charted
from playground.results.sweeps import StoredCell, StoredSweep


def sweep_rows(sweep: StoredSweep) -> list[list[str]]:
    """Heads, then a row a run: its label, its status, and what is charted, where at least one run measured it."""
    names = [name for name in charted(sweep.plan) if any(value_of(held.result or {}, name) is not None for held in sweep.cells)]
    rows = [["", "status", *(METRICS[name].title for name in names)]]
    rows += [[held.cell.label, held.status, *(_cell(held, name) for name in names)] for held in sweep.cells]
    return rows


def sweep_table(sweep: StoredSweep) -> str:
    """The rows in columns; of a run without numbers, why."""
    rows = sweep_rows(sweep)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    reasons = [f"{held.cell.label}: {held.reason}" for held in sweep.cells if held.reason and held.status in ("oom", "failed")]
    return "\n".join([*lines, *(["", *reasons] if reasons else [])])


def _cell(held: StoredCell, name: str) -> str:
    found: Any = (held.result or {}).get("metrics", {}).get(name) or {}
    if value_of(held.result or {}, name) is None:
        return "-"
    return f"{shown(found['value'], found['unit'])} {interval(found)}".strip()
