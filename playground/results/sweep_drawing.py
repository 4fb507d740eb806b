"""How a sweep's lines are drawn: axes, points with intervals, predictions, the band beyond the ceilings, guides and marks. Plotly JSON.

Example::

    figure(METRICS["itl_s"], lines, Axes("Batch size", (1, 2, 4, 8)), joined=True)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from playground.core.knobs import KnobValue
from playground.measure.values import Metric
from playground.results.drawing import COLOURS, hover, plain, wrapped
from playground.results.numbers import Scale, digits, scale_for, shown
from playground.results.sweep_lines import Line, Point
from playground.results.sweeps import StoredCell

CONTEXT = "Prompt and output tokens of a row"
LINE_COLOURS = (*COLOURS, "#cc79a7", "#56b4e9", "#e69f00", "#7f4f24")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "pentagon", "star", "hexagon")
SHADE = "rgba(125, 124, 118, 0.16)"
WORDS = {"oom": "out of memory", "skipped": "skipped", "failed": "failed"}
DOUBLES = 1.75  # from one value to the next, on the whole: the axis is then logarithmic
SPREAD = 4.0  # largest over smallest value from which on the other axis is logarithmic too
MOST_TICKS = 9
MOST_CHARACTERS = 30  # of an axis' numbers, where a third of the page is the chart's width


@dataclass(frozen=True)
class Axes:
    """The horizontal axis: its title and the values that it has."""

    title: str
    values: tuple[KnobValue, ...]

    @property
    def numeric(self) -> bool:
        """Whether it is a scale and not a row of names."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)

    @property
    def doubles(self) -> bool:
        """Whether it is logarithmic."""
        if not self.numeric or len(self.values) < 3 or min(map(float, self.values)) <= 0:
            return False
        ascending = sorted(map(float, self.values))
        return ascending[-1] / ascending[0] >= DOUBLES ** (len(ascending) - 1)

    def place(self, x: KnobValue) -> Any:
        """x as a trace wants it."""
        return float(x) if self.numeric else plain(str(x))

    def layout(self) -> dict[str, Any]:
        """Plotly's axis."""
        base: dict[str, Any] = {"title": {"text": plain(self.title), "standoff": 6}, "zeroline": False}
        if not self.numeric:
            names = [plain(str(value)) for value in self.values]
            return {**base, "type": "category", "categoryorder": "array", "categoryarray": names, "range": [-0.5, len(names) - 0.5]}
        ascending = sorted(set(map(float, self.values)))
        ticks = ascending[:: math.ceil(len(ascending) / MOST_TICKS)]
        texts = [digits(tick) for tick in ticks]
        if len("".join(texts)) > MOST_CHARACTERS:  # every second one, and the last
            texts = [text if (len(texts) - place) % 2 else "" for place, text in enumerate(texts)]
        base |= {"tickvals": ticks, "ticktext": texts, "tickangle": 0}
        low, high = ascending[0], ascending[-1]
        if self.doubles:
            room = 0.06 * math.log10(high / low)
            return {**base, "type": "log", "range": [math.log10(low) - room, math.log10(high) + room]}
        room = 0.06 * (high - low) or 0.5
        return {**base, "range": [low - room, high + room]}


def numbers(title: str, values: Sequence[float]) -> Axes | None:
    """An axis of measured numbers; None without any."""
    return Axes(title, tuple(sorted(set(values)))) if values else None


def figure(metric: Metric, lines: Sequence[Line], along: Axes, joined: bool, floor: float | None = None) -> dict[str, Any]:
    """Measured points, joined by lines where they are points of a curve, and predictions; the vertical range holds all of them, and the
    noise floor."""
    values = [value for line in lines for point in line.points for value in _values(point)] + ([floor] if floor else [])
    scale = scale_for(max(values), metric.unit)
    logarithmic = (along.doubles or floor is not None) and min(values) > 0 and max(values) / min(values) >= SPREAD
    low, high = min(values) * scale.factor, max(values) * scale.factor
    reach = [math.log10(low) - 0.08, math.log10(high) + 0.08] if logarithmic else [0.0, high * 1.08 or 1.0]
    y = {"title": {"text": scale.unit, "standoff": 6}, "type": "log" if logarithmic else "linear", "range": reach, "zeroline": False}
    traces = [trace for line in lines for trace in (_predicted(line, along, scale), _measured(metric, line, along, scale, joined)) if trace]
    layout = {
        "margin": {"l": 8, "r": 12, "t": 8, "b": 44},
        "xaxis": along.layout(),
        "yaxis": y | ({"dtick": 1 if high / low > 50 else "D2", "tickformat": ",~r"} if logarithmic else {}),
        "showlegend": False,
        "hovermode": "closest",
        "annotations": [],
    }
    return {"data": traces, "layout": layout}


