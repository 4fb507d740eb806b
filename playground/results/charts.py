"""Final charts of a finished experiment, from result documents: small panels of horizontal bars, one bar a variant, the baseline grey.

Figures are plain Plotly JSON (`plotly.graph_objects.Figure(panel["figure"])` accepts them); colours are those of a light page and are
replaced by the style sheet's on the page. What is not available is a note with its reason, never a bar of length 0. Example::

    charts(results, ["fp32 (baseline)", "B: bf16"])["groups"][0]["title"]   # "Latency"
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from playground.measure.metrics import METRICS
from playground.results.numbers import Scale, digits, scale_for, shown, value_of

Result = Mapping[str, Any]
SHORT = 14
COLOURS = ("#8a8984", "#0072b2", "#d55e00", "#009e73")
PEAKS = ("peak_allocated_bytes", "rss_growth_bytes")
GROUPS = (
    ("Latency", ("ttft_s", "itl_s", "itl_p95_s")),
    ("Throughput", ("decode_tokens_per_s", "output_tokens_per_s", "prefill_tokens_per_s")),
    ("Output quality against the baseline", ("kld_mean", "top1_agreement", "matching_tokens", "ppl")),
)
MEMORY_PARTS = (("weights_bytes", "Weights", 1.0), ("kv_cache_bytes", "KV cache", 0.6), ("rest_bytes", "Activations and the rest", 0.3))


@dataclass(frozen=True)
class Bar:
    """One bar: the variant's index and name, and its metric (or why there is none)."""

    variant: int
    name: str
    metric: Mapping[str, Any]

    @property
    def value(self) -> float | None:
        """The value, None where it is not available."""
        value = self.metric.get("value")
        return None if value is None or self.metric.get("kind") == "not_available" else float(value)


def charts(results: Sequence[Result], names: Sequence[str]) -> dict[str, Any]:
    """Everything that assets/live_charts.js draws for a finished experiment: legend and groups of panels."""
    groups = [{"title": title, "panels": [bars(metric, results, names) for metric in metrics]} for title, metrics in GROUPS]
    groups.insert(1, {"title": "Memory", "panels": [memory(results, names)]})
    return {"legend": legend(names), "groups": groups}


def legend(names: Sequence[str]) -> list[dict[str, Any]]:
    """Entries that show and hide a variant."""
    return [{"name": name, "variant": index} for index, name in enumerate(names)]


def bars(metric: str, results: Sequence[Result], names: Sequence[str]) -> dict[str, Any]:
    """One metric of all variants, with 95 % intervals where there are any and the formula on hover."""
    about = METRICS[metric]
    rows = [Bar(i, name, r.get("metrics", {}).get(metric) or _failed(r)) for i, (r, name) in enumerate(zip(results, names, strict=True))]
    present = [bar for bar in rows if bar.value is not None]
    if not present:
        return _absent(metric, about.title, rows)
    scale = scale_for(max(abs(bar.value or 0) for bar in present), about.unit)
    traces = [trace for bar in present for trace in (_bar(bar, scale, about.formula), _label(bar, scale))]
    notes = [_note(bar.name, str(bar.metric.get("reason") or "not measured")) for bar in rows if bar.value is None]
    layout = _layout(names, scale.unit)
    largest = max(_reach(bar) * scale.factor for bar in present) or 1.0
    layout["xaxis"]["range"] = [0, largest * 1.5]
    return _panel(metric, about.title, {"data": traces, "layout": {**layout, "annotations": notes}}, len(names))


def _absent(metric: str, title: str, rows: Sequence[Bar]) -> dict[str, Any]:
    """A panel without a figure: why no variant has this metric."""
    reasons = dict.fromkeys(str(bar.metric.get("reason") or "not measured") for bar in rows)
    return {"id": metric, "title": title, "figure": None, "note": f"Not available: {'; '.join(reasons)}"}


def memory(results: Sequence[Result], names: Sequence[str]) -> dict[str, Any]:
    """Weights, KV cache and the rest stacked, the measured peak as a mark."""
    known = [value for r in results for name in (*PEAKS, "weights_bytes") if (value := value_of(r, name)) is not None]
    scale = scale_for(max(known, default=0.0), "B")
    traces = [_part(i, r, name, part, scale) for i, (r, name) in enumerate(zip(results, names, strict=True)) for part in MEMORY_PARTS]
    marks = [_peak(i, r, name, scale) for i, (r, name) in enumerate(zip(results, names, strict=True))]
    data = [trace for trace in (*traces, *marks) if trace is not None]
    notes = [_note(name, _memory_reason(r)) for r, name in zip(results, names, strict=True) if value_of(r, "weights_bytes") is None]
    layout = _layout(names, scale.unit)
    layout["xaxis"] |= {"range": [0, max(known, default=1.0) * scale.factor * 1.25 or 1.0], "visible": bool(known)}
    figure = {"data": data, "layout": {**layout, "barmode": "stack", "annotations": notes}}
    panel = _panel("memory", "Weights, KV cache and the rest", figure, len(names))
    return {
        **panel,
        "wide": True,
        "note": "Full colour: weights. Lighter: KV cache. Lightest: activations and the rest. Line: measured peak.",
    }


