"""Final charts of a finished experiment, from result documents: small panels of horizontal bars, one bar a variant, the baseline grey.

Figures are plain Plotly JSON (`plotly.graph_objects.Figure(panel["figure"])` accepts them); colours are those of a light page and are
replaced by the style sheet's on the page. What is not available is a note with its reason, never a bar of length 0. Example::

    charts(results, ["fp32 (baseline)", "B: bf16"])["groups"][0]["title"]   # "Latency"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from playground.measure.metrics import METRICS
from playground.results.drawing import BAR_WIDTH, Result, absent_note, bar_layout, colour, hover, label, missing, panel, short
from playground.results.memory_chart import memory
from playground.results.numbers import Scale, digits, floor_of, scale_for, shown, value_of
from playground.results.profile_chart import profile
from playground.results.roofline_chart import roofline
from playground.results.timeline_chart import timeline

LATENCY = ("ttft_s", "itl_s", "itl_p95_s")
THROUGHPUT = ("decode_tokens_per_s", "output_tokens_per_s", "prefill_tokens_per_s")
ENERGY = ("j_per_token", "avg_power_w", "cost_per_million")
EFFICIENCY = ("gpu_busy", "kernels_per_token", "mbu", "mfu")
QUALITY = ("kld_mean", "kld_p99", "top1_agreement", "matching_tokens", "ppl", "ppl_chinese", "question_accuracy")
OPTIONAL = (*ENERGY, *EFFICIENCY, "kld_p99", "ppl_chinese", "question_accuracy")
FROM_ONE = ("top1_agreement",)
AROUND_BASELINE = ("ppl",)
FLOOR_WORDS = "Dashed: noise floor {}, the baseline against itself at another batch shape."


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

    @property
    def ends(self) -> tuple[float, float] | None:
        """The 95 % interval, None where there is none."""
        ends = self.metric.get("ci95")
        return (float(ends[0]), float(ends[1])) if ends else None

    @property
    def reach(self) -> float:
        """Where the bar and its interval end."""
        return max(abs(self.value or 0.0), self.ends[1] if self.ends else 0.0)


def charts(results: Sequence[Result], names: Sequence[str]) -> dict[str, Any]:
    """Everything that assets/live_charts.js draws for a finished experiment: legend and groups of panels."""
    groups = [
        _group("Latency", LATENCY, results, names),
        {"title": "Memory", "panels": [memory(results, names)]},
        _group("Throughput", THROUGHPUT, results, names),
        {"title": "Requests", "wide": True, "panels": [drawn for drawn in (timeline(results, names),) if drawn]},
        _group("Energy", ENERGY, results, names),
        _group("Efficiency", EFFICIENCY, results, names),
        {"title": "Why", "wide": True, "panels": [drawn for drawn in (profile(results, names), roofline(results, names)) if drawn]},
        _group("Output quality against the baseline", QUALITY, results, names),
    ]
    return {"legend": legend(names), "groups": [group for group in groups if group["panels"] or group.get("note")]}


def legend(names: Sequence[str]) -> list[dict[str, Any]]:
    """Entries that show and hide a variant."""
    return [{"name": name, "variant": index} for index, name in enumerate(names)]


def _group(title: str, metrics: Sequence[str], results: Sequence[Result], names: Sequence[str]) -> dict[str, Any]:
    """Panels of those metrics; where none of an optional group has a value, one line with the reason in their place."""
    wanted = [name for name in metrics if name in METRICS]
    have = [name for name in wanted if name not in OPTIONAL or any(value_of(result, name) is not None for result in results)]
    group: dict[str, Any] = {"title": title, "panels": [bars(metric, results, names) for metric in have]}
    if wanted and not have:
        reasons = dict.fromkeys(str(_metric(result, wanted[0]).get("reason") or "not measured") for result in results)
        group["note"] = f"Not available: {'; '.join(reasons)}"
    return group


def _metric(result: Result, name: str) -> Mapping[str, Any]:
    return result.get("metrics", {}).get(name) or missing(result)


def bars(metric: str, results: Sequence[Result], names: Sequence[str]) -> dict[str, Any]:
    """One metric of all variants, with 95 % intervals where there are any, the noise floor of a quality metric, the formula on hover."""
    about = METRICS[metric]
    rows = [Bar(index, name, _metric(result, metric)) for index, (result, name) in enumerate(zip(results, names, strict=True))]
    present = [bar for bar in rows if bar.value is not None]
    if not present:
        reasons = dict.fromkeys(str(bar.metric.get("reason") or "not measured") for bar in rows)
        return {"id": metric, "title": about.title, "figure": None, "note": f"Not available: {'; '.join(reasons)}"}
    floor = floor_of(results[0], metric) if results else None
    scale = scale_for(max(abs(bar.value or 0) for bar in present), about.unit)
    traces = [trace for bar in present for trace in (_bar(bar, scale, about.formula), _value(bar, scale))]
    layout = bar_layout(names, scale.unit)
    band = _band(metric, floor, rows[0].value)
    far = max([*(bar.reach for bar in present), *(band if band else ())]) * scale.factor or 1.0
    layout["xaxis"]["range"] = [0, far * 1.5]
    layout["annotations"] = [_absent(bar, floor, about.unit) for bar in rows if bar.value is None]
    if band:
        layout["shapes"] = _floor_shapes(band, scale)
    figure = {"data": traces, "layout": layout}
    note = {"note": FLOOR_WORDS.format(_floor_words(metric, floor or 0.0, about.unit))} if band else {}
    return panel(metric, about.title, figure, len(names), **note)


def _absent(bar: Bar, floor: float | None, unit: str) -> dict[str, Any]:
    if bar.variant == 0 and floor is not None:
        return absent_note(bar.name, f"noise floor {shown(floor, unit)}", "")
    return absent_note(bar.name, str(bar.metric.get("reason") or "not measured"))


def _band(metric: str, floor: float | None, baseline: float | None) -> tuple[float, float] | None:
    """Values that noise alone gives: from the perfect one to the floor, or the floor around the baseline's; None without a floor."""
    if floor is None:
        return None
    if metric in AROUND_BASELINE:
        return None if baseline is None else (max(0.0, baseline - floor), baseline + floor)
    if metric in FROM_ONE:
        return floor, 1.0
    return (floor, floor) if metric == "matching_tokens" else (0.0, floor)