def band(metric: Metric, lines: Sequence[Line], along: Axes) -> list[dict[str, Any]]:
    """For each line the edge of what the device allows, shaded on the side that cannot be reached."""
    values = [value for line in lines for point in line.points for value in _values(point)]
    scale = scale_for(max(values), metric.unit)
    traces = []
    for line in lines:
        known = [(along.place(point.x), point.best * scale.factor) for point in line.points if point.best]
        if not known:
            continue
        beyond = max(values) * scale.factor * 1e3 if metric.direction == "higher" else min(filter(None, values)) * scale.factor / 1e3
        common = {"type": "scatter", "mode": "lines", "x": [x for x, _ in known], "meta": {"ceiling": True}, "showlegend": False}
        edge = {**common, "y": [best for _, best in known], "line": {"width": 1.2}}
        edge["hovertemplate"] = hover(line.name, "the most that the device allows", "by its copy and its matrix product")
        far = {**common, "y": [beyond] * len(known), "line": {"width": 0}, "fill": "tonexty", "fillcolor": SHADE, "hoverinfo": "skip"}
        traces += [edge, far]
    return traces


def guide(at: float, line: int | None, drawn: dict[str, Any], words: str, across: bool = False) -> dict[str, Any]:
    """A dashed line through the whole chart at one x, or `across` at one y (in the metric's own unit where that is not scaled)."""
    axis = drawn["layout"]["xaxis" if across else "yaxis"]
    ends = [10**end if axis.get("type") == "log" else end for end in axis["range"]]
    if axis.get("type") == "category":
        ends = [axis["categoryarray"][0], axis["categoryarray"][-1]]
    x, y = (ends, [at, at]) if across else ([at, at], ends)
    meta = {"ceiling": True} if line is None else _meta(line)
    return {
        "type": "scatter", "mode": "lines", "x": x, "y": y, "meta": meta, "showlegend": False, "name": words,
        "line": {"width": 1.4, "dash": "dash", **({} if line is None else {"color": _colour(line)})},
        "hovertemplate": f"{plain(words)}: {digits(at)}<extra></extra>",
    }  # fmt: skip


def marks(cells: Sequence[StoredCell], along: Axes) -> list[dict[str, Any]]:
    """On the axis, what became of runs without numbers, with their reasons on hover."""
    found: dict[Any, list[StoredCell]] = {}
    for held in cells:
        if held.status in WORDS:
            found.setdefault(along.place(held.cell.point[0]), []).append(held)
    return [
        {
            "x": math.log10(x) if along.doubles else x,
            "y": 0,
            "yref": "paper",
            "yanchor": "bottom",
            "showarrow": False,
            "textangle": -90,
            "text": "✕ " + ", ".join(dict.fromkeys(WORDS[item.status] for item in held)),
            "hovertext": "<br>".join(f"{plain(item.cell.label)}: {wrapped(item.reason)}" for item in held),
            "font": {"size": 11},
        }
        for x, held in found.items()
    ]


def _values(point: Point) -> list[float]:
    """What must be seen of a point; its ceiling may lie far away."""
    return [value for value in (point.y, point.predicted, *(point.ends or ())) if value is not None and value >= 0]


def _measured(metric: Metric, line: Line, along: Axes, scale: Scale, joined: bool) -> dict[str, Any] | None:
    points = line.measured
    if not points:
        return None
    colour = _colour(line.number)
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers" if joined else "markers+text",
        "name": plain(line.name),
        "x": [along.place(point.x) for point in points],
        "y": [(point.y or 0.0) * scale.factor for point in points],
        "meta": _meta(line.number),
        "line": {"width": 2, "color": colour},
        "marker": {"size": 8, "color": colour, "symbol": SYMBOLS[line.number % len(SYMBOLS)]},
        "showlegend": False,
        "customdata": [_about(point, metric) for point in points],
        "hovertemplate": f"<b>{plain(line.name)}</b><br>%{{customdata}}<br><i>{wrapped(metric.formula)}</i><extra></extra>",
    }
    if not joined:
        trace |= {
            "text": [f"  {plain(str(point.cell.cell.point[0]))}" for point in points],
            "textposition": "middle right",
            "cliponaxis": False,
        }
    if any(point.ends for point in points):
        ends = [point.ends or (point.y or 0.0, point.y or 0.0) for point in points]
        above = [(high - (point.y or 0.0)) * scale.factor for (_, high), point in zip(ends, points, strict=True)]
        below = [((point.y or 0.0) - low) * scale.factor for (low, _), point in zip(ends, points, strict=True)]
        trace["error_y"] = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.4, "width": 4}
    return trace


def _predicted(line: Line, along: Axes, scale: Scale) -> dict[str, Any] | None:
    known = [point for point in line.points if point.predicted is not None]
    if not known:
        return None
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [along.place(point.x) for point in known],
        "y": [(point.predicted or 0.0) * scale.factor for point in known],
        "meta": _meta(line.number),
        "line": {"width": 1.4, "dash": "dot", "color": _colour(line.number)},
        "hovertemplate": f"<b>{plain(line.name)}</b><br>predicted: %{{y:.3~g}} {scale.unit}<extra></extra>",
        "showlegend": False,
    }


def _about(point: Point, metric: Metric) -> str:
    """A point in words: its cell, its value with its interval, and what was predicted."""
    words = f"{plain(point.cell.cell.label)}: {shown(point.y or 0.0, metric.unit)}"
    if point.ends:
        words += f" ({shown(point.ends[0], metric.unit)} to {shown(point.ends[1], metric.unit)})"
    return words + (f"<br>predicted {shown(point.predicted, metric.unit)}" if point.predicted is not None else "")


def _meta(line: int) -> dict[str, Any]:
    return {"variant": line}


def _colour(line: int) -> str:
    return LINE_COLOURS[line % len(LINE_COLOURS)]
