"""A variant's headline numbers and its verdict, as they stand in its column on the page and on its card in a report.

Pure and escaped HTML. Example::

    verdict_html(result) + numbers_html(result, baseline)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from playground.measure.metrics import METRICS
from playground.results.html.text import escape
from playground.results.numbers import NO_DIFFERENCE, change, interval, shown, spread_about, unstable, value_of

Result = Mapping[str, Any]
PEAKS = ("peak_allocated_bytes", "peak_rss_bytes")
STEADY = ("itl_s", "output_tokens_per_s")
HEADLINES = ("ttft_s", "itl_s", "output_tokens_per_s", *PEAKS, "kld_mean")
STEADIER = "use more repeats: the careful protocol takes 10, in two alternating rounds"
BOTTLENECKS = {
    "launch": "launch-bound",
    "host": "host-bound",
    "memory": "memory-bound",
    "compute": "compute-bound",
    "communication": "communication-bound",
    "unknown": "bottleneck not known",
}


def verdict_html(result: Result | None) -> str:
    """What bounds a variant that is done, in a badge and a sentence; and whether its passes vary too much to compare."""
    known = (result or {}).get("verdict")
    if result is None or result.get("status") != "done" or not known:
        return '<div class="verdict"></div>'
    name = str(known.get("bottleneck", "unknown"))
    badge = f'<b class="bound {escape(name)}">{escape(BOTTLENECKS.get(name, name))}</b>'
    return f'<div class="verdict"><p>{badge} {escape(known.get("sentence", ""))}</p>{_unsteady(result)}</div>'


def _unsteady(result: Result) -> str:
    for name in STEADY:
        if share := unstable(result.get("metrics", {}).get(name) or {}):
            return f'<p class="unsteady" title="{escape(METRICS[name].title)}">unstable: the repeats vary by {share}; {STEADIER}</p>'
    return ""


def headlines(result: Result) -> list[str]:
    """Names of the metrics at the top of a column: of the memory peaks the first that was measured."""
    peak = next((name for name in PEAKS if value_of(result, name) is not None), PEAKS[-1])
    return [name for name in HEADLINES if name not in PEAKS or name == peak]


def numbers_html(result: Result | None, baseline: Result | None) -> str:
    """Headline metrics of a variant with intervals and changes; `baseline` is the baseline's result (None for the baseline itself)."""
    if result is None or result.get("status") == "failed":
        return '<dl class="numbers"></dl>'
    return f'<dl class="numbers">{"".join(_number(name, result, baseline) for name in headlines(result))}</dl>'


def _number(name: str, result: Result, baseline: Result | None) -> str:
    metric, about = result.get("metrics", {}).get(name) or {}, METRICS[name]
    title, head = escape(about.formula), f"<dt>{escape(about.title)}</dt>"
    if value_of(result, name) is None:
        if baseline is None and name == "kld_mean":
            return ""
        reason = escape(metric.get("reason") or "not measured")
        return f'<div title="{title}">{head}<dd class="none">not available</dd><dd class="small">{reason}</dd></div>'
    value = f"<dd>{escape(shown(float(metric['value']), about.unit))}</dd>"
    spread = f'<span title="{escape(spread_about(metric))}">{escape(interval(metric))}</span>' if interval(metric) else ""
    below = [part for part in (spread, _delta(name, result, baseline)) if part]
    return f'<div title="{title}">{head}{value}<dd class="small">{" · ".join(below)}</dd></div>'


def _delta(name: str, result: Result, baseline: Result | None) -> str:
    if baseline is None:
        return ""
    found = change(result["metrics"][name], baseline.get("metrics", {}).get(name) or {})
    if found is None:
        return ""
    spread = f", 95 % interval {found.spread}" if found.spread else ""
    if found.shown is False:
        title = f"{NO_DIFFERENCE}: the intervals overlap{spread}"
        return f'<span class="delta none" title="{escape(title)}">{escape(found.text)}, within the noise</span>'
    return f'<span class="delta" title="{escape("against the baseline" + spread)}">{escape(found.text)}</span>'
