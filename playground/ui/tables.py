"""What stands beneath the charts: a table of every metric, what quality was measured on, and the exact input. Pure and escaped HTML.

Example::

    comparison_html(results, names)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from playground.measure.metrics import METRICS
from playground.results.numbers import FLOOR, NO_DIFFERENCE, change, floor_of, interval, shown, spread_about, unstable
from playground.ui.text import escape, variant_table
from playground.ui.view import View

Result = Mapping[str, Any]
DIRECTIONS = {"lower": "lower is better", "higher": "higher is better", "none": ""}
SHOWN_PROMPTS = 32


def comparison_html(results: Sequence[Result], names: Sequence[str]) -> str:
    """All metrics of all variants: value, interval, change against the baseline; formula as a tooltip, reasons in words."""
    if not results:
        return ""
    rows = "".join(_row(name, results) for name in METRICS if not name.endswith(FLOOR))
    return variant_table("All metrics", "Metric", names, rows)


def _row(name: str, results: Sequence[Result]) -> str:
    about = METRICS[name]
    title = " · ".join(part for part in (about.formula, DIRECTIONS[about.direction]) if part)
    metrics = [result.get("metrics", {}).get(name) or {} for result in results]
    reasons = {str(metric.get("reason") or "not measured") for metric in metrics if _missing(metric)}
    head = f'<th scope="row" title="{escape(title)}"><span class="formula">{escape(about.title)}</span></th>'
    floors = [_floor(result, name, about.unit) for result in results]
    if not any(floors) and all(_missing(metric) for metric in metrics) and len(reasons) == 1:
        return f'<tr class="absent">{head}<td colspan="{len(results)}" class="none">not available: {escape(reasons.pop())}</td></tr>'
    cells = "".join(_cell(metric, metrics[0] if i else None, about.unit, floors[i]) for i, metric in enumerate(metrics))
    return f"<tr>{head}{cells}</tr>"


def _missing(metric: Mapping[str, Any]) -> bool:
    return metric.get("value") is None or metric.get("kind") == "not_available"


def _floor(result: Result, name: str, unit: str) -> str:
    """How far a baseline is from itself at another batch shape: what smaller differences than that mean nothing against."""
    floor = floor_of(result, name)
    if floor is None:
        return ""
    sign = "± " if _has_value(result, name) else ""
    title = "the baseline against itself at another batch shape: a smaller difference than this means nothing"
    return f'<span title="{title}">noise floor {sign}{escape(shown(floor, unit))}</span>'


def _has_value(result: Result, name: str) -> bool:
    return not _missing(result.get("metrics", {}).get(name) or {})


def _cell(metric: Mapping[str, Any], baseline: Mapping[str, Any] | None, unit: str, floor: str = "") -> str:
    if _missing(metric) and floor:
        return f'<td class="none">{floor}</td>'
    if _missing(metric):
        return f'<td class="none">not available<small>{escape(metric.get("reason") or "not measured")}</small></td>'
    kind = metric.get("kind", "measured")
    mark = f' <span class="kind">{escape(kind)}</span>' if kind != "measured" else ""
    parts = [f"<td><b>{escape(shown(float(metric['value']), unit))}</b>{mark}"]
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


def quality_html(results: Sequence[Result]) -> str:
    """On what the quality figures were measured: text, window, stride and positions; nothing where nothing was scored."""
    known = dict.fromkeys(str(result["quality_about"]) for result in results if result.get("quality_about"))
    return f'<p class="provenance measured-on">Quality measured on: {escape("; ".join(known))}</p>' if known else ""


def prepared_html(view: View) -> str:
    """The exact input of each variant after the chat template, with token counts; variants with the same input share one list."""
    groups: dict[Any, list[str]] = {}
    for variant in view.variants:
        if variant.prepared is not None:
            groups.setdefault((variant.prepared.texts, variant.prepared.token_counts, variant.prepared.templated), []).append(variant.name)
    if not groups:
        return '<p class="quiet">The text that the model really sees, and its number of tokens, appear here once a run has begun.</p>'
    return "".join(_prepared(names, *key) for key, names in groups.items())


def _prepared(names: list[str], texts: Sequence[str], counts: Sequence[int], templated: bool) -> str:
    how = "through the model's chat template" if templated else "as written, no chat template"
    items = "".join(
        f"<li><b>{count:,} tokens</b><pre>{escape(text)}</pre></li>"
        for text, count in list(zip(texts, counts, strict=False))[:SHOWN_PROMPTS]
    )
    more = f"<p>… and {len(texts) - SHOWN_PROMPTS} more prompts</p>" if len(texts) > SHOWN_PROMPTS else ""
    return f'<p class="quiet">{escape(", ".join(names))}: {how}</p><ol class="prepared">{items}</ol>{more}'