def _floor_words(metric: str, floor: float, unit: str) -> str:
    return f"± {shown(floor, unit)}" if metric in AROUND_BASELINE else shown(floor, unit)


def _floor_shapes(band: tuple[float, float], scale: Scale) -> list[dict[str, Any]]:
    """The band of noise and dashed lines at those of its ends that are measured."""
    low, high = band[0] * scale.factor, band[1] * scale.factor
    box = {"type": "rect", "x0": low, "x1": high, "yref": "paper", "y0": 0, "y1": 1, "line": {"width": 0}, "opacity": 0.5, "layer": "below"}
    ends = {low, high} - {0.0, scale.factor}  # a perfect value is no measured end
    lines = [
        {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": {"width": 1.4, "dash": "dash"}} for x in sorted(ends)
    ]
    return [box, *lines]


def _bar(bar: Bar, scale: Scale, formula: str) -> dict[str, Any]:
    value = (bar.value or 0.0) * scale.factor
    about = f"{digits(value)} {scale.unit}".strip()
    trace: dict[str, Any] = {
        "type": "bar",
        "orientation": "h",
        "x": [value],
        "y": [short(bar.name)],
        "meta": {"variant": bar.variant},
        "marker": {"color": colour(bar.variant)},
        "width": BAR_WIDTH,
        "showlegend": False,
    }
    if bar.ends:
        above, below = bar.ends[1] * scale.factor - value, value - bar.ends[0] * scale.factor
        trace["error_x"] = {"type": "data", "symmetric": False, "array": [above], "arrayminus": [below], "thickness": 1.4, "width": 4}
        even = abs(above - below) <= 1e-6 * max(above, below)
        about += f" ± {digits(above, 2)}" if even else f" ({digits(value - below)} to {digits(value + above)})"
    trace["hovertemplate"] = hover(bar.name, f"{about}, n = {bar.metric.get('n')}", formula)
    return trace


def _value(bar: Bar, scale: Scale) -> dict[str, Any]:
    """The value in words, right of the bar and of its interval."""
    return label(bar.variant, bar.name, bar.reach * scale.factor, digits((bar.value or 0.0) * scale.factor))
