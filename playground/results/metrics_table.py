"""The table of all metrics: as plain rows, as CSV, as JSON, and as HTML that assets/metrics_table.js sorts, copies and downloads.

Pure. A metric is a row, a variant a column. The best value is marked only where the runs show that it is better than each other one.
Example::

    rows = metric_rows(results, names)
    csv_text(rows); json_text(rows); metrics_html(results, names)
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from playground.measure.metrics import METRICS
from playground.results.html.text import escape
from playground.results.numbers import FLOOR, NO_DIFFERENCE, change, floor_of, interval, shown, spread_about, unstable
from playground.results.ranking import Metric, best, number

Result = Mapping[str, Any]
Row = dict[str, Any]
DIRECTIONS = {"lower": "lower is better", "higher": "higher is better", "none": ""}
COLUMNS = (
    "metric",
    "title",
    "unit",
    "direction",
    "variant",
    "value",
    "ci95_low",
    "ci95_high",
    "n",
    "cv",
    "kind",
    "reason",
    "best",
    "formula",
)
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def metric_rows(results: Sequence[Result], names: Sequence[str]) -> list[Row]:
    """One plain row a metric: metric, title, unit, direction, formula, best (place of the best variant or None), floor (noise floor or
    None), values (one a variant: variant, value, ci95, n, cv, kind, reason)."""
    rows = []
    for name, about in METRICS.items():
        if name.endswith(FLOOR):
            continue
        metrics = [_metric(result, name) for result in results]
        floor = next((found for result in results if (found := floor_of(result, name)) is not None), None)
        rows.append(
            {
                "metric": name, "title": about.title, "unit": about.unit, "direction": about.direction, "formula": about.formula,
                "best": best(name, metrics, floor), "floor": floor,
                "values": [_plain(metric, label) for metric, label in zip(metrics, names, strict=True)],
            }
        )  # fmt: skip
    return rows


def _metric(result: Result, name: str) -> Metric:
    found: Metric = result.get("metrics", {}).get(name) or {}
    return found


def _plain(metric: Metric, label: str) -> Row:
    value = number(metric)
    reason = None if value is not None else str(metric.get("reason") or "not measured")
    kind = "not_available" if value is None else metric.get("kind", "measured")
    ends = metric.get("ci95") if value is not None else None
    return {
        "variant": label, "value": value, "ci95": list(ends) if ends else None, "n": int(metric.get("n") or 0), "cv": metric.get("cv"),
        "kind": kind, "reason": reason,
    }  # fmt: skip


def csv_text(rows: Sequence[Row]) -> str:
    """One line a metric and variant, numbers in the unit of their line; texts that a spreadsheet would run as a formula begin with '."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        for place, value in enumerate(row["values"]):
            low, high = value["ci95"] or (None, None)
            line = {**row, **value, "ci95_low": low, "ci95_high": high, "best": "yes" if row["best"] == place else ""}
            writer.writerow([_cell_text(line[column]) for column in COLUMNS])
    return out.getvalue()


