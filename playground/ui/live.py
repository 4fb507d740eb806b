"""Live charts of a running experiment: four panels, one line a variant, at most 300 points a line. Pure.

The value is what assets/live_charts.js draws in place. Example::

    json.loads(live_json(view))["groups"][0]["panels"][0]["id"]   # "latency"
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from playground.results.charts import legend
from playground.results.drawing import colour
from playground.results.numbers import Scale, scale_for
from playground.ui.series import Series
from playground.ui.view import LATENCY, LOAD, MEMORY, THROUGHPUT, View

NOTHING = Series()
KEPT_LINES = 128  # of lines that have ended, what is drawn is not worked out again for each update
SINCE_FIRST_TOKEN = "seconds since the variant's first pass began"
SINCE_START = "seconds since the variant began"
SOURCES = {
    "process_bytes": "GPU memory of the worker",
    "device_used_bytes": "GPU memory in use",
    "rss_bytes": "Resident memory of the worker",
    "gpu_util": "GPU busy",
    "cpu_percent": "CPU busy, all cores",
}


@dataclass(frozen=True)
class Panel:
    """One chart: which line of a variant it shows, and in what unit."""

    id: str
    title: str
    line: str
    x_title: str
    unit: str
    y_title: Callable[[str], str]


PANELS = (
    Panel("latency", "Latency per token", LATENCY, SINCE_FIRST_TOKEN, "s", lambda unit: f"{unit} between tokens"),
    Panel("throughput", "Throughput", THROUGHPUT, SINCE_FIRST_TOKEN, "tokens/s", lambda unit: "tokens/s, all rows"),
    Panel("memory", "Memory", MEMORY, SINCE_START, "B", lambda unit: unit),
    Panel("load", "Device load", LOAD, SINCE_START, "share", lambda unit: unit),
)


def live_json(view: View) -> str:
    """The charts as JSON; every panel is there from the start, so that the page does not jump."""
    shown = json.dumps(legend([variant.name for variant in view.variants]))
    panels = ", ".join(_panel(panel, view) for panel in PANELS)
    return f'{{"legend": {shown}, "groups": [{{"title": "", "panels": [{panels}]}}]}}'


def _panel(panel: Panel, view: View) -> str:
    """Its JSON, put together from that of its lines, most of which have ended and stay as they are."""
    lines = [variant.series.get(panel.line, NOTHING) for variant in view.variants]
    scale = scale_for(max(_highest(line) for line in lines), panel.unit)
    if panel.unit == "s" and scale.unit == "s":
        scale = Scale(1000.0, "ms")
    traces = ", ".join(_line(index, view.variants[index].name, line, scale) for index, line in enumerate(lines))
    sources = {variant.sources[panel.line] for variant in view.variants if panel.line in variant.sources}
    title = SOURCES.get(next(iter(sources)), panel.title) if len(sources) == 1 else panel.title
    layout = {
        "margin": {"l": 8, "r": 12, "t": 6, "b": 40},
        "xaxis": {"title": {"text": panel.x_title, "standoff": 6}, "rangemode": "tozero", "zeroline": False},
        "yaxis": {"title": {"text": panel.y_title(scale.unit), "standoff": 8}, "rangemode": "tozero", "zeroline": False, "nticks": 5},
        "hovermode": "x unified" if len(lines) > 1 else "closest",
        "showlegend": False,
    }
    rest = json.dumps({"id": panel.id, "title": title, "height": 210})
    return f'{rest[:-1]}, "figure": {{"data": [{traces}], "layout": {json.dumps(layout)}}}}}'


@lru_cache(KEPT_LINES)
def _highest(line: Series) -> float:
    return max((y for _, y in line.points if y is not None), default=0.0)


@lru_cache(KEPT_LINES)
def _line(index: int, name: str, line: Series, scale: Scale) -> str:
    """The JSON of a trace, its numbers to the digits that can be seen."""
    points = line.points
    trace = {
        "type": "scatter",
        "mode": "lines" if len(points) > 1 else "markers",
        "name": name.replace("<", "&lt;"),
        "x": [float(f"{x:.5g}") for x, _ in points],
        "y": [None if y is None else float(f"{y * scale.factor:.4g}") for _, y in points],
        "meta": {"variant": index},
        "line": {"width": 1.8, "color": colour(index)},
        "marker": {"size": 5, "color": colour(index)},
        "hovertemplate": f"%{{y:.4g}} {scale.unit}",
    }
    return json.dumps(trace)
