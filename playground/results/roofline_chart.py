"""The roofline: what each variant reaches against what its device can do, both axes logarithmic.

x is how many operations a byte of memory traffic serves, y operations a second. A slope is the measured copy bandwidth, a flat line the
measured matrix product; a point far below both waits for something else, such as launches. Example::

    roofline(results, names)   # None where no result has one
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from playground.results.drawing import Result, colour, panel, plain, wrapped
from playground.results.numbers import digits, shown

PHASES = (("decode", "circle", 12), ("prefill", "diamond-open", 13))
HEIGHT = 340


def roofline(results: Sequence[Result], names: Sequence[str]) -> dict[str, Any] | None:
    """Points of all variants under the ceilings of every number format in use; None where there is nothing to draw."""
    points = [point for index, (result, name) in enumerate(zip(results, names, strict=True)) for point in _points(index, name, result)]
    ceilings = _ceilings(results)
    if not points or not ceilings:
        return None
    ridges = [found["matmul_flops"] / found["copy_bytes_per_s"] for found in ceilings]
    left = min(point["x"][0] for point in points) / 4
    right = max([*(point["x"][0] for point in points), *ridges]) * 6
    bottom = min(point["y"][0] for point in points) / 4
    top = max(found["matmul_flops"] for found in ceilings) * 3
    lines = [line for number, found in enumerate(ceilings) for line in _lines(number, found, left, right)]
    layout = {
        "margin": {"l": 8, "r": 12, "t": 6, "b": 44},
        "xaxis": _axis("FLOP / byte of memory traffic", left, right),
        "yaxis": _axis("FLOP/s", bottom, top),
        "showlegend": False,
        "hovermode": "closest",
    }
    note = "Filled: decode. Open diamond: prefill. Slope: measured copy bandwidth. Flat: measured matrix product."
    figure = {"data": [*lines, *points], "layout": layout}
    return panel("roofline", "Roofline", figure, 0, wide=True, height=HEIGHT, note=note)


def _ceilings(results: Sequence[Result]) -> list[Mapping[str, Any]]:
    """The ceilings in use, once for each device and number format."""
    found = [(result.get("roofline") or {}).get("ceilings") for result in results]
    return list({(one.get("device"), one.get("dtype")): one for one in found if one}.values())


def _points(index: int, name: str, result: Result) -> list[dict[str, Any]]:
    found = result.get("roofline") or {}
    known = [(phase, symbol, size, found[phase]) for phase, symbol, size in PHASES if _drawable(found.get(phase))]
    sentence = str((result.get("verdict") or {}).get("sentence", ""))
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [float(at["intensity"])],
            "y": [float(at["flops_per_s"])],
            "meta": {"variant": index},
            "marker": {"symbol": symbol, "size": size, "color": colour(index), "line": {"width": 2, "color": colour(index)}},
            "hovertemplate": _hover(name, phase, at, sentence),
            "showlegend": False,
        }
        for phase, symbol, size, at in known
    ]


def _drawable(at: Mapping[str, Any] | None) -> bool:
    return bool(at and (at.get("intensity") or 0) > 0 and (at.get("flops_per_s") or 0) > 0)


def _hover(name: str, phase: str, at: Mapping[str, Any], sentence: str) -> str:
    words = f"{phase}: {shown(float(at['flops_per_s']), 'FLOP/s')} at {digits(float(at['intensity']))} FLOP/byte"
    return f"<b>{plain(name)}</b><br>{words}<br><i>{wrapped(sentence, 60, 6)}</i><extra></extra>"


def _lines(number: int, found: Mapping[str, Any], left: float, right: float) -> list[dict[str, Any]]:
    """One line up the slope to the ridge and on along the flat, and its two names: of the first above it, of the others below."""
    bandwidth, compute = float(found["copy_bytes_per_s"]), float(found["matmul_flops"])
    ridge = compute / bandwidth
    middle = math.sqrt(left * ridge)
    common = {"type": "scatter", "meta": {"ceiling": True}, "showlegend": False, "hoverinfo": "skip"}
    where = "bottom left" if number else "top left"
    names = {**common, "mode": "text", "textposition": where, "x": [middle, right], "y": [middle * bandwidth, compute]}
    words = ["" if number else f"{shown(bandwidth, 'B/s')} ", f"{plain(str(found.get('dtype', '')))} {shown(compute, 'FLOP/s')}"]
    roof = {**common, "mode": "lines", "x": [left, ridge, right], "y": [left * bandwidth, compute, compute], "line": {"width": 1.6}}
    return [roof, {**names, "text": words}]


def _axis(title: str, low: float, high: float) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 6},
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "tickformat": "~s",
        "dtick": 1,
        "zeroline": False,
    }
