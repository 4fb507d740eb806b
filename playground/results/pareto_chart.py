"""The chart of trade-offs: a point a variant with its intervals, the front as a staircase, dominated variants faded, limits shaded.

It is JSON for assets/live_charts.js, as all charts are. Example::

    pareto_charts(results, names, {"ttft_s": 0.2})["groups"][0]["panels"]   # quality against speed, quality against memory
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from playground.measure.metrics import METRICS
from playground.results.charts import legend
from playground.results.drawing import Result, colour, panel, plain, short, wrapped
from playground.results.numbers import Scale, interval, scale_for, shown
from playground.results.pareto import BY_DEFINITION, Axes, Point, Trade, trade, usual_axes
from playground.results.ranking import Metric, number

HEIGHT = 360
LARGEST_PX, SMALLEST_PX = 34, 9
FADED = {"front": 1.0, "open": 0.7, "dominated": 0.35}
STATES = {
    "front": "on the front: no other variant is better",
    "open": "worse by the means, but the intervals overlap or are missing: these runs cannot tell",
    "dominated": "dominated: shown to be no better on either axis and worse on one than",
}
BETTER = {("x", "lower"): "left", ("x", "higher"): "right", ("y", "lower"): "down", ("y", "higher"): "up"}


def pareto_charts(
    results: Sequence[Result], names: Sequence[str], limits: Mapping[str, float] | None = None, axes: Sequence[Axes] | None = None
) -> dict[str, Any]:
    """Legend and one group with a panel for each pair of axes (the usual ones where none are given); the note names the best variant."""
    trades = [trade(results, names, each, limits) for each in (usual_axes(results) if axes is None else axes)]
    if not trades:
        return {"legend": legend(names), "groups": []}
    panels = [_panel(found, names, limits or {}) for found in trades]
    group = {"title": "Trade-offs", "wide": True, "note": trades[0].sentence, "panels": panels}
    return {"legend": legend(names), "groups": [group]}


def _panel(found: Trade, names: Sequence[str], limits: Mapping[str, float]) -> dict[str, Any]:
    axes = found.axes
    title = f"{METRICS[axes.y].title} against {METRICS[axes.x].title[:1].lower()}{METRICS[axes.x].title[1:]}"
    name = f"pareto-{axes.x}-{axes.y}"
    if not found.points:
        return panel(name, title, None, 0, height=HEIGHT, note=_note(found))
    scales = {axis: _scale(found.points, axis, metric) for axis, metric in (("x", axes.x), ("y", axes.y))}
    ranges = {axis: _range(found.points, axis, scales[axis], limits.get(metric)) for axis, metric in (("x", axes.x), ("y", axes.y))}
    line = limits[axes.y] * scales["y"].factor if axes.y in limits else None
    spots = _label_spots(found.points, scales, ranges, line)
    traces = [_front(found, scales), *(_trace(point, found, names, scales, spots[point.variant]) for point in found.points)]
    layout = {
        "margin": {"l": 8, "r": 12, "t": 6, "b": 58},
        "xaxis": _axis("x", axes.x, scales["x"], ranges["x"]),
        "yaxis": _axis("y", axes.y, scales["y"], ranges["y"]),
        "shapes": [shape for axis, metric in (("x", axes.x), ("y", axes.y)) for shape in _limit(axis, metric, limits, scales, ranges)],
        "showlegend": False,
        "hovermode": "closest",
    }
    return panel(name, title, {"data": traces, "layout": layout}, 0, height=HEIGHT, note=_note(found))


def _note(found: Trade) -> str:
    states = {point.state for point in found.points}
    parts = []
    if len(found.points) == 1:
        parts.append("There is one variant, so there is nothing to trade.")
    elif found.points:
        parts.append("Line: the front, which nothing beats on both axes.")
    if "dominated" in states:
        parts.append("Faded: dominated, as far as the intervals show.")
    if "open" in states:
        parts.append("?: worse by the means, but these runs cannot tell.")
    if not all(point.passes for point in found.points):
        parts.append("Grey ring: outside the limits.")
    if found.axes.size:
        parts.append(f"Area: {METRICS[found.axes.size].title.lower()}.")
    parts += [f"Not drawn: {name} ({reason})." for name, reason in found.absent]
    return " ".join(parts)


def _of(point: Point, axis: str) -> Metric:
    found: Metric = getattr(point, axis)
    return found


def _at(point: Point, axis: str) -> float:
    return number(_of(point, axis)) or 0.0


def _scale(points: Sequence[Point], axis: str, metric: str) -> Scale:
    return scale_for(max(abs(_at(point, axis)) for point in points), METRICS[metric].unit)


def _range(points: Sequence[Point], axis: str, scale: Scale, limit: float | None) -> list[float]:
    """Both ends with room for labels; a limit that is near is in the picture as well."""
    ends = [float(end) for point in points for end in (_of(point, axis).get("ci95") or (_at(point, axis),))]
    low, high = min(ends), max(ends)
    span = high - low or abs(high) * 0.2 or 1.0
    if limit is not None and low - 2 * span <= limit <= high + 2 * span:
        low, high = min(low, limit), max(high, limit)
    room = 0.16 * (high - low or span)
    return [(low - room) * scale.factor, (high + room) * scale.factor]


def _axis(axis: str, metric: str, scale: Scale, ends: Sequence[float]) -> dict[str, Any]:
    about = METRICS[metric]
    unit = f"{scale.unit}, " if scale.unit else ""
    text = f"{about.title}{'<br>' if axis == 'x' else ', '}{unit}{BETTER[axis, about.direction]} is better"
    return {"title": {"text": text, "standoff": 6}, "range": list(ends), "nticks": 6, "tickangle": 0, "zeroline": False}


def _front(found: Trade, scales: Mapping[str, Scale]) -> dict[str, Any]:
    """What can be had at each x: from a point on, until the next one takes over."""
    points = {point.variant: point for point in found.points}
    spots = dict.fromkeys((_at(points[v], "x") * scales["x"].factor, _at(points[v], "y") * scales["y"].factor) for v in found.front)
    shape = "hv" if METRICS[found.axes.x].direction == "lower" else "vh"
    return {
        "type": "scatter", "mode": "lines", "x": [x for x, _ in spots], "y": [y for _, y in spots], "meta": {"ceiling": True},
        "line": {"width": 1.6, "dash": "dot", "shape": shape}, "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip


def _trace(point: Point, found: Trade, names: Sequence[str], scales: Mapping[str, Scale], spot: str) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers+text",
        "x": [_at(point, "x") * scales["x"].factor],
        "y": [_at(point, "y") * scales["y"].factor],
        "text": [f"{'★ ' if point.variant == found.best else ''}{short(point.name)}{' ?' if point.state == 'open' else ''}"],
        "textposition": spot,
        "cliponaxis": False,
        "meta": {"variant": point.variant, "muted": not point.passes},
        "marker": {
            "symbol": "circle" if point.passes else "circle-open",
            "size": _size(point, found.points),
            "opacity": FADED[point.state],
            "color": colour(point.variant),
            "line": {"width": 2, "color": colour(point.variant)},
        },
        "hovertemplate": _hover(point, found.axes, names),
        "showlegend": False,
    }
    for axis in ("x", "y"):
        if ends := _of(point, axis).get("ci95"):
            value, factor = _at(point, axis), scales[axis].factor
            above, below = (float(ends[1]) - value) * factor, (value - float(ends[0])) * factor
            trace[f"error_{axis}"] = {
                "type": "data",
                "symmetric": False,
                "array": [above],
                "arrayminus": [below],
                "thickness": 1.2,
                "width": 4,
            }
    return trace


def _size(point: Point, points: Sequence[Point]) -> float:
    """Diameter in pixels: the area is proportional to the value; a variant without one has the smallest point."""
    sizes = [abs(value) for other in points if (value := number(other.size)) is not None]
    if not sizes or not max(sizes):
        return 14.0
    value = number(point.size)
    return SMALLEST_PX if value is None else max(SMALLEST_PX, LARGEST_PX * math.sqrt(abs(value) / max(sizes)))


def _hover(point: Point, axes: Axes, names: Sequence[str]) -> str:
    lines = [_worded(axes.x, point.x), _worded(axes.y, point.y)]
    if axes.size:
        lines.append(_worded(axes.size, point.size))
    state = STATES[point.state] + (f" {', '.join(names[index] for index in point.by)}" if point.state == "dominated" else "")
    limits = "" if point.passes else "<br>outside the limits"
    formulas = "<br>".join(f"<i>{wrapped(METRICS[name].formula)}</i>" for name in (axes.x, axes.y))
    return f"<b>{plain(point.name)}</b><br>{'<br>'.join(lines)}<br>{wrapped(state)}{limits}<br>{formulas}<extra></extra>"


def _worded(name: str, metric: Metric) -> str:
    value, about = number(metric), METRICS[name]
    if value is None:
        return f"{plain(about.title)}: not available"
    spread = interval(metric) or (BY_DEFINITION if metric.get("kind") == BY_DEFINITION else "")
    return plain(f"{about.title}: {shown(value, about.unit)} {spread}".strip())


def _limit(
    axis: str, metric: str, limits: Mapping[str, float], scales: Mapping[str, Scale], ranges: Mapping[str, Sequence[float]]
) -> list[dict[str, Any]]:
    """The forbidden side of a limit on an axis, shaded up to a dashed line."""
    if metric not in limits:
        return []
    at, other = limits[metric] * scales[axis].factor, "y" if axis == "x" else "x"
    low, high = ranges[axis]
    end = high if METRICS[metric].direction == "lower" else low
    if (end - at) * (1 if end == high else -1) <= 0:
        return []  # all that is drawn is within
    at = min(max(at, low), high)
    across = {f"{other}ref": "paper", f"{other}0": 0, f"{other}1": 1, "layer": "below"}
    return [
        {"type": "rect", f"{axis}0": at, f"{axis}1": end, "line": {"width": 0}, "opacity": 0.4, **across},
        {"type": "line", f"{axis}0": at, f"{axis}1": at, "line": {"width": 1.4, "dash": "dash"}, **across},
    ]


def _label_spots(
    points: Sequence[Point], scales: Mapping[str, Scale], ranges: Mapping[str, Sequence[float]], line: float | None
) -> dict[int, str]:
    """Where each label stands: above its point, or below it where another point's label or the line of a limit is near; towards the middle
    at the sides, where it would be cut off."""
    (left, right), (low, high) = ranges["x"], ranges["y"]
    taken: list[tuple[float, float, str]] = []
    spots = {}
    for point in points:
        x = (_at(point, "x") * scales["x"].factor - left) / (right - left)
        y = (_at(point, "y") * scales["y"].factor - low) / (high - low)
        crossed = line is not None and 0 < (line - low) / (high - low) - y < 0.16
        near = {spot for other_x, other_y, spot in taken if abs(x - other_x) < 0.25 and abs(y - other_y) < 0.13}
        side = "left" if x > 0.7 else "right" if x < 0.3 else "center"
        choices = [f"{end} {side}" for end in (("bottom", "top") if crossed else ("top", "bottom"))]
        spots[point.variant] = next((spot for spot in choices if spot not in near), "middle right" if x < 0.5 else "middle left")
        taken.append((x, y, spots[point.variant]))
    return spots