def _cell_text(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else "" if value is None else value


def json_text(rows: Sequence[Row]) -> str:
    """The rows as JSON."""
    return json.dumps(rows, ensure_ascii=False, indent=1)


def metrics_html(results: Sequence[Result], names: Sequence[str]) -> str:
    """All metrics of all variants: value, interval, change against the baseline; formula as a tooltip, best marked, reasons in words."""
    if not results:
        return ""
    rows = metric_rows(results, names)
    body = "".join(_row(row, place, results) for place, row in enumerate(rows))
    heads = "".join(_head(index, name) for index, name in enumerate(names))
    buttons = "".join(
        f'<button type="button" data-{act}="{kind}">{act.capitalize()} {kind.upper()}</button>'
        for kind in ("csv", "json")
        for act in ("copy", "download")
    )
    gone = body.count('<tr class="absent"')
    toggle = f'<label><input type="checkbox" class="show-absent"> show {gone} that nothing measured</label>' if gone else ""
    return (
        f'<section class="metrics" data-csv="{escape(csv_text(rows))}" data-json="{escape(json_text(rows))}">'
        f'<div class="table-tools"><p class="quiet">★: shown by these runs to be better than each other value.</p>{toggle}{buttons}'
        '<span class="said-so" role="status"></span></div>'
        '<div class="table-scroll" tabindex="0" role="region" aria-label="All metrics"><table class="comparison"><thead><tr>'
        '<th scope="col" aria-sort="none"><button type="button" data-rows="title" title="Sort the metrics by name">Metric</button></th>'
        f"{heads}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _head(index: int, name: str) -> str:
    title = "Sort the metrics by how far this variant is from the baseline" if index else "The baseline"
    words = f'<i class="swatch"></i>{escape(name)}'
    button = f'<button type="button" data-rows="{index}" title="{title}">{words}</button>' if index else words
    return f'<th scope="col" class="v{index}" data-variant="{index}" aria-sort="none">{button}</th>'


def _row(row: Row, place: int, results: Sequence[Result]) -> str:
    name, unit = row["metric"], row["unit"]
    tip = " · ".join(part for part in (row["formula"], f"in {unit}" if unit else "", DIRECTIONS[row["direction"]]) if part)
    metrics = [_metric(result, name) for result in results]
    head = f'<th scope="row" title="{escape(tip)}"><span class="formula">{escape(row["title"])}</span>'
    floors = [_floor(result, name, unit) for result in results]
    missing = [value["value"] is None for value in row["values"]]
    reasons = {str(value["reason"]) for value in row["values"]}
    where = f'data-place="{place}" data-title="{escape(row["title"].lower())}"'
    if not any(floors) and all(missing) and len(reasons) == 1:
        why = f'<td colspan="{len(results)}" class="none">not available: {escape(reasons.pop())}</td>'
        return f'<tr class="absent" {where}>{head}</th>{why}</tr>'
    order = escape(f"Order the variants by {row['title']}")
    sort = f'<button type="button" data-columns title="{order}" aria-label="{order}">⇄</button>'
    cells = "".join(
        _cell(metric, metrics[0] if index else None, unit, floors[index], row["best"] == index, index)
        for index, metric in enumerate(metrics)
    )
    return f'<tr {where} data-direction="{row["direction"]}">{head} {sort}</th>{cells}</tr>'


def _floor(result: Result, name: str, unit: str) -> str:
    """How far a baseline is from itself at another batch shape: what smaller differences than that mean nothing against."""
    floor = floor_of(result, name)
    if floor is None:
        return ""
    sign = "± " if number(_metric(result, name)) is not None else ""
    title = "the baseline against itself at another batch shape: a smaller difference than this means nothing"
    return f'<span title="{title}">noise floor {sign}{escape(shown(floor, unit))}</span>'


def _cell(metric: Metric, baseline: Metric | None, unit: str, floor: str, marked: bool, index: int) -> str:
    value = number(metric)
    place = f'data-variant="{index}"'
    if value is None and floor:
        return f'<td class="none" {place}>{floor}</td>'
    if value is None:
        return f'<td class="none" {place}>not available<small>{escape(metric.get("reason") or "not measured")}</small></td>'
    kind = metric.get("kind", "measured")
    star = ' <span class="best" title="the best, as far as these runs can tell" aria-label="best">★</span>' if marked else ""
    label = f' <span class="kind">{escape(kind)}</span>' if kind != "measured" else ""
    parts = [f'<td {place} data-value="{value!r}"{_apart(value, baseline)}><b>{escape(shown(value, unit))}</b>{star}{label}']
    if spread := interval(metric):
        parts.append(f' <span class="spread" title="{escape(spread_about(metric))}">{escape(spread)}</span>')
    if share := unstable(metric):
        parts.append(f"<small>unstable: varies by {share}</small>")
    if floor:
        parts.append(f"<small>{floor}</small>")
    if baseline is not None and (found := change(metric, baseline)) is not None:
        words = NO_DIFFERENCE if found.shown is False else found.text
        quiet = ' class="none"' if found.shown is False else ""
        spread = f" ({found.spread})" if found.spread and found.shown is not False else ""
        parts.append(f'<small{quiet} title="{escape(found.text)} against the baseline">{escape(words + spread)}</small>')
    return "".join(parts) + "</td>"


def _apart(value: float, baseline: Metric | None) -> str:
    """How many times a value is the baseline's, up or down, as a logarithm; what the rows are sorted by."""
    before = number(baseline) if baseline else None
    if not before or value / before <= 0:
        return ""
    return f' data-apart="{abs(math.log(value / before)):.6f}"'
