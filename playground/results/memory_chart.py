"""The memory panel: what the measured memory of each variant is made of, stacked, and the measured peak as a mark.

On a GPU the stack is the whole ladder: weights, KV cache, activations and workspace (together the peak of live tensors), what torch's
allocator holds beyond them, and the driver's context. What of the cache lies in host memory is no part of it. Where the ladder was not
measured it is weights, KV cache and the rest. Example::

    memory(results, names)["figure"]["data"]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from playground.measure.metrics import METRICS
from playground.results.drawing import BAR_WIDTH, Result, absent_note, bar_layout, colour, hover, label, missing, panel, short
from playground.results.numbers import Scale, scale_for, shown, value_of

PEAKS = ("peak_allocated_bytes", "rss_growth_bytes")


@dataclass(frozen=True)
class Part:
    """One layer of the stack: its metric, what it is called, how strong its colour is, and a pattern on it ("": none)."""

    metric: str
    title: str
    opacity: float
    pattern: str = ""


COMMON = (Part("weights_bytes", "weights", 1.0), Part("kv_cache_bytes", "KV cache", 0.62))
LADDER = (
    *COMMON,
    Part("activations_bytes", "activations and workspace", 0.34),
    Part("slack_bytes", "held by the allocator", 0.34, "/"),
    Part("context_bytes", "context of the driver", 0.2, "."),
)
PLAIN = (*COMMON, Part("rest_bytes", "activations and the rest", 0.34))


def memory(results: Sequence[Result], names: Sequence[str]) -> dict[str, Any]:
    """The stack and the peak of each variant."""
    stacks = [_stack(result) for result in results]
    peaks = [_peak_of(result) for result in results]
    longest = max([*(sum(size for _, size in stack) for stack in stacks), *(size for _, size in peaks)], default=0.0)
    scale = scale_for(longest, "B")
    data = [
        trace
        for index, name in enumerate(names)
        for trace in (*(_layer(index, name, part, size, scale) for part, size in stacks[index]), *_marks(index, name, stacks, peaks, scale))
    ]
    layout = bar_layout(names, scale.unit)
    layout["xaxis"] |= {"range": [0, longest * scale.factor * 1.25 or 1.0], "visible": bool(longest)}
    notes = [absent_note(name, _reason(result)) for result, name, stack in zip(results, names, stacks, strict=True) if not stack]
    figure = {"data": data, "layout": {**layout, "barmode": "stack", "annotations": notes}}
    key = list(dict.fromkeys(part for stack in stacks for part, _ in stack))
    words = "Line: measured peak of live tensors." if any(name == PEAKS[0] for name, _ in peaks) else "Line: measured peak."
    parts = [{"name": part.title, "opacity": part.opacity, "pattern": part.pattern} for part in key]
    return panel("memory", "What the memory is made of", figure, len(names), wide=True, key=parts, note=words if any(stacks) else "")


def _stack(result: Result) -> list[tuple[Part, float]]:
    """The layers that were measured, from the bottom."""
    parts = LADDER if value_of(result, "activations_bytes") is not None else PLAIN
    found = [(part, value_of(result, part.metric)) for part in parts]
    elsewhere = {"kv_cache_bytes": value_of(result, "kv_host_bytes") or 0.0}
    return [(part, max(0.0, size - elsewhere.get(part.metric, 0.0))) for part, size in found if size is not None]


def _peak_of(result: Result) -> tuple[str, float]:
    found = ((name, value_of(result, name)) for name in PEAKS)
    return next(((name, size) for name, size in found if size is not None), ("", 0.0))


def _layer(index: int, name: str, part: Part, size: float, scale: Scale) -> dict[str, Any]:
    marker: dict[str, Any] = {"color": colour(index), "opacity": part.opacity}
    if part.pattern:
        marker["pattern"] = {"shape": part.pattern, "solidity": 0.35, "size": 6}
    return {
        "type": "bar",
        "orientation": "h",
        "x": [size * scale.factor],
        "y": [short(name)],
        "meta": {"variant": index},
        "marker": marker,
        "width": BAR_WIDTH,
        "hovertemplate": hover(name, f"{part.title}: {shown(size, 'B')}", METRICS[part.metric].formula),
        "showlegend": False,
    }


def _marks(
    index: int, name: str, stacks: Sequence[Sequence[tuple[Part, float]]], peaks: Sequence[tuple[str, float]], scale: Scale
) -> list[dict[str, Any]]:
    """The peak as a line across the bar, its size in words beyond the end of the stack."""
    metric, peak = peaks[index]
    if not metric:
        return []
    whole = sum(size for _, size in stacks[index])
    words = shown(peak, "B") if whole <= peak * 1.001 else f"{shown(peak, 'B')} of {shown(whole, 'B')}"
    mark = {
        "type": "scatter",
        "mode": "markers",
        "x": [peak * scale.factor],
        "y": [short(name)],
        "meta": {"variant": index},
        "marker": {"symbol": "line-ns", "size": 22, "color": colour(index), "line": {"width": 3, "color": colour(index)}},
        "cliponaxis": False,
        "hovertemplate": hover(name, f"peak: {shown(peak, 'B')}", METRICS[metric].formula),
        "showlegend": False,
    }
    return [mark, label(index, name, max(peak, whole) * scale.factor, f" {words}")]


def _reason(result: Result) -> str:
    metric = result.get("metrics", {}).get("weights_bytes") or missing(result)
    return str(metric.get("reason") or "not measured")