def _bar(bar: Bar, scale: Scale, formula: str) -> dict[str, Any]:
    value = (bar.value or 0.0) * scale.factor
    ends = bar.metric.get("ci95")
    spread = (ends[1] - ends[0]) / 2 * scale.factor if ends else None
    words = f"{digits(value)} {scale.unit}".strip()
    about = f"{words} ± {digits(spread, 2)}" if spread is not None else words
    hover = _hover(bar.name, f"{about}, n = {bar.metric.get('n')}", formula)
    trace: dict[str, Any] = {
        "type": "bar",
        "orientation": "h",
        "x": [value],
        "y": [short(bar.name)],
        "meta": {"variant": bar.variant},
        "marker": {"color": COLOURS[bar.variant % 4]},
        "width": 0.62,
        "hovertemplate": hover,
        "showlegend": False,
    }
    if spread is not None:
        trace["error_x"] = {"type": "data", "array": [spread], "thickness": 1.4, "width": 4}
    return trace


def _label(bar: Bar, scale: Scale) -> dict[str, Any]:
    """The value in words, right of the bar and of its interval."""
    return {
        "type": "scatter",
        "mode": "text",
        "x": [_reach(bar) * scale.factor],
        "y": [short(bar.name)],
        "meta": {"variant": bar.variant},
        "text": [f" {digits((bar.value or 0.0) * scale.factor)}"],
        "textposition": "middle right",
        "cliponaxis": False,
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _reach(bar: Bar) -> float:
    ends = bar.metric.get("ci95")
    return max(abs(bar.value or 0.0), float(ends[1]) if ends else 0.0)


def _part(index: int, result: Result, name: str, part: tuple[str, str, float], scale: Scale) -> dict[str, Any] | None:
    metric, title, opacity = part
    value = value_of(result, metric)
    if value is None:
        return None
    return {
        "type": "bar",
        "orientation": "h",
        "x": [max(0.0, value) * scale.factor],
        "y": [short(name)],
        "meta": {"variant": index},
        "marker": {"color": COLOURS[index % 4], "opacity": opacity},
        "width": 0.62,
        "hovertemplate": _hover(name, f"{title}: {shown(value, 'B')}", METRICS[metric].formula),
        "showlegend": False,
    }


def _peak(index: int, result: Result, name: str, scale: Scale) -> dict[str, Any] | None:
    metric = next((peak for peak in PEAKS if value_of(result, peak) is not None), None)
    if metric is None:
        return None
    value = value_of(result, metric) or 0.0
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": [value * scale.factor],
        "y": [short(name)],
        "meta": {"variant": index},
        "marker": {"symbol": "line-ns", "size": 22, "color": COLOURS[index % 4], "line": {"width": 3, "color": COLOURS[index % 4]}},
        "text": [f"  {shown(value, 'B')}"],
        "textposition": "middle right",
        "cliponaxis": False,
        "hovertemplate": _hover(name, f"peak: {shown(value, 'B')}", METRICS[metric].formula),
        "showlegend": False,
    }


def _layout(names: Sequence[str], x_title: str) -> dict[str, Any]:
    shown_names = [short(name) for name in names]
    return {
        "margin": {"l": 8, "r": 8, "t": 4, "b": 40},
        "xaxis": {"title": {"text": x_title, "standoff": 6}, "rangemode": "tozero", "nticks": 5, "zeroline": True},
        "yaxis": {
            "showgrid": False,
            "type": "category",
            "categoryorder": "array",
            "categoryarray": shown_names[::-1],
            "range": [-0.5, len(names) - 0.5],
        },
        "bargap": 0.3,
        "showlegend": False,
    }


def _panel(name: str, title: str, figure: dict[str, Any], rows: int) -> dict[str, Any]:
    return {"id": name, "title": title, "figure": figure, "height": 64 + 36 * rows}


def _note(name: str, reason: str) -> dict[str, Any]:
    return {
        "x": 0,
        "xref": "paper",
        "y": short(name),
        "xanchor": "left",
        "align": "left",
        "showarrow": False,
        "text": _wrapped(f"not available: {reason}", 24),
        "hovertext": _plain(reason),
        "font": {"size": 11},
    }


def _failed(result: Result) -> dict[str, Any]:
    message = (result.get("error") or {}).get("message")
    return {"kind": "not_available", "reason": message or f"the run was {result.get('status', 'not finished')}"}


def _memory_reason(result: Result) -> str:
    metric = result.get("metrics", {}).get("weights_bytes") or _failed(result)
    return str(metric.get("reason") or "not measured")


def short(name: str) -> str:
    """A name for an axis: as it is where it is short, else what stands before its colon ("Baseline", "B")."""
    return _plain(name if len(name) <= SHORT else name.split(":")[0][:SHORT])


def _hover(name: str, words: str, formula: str) -> str:
    return f"<b>{_plain(name)}</b><br>{words}<br><i>{_wrapped(formula)}</i><extra></extra>"


def _plain(text: str) -> str:
    """Text without what Plotly would read as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _wrapped(text: str, width: int = 60) -> str:
    return "<br>".join(_plain(line) for line in textwrap.wrap(text, width, max_lines=3, placeholder=" …"))
