"""Results as plain text: a table of every metric that was measured, and what each variant's numbers mean. Pure.

Example::

    print(table(results))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from playground.measure.metrics import METRICS
from playground.results.numbers import interval, shown


def table(results: Sequence[dict[str, Any]]) -> str:
    """All metrics that at least one variant measured, a line each, a column a variant."""
    rows = [["", *(result["label"] or f"variant {n}" for n, result in enumerate(results, 1))]]
    rows.append(["status", *(result["status"] for result in results)])
    for name, metric in METRICS.items():
        values = [result["metrics"].get(name, {}) for result in results]
        if any(value.get("value") is not None for value in values):
            rows.append([metric.title, *(_cell(value) for value in values)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    verdicts = [result["verdict"]["sentence"] for result in results]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", *verdicts])


def claims_text(judged: Sequence[Mapping[str, Any]]) -> str:
    """What `results.claims.judge` found: each claim with its source, and below it a line a variant; "" for none."""
    lines = []
    for sentence, source in dict.fromkeys((item["sentence"], item["source"]) for item in judged):
        lines.append(f"Claimed: {sentence} ({source})")
        for item in judged:
            if (item["sentence"], item["source"]) == (sentence, source):
                why = f" Why: {item['why']}" if item["why"] else ""
                lines.append(f"  {item['variant']}: {item['outcome']}. {item['text']}{why}")
    return "\n".join(lines)


def _cell(value: Mapping[str, Any]) -> str:
    if value.get("value") is None:
        return "not available"
    return f"{shown(value['value'], value['unit'])} {interval(value)}".strip()
