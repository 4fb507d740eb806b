"""The profile panel: where the time of one decode step goes, part by part of the model, one stacked bar a variant.

On a GPU the parts are kernel time, and what is left of the step, in which no kernel ran, stands beside them. On a CPU the profiler slows
the operators, so they share out the step that was measured without it. Example::

    profile(results, names)   # None where no variant has a profile
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from playground.measure.step_profile import PARTS
from playground.results.drawing import BAR_WIDTH, Result, absent_note, bar_layout, hover, label, panel, short
from playground.results.numbers import Scale, scale_for, shown, value_of

IDLE = "no kernel runs"
PART_COLOURS = ("#b07aa1", "#4e79a7", "#f28e2b", "#76b7b2", "#edc948", "#9c755f", "#a0a09a")
HOW = {
    "cuda": "time of its kernels in one decode step, under a profiler",
    "cpu": "share of its operators, under a profiler, in a decode step as measured without",
}


def profile(results: Sequence[Result], names: Sequence[str]) -> dict[str, Any] | None:
    """The parts of every variant that was profiled, and why the others have none; None where there is nothing of either."""
    stacks = [_stack(result) for result in results]
    reasons = [str(result.get("profile_reason") or "") for result in results]
    if not any(stacks) and not any(reasons):
        return None
    totals = [sum(stack.values()) for stack in stacks]
    longest = max(totals) or 1.0
    scale = scale_for(longest, "s")
    data = [
        _layer(index, name, part, seconds, str(results[index]["profile"].get("device")), scale)
        for index, name in enumerate(names)
        for part, seconds in stacks[index].items()
    ]
    data += [label(i, name, totals[i] * scale.factor, shown(totals[i], "s")) for i, name in enumerate(names) if stacks[i]]
    layout = bar_layout(names, f"{scale.unit} in one decode step")
    layout["xaxis"]["range"] = [0, longest * scale.factor * 1.2]
    absent = zip(names, stacks, reasons, strict=True)
    notes = [absent_note(name, reason or "not profiled", "") for name, stack, reason in absent if not stack]
    figure = {"data": data, "layout": {**layout, "barmode": "stack", "annotations": notes}}
    known = dict.fromkeys([*PARTS, *(part for stack in stacks for part in stack)])
    key = [{"name": part, "colour": _colour(part), "outline": part == IDLE} for part in known if any(part in stack for stack in stacks)]
    return panel("profile", "Where the time of one decode step goes", figure, len(names), wide=True, key=key)


def _stack(result: Result) -> dict[str, float]:
    """Seconds by part: on a GPU those of kernels and the rest of the step as measured without a profiler, on a CPU that step shared out."""
    found = result.get("profile") or {}
    stack = {part: float(seconds) for part, seconds in (found.get("parts") or {}).items() if seconds > 0}
    step, busy, share = value_of(result, "itl_s"), found.get("kernel_s"), value_of(result, "gpu_busy")
    if busy is not None and share:
        step = float(busy) / share  # of the steps next to the profiled one
    if stack and busy is not None and step is not None and step > busy:
        stack[IDLE] = step - float(busy)
    if stack and busy is None and step is not None:
        total = sum(stack.values())
        return {part: seconds / total * step for part, seconds in stack.items()}
    return stack


def _colour(part: str) -> str:
    """Idle time is an empty bar."""
    if part == IDLE:
        return "rgba(0,0,0,0)"
    return PART_COLOURS[PARTS.index(part) if part in PARTS else -1]


def _layer(index: int, name: str, part: str, seconds: float, device: str, scale: Scale) -> dict[str, Any]:
    about = "the step as measured without a profiler, less the time in which a kernel ran" if part == IDLE else HOW.get(device, "")
    return {
        "type": "bar",
        "orientation": "h",
        "x": [seconds * scale.factor],
        "y": [short(name)],
        "meta": {"variant": index, "own": True},
        "marker": {"color": _colour(part), "line": {"width": 1 if part == IDLE else 0, "color": PART_COLOURS[-1]}},
        "width": BAR_WIDTH,
        "hovertemplate": hover(name, f"{part}: {shown(seconds, 's')}", about),
        "showlegend": False,
    }
