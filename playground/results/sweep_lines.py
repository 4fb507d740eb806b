"""What a sweep measured, as lines of points: the value with its interval, what the roofline predicted, and what the device allows at best.

Pure. Example::

    lines_of(plan, cells, "itl_s")[0].points[0].y      # seconds, at the smallest value of the first axis
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from playground.core.knobs import KnobValue
from playground.core.sweep import SweepSpec, line_names
from playground.measure.stats import Summary, difference
from playground.results.explain import PREDICTED
from playground.results.numbers import value_of
from playground.results.sweeps import StoredCell
from playground.techniques import techniques

Result = Mapping[str, Any]
Foreseen = Mapping[int, Mapping[str, float]]  # of cells by their index: what is predicted of runs that have no result, as in PREDICTED
X = Callable[[StoredCell], KnobValue | None]


@dataclass(frozen=True)
class Point:
    """One cell on a chart. y: measured, None where there is no value; ends: of its 95 % interval; predicted, best: what the roofline
    predicts, and what the device's copy and matrix product would allow if nothing else took time."""

    x: KnobValue
    y: float | None
    ends: tuple[float, float] | None
    predicted: float | None
    best: float | None
    cell: StoredCell


@dataclass(frozen=True)
class Line:
    """Points in the order of the axis; `number` decides its colour."""

    number: int
    name: str
    points: tuple[Point, ...]

    @property
    def measured(self) -> list[Point]:
        """Those with a value."""
        return [point for point in self.points if point.y is not None]


def on_axis(held: StoredCell) -> KnobValue:
    """The cell's value of the first axis."""
    return held.cell.point[0]


def context(held: StoredCell) -> float | None:
    """Tokens of a row when it ends: prompt and output, as they were counted."""
    counts = [value_of(held.result or {}, name) for name in ("prompt_tokens", "output_tokens")]
    return sum(count for count in counts if count is not None) if None not in counts else None


def metric_as_x(name: str) -> X:
    """A metric's value in the place of the axis."""
    return lambda held: value_of(held.result or {}, name)


def lines_of(plan: SweepSpec, cells: Sequence[StoredCell], metric: str, x: X = on_axis, foreseen: Foreseen | None = None) -> list[Line]:
    """A line for each variant and each value of the second axis; a cell without an x is left out."""
    order = {value: place for place, value in enumerate(plan.axes[0].values)}
    made = []
    for number, name in enumerate(line_names(plan, techniques())):
        own = sorted((held for held in cells if held.cell.line == number), key=lambda held: order[on_axis(held)])
        placed = [(at, held) for held in own if (at := x(held)) is not None]
        made.append(Line(number, name, tuple(_point(at, held, metric, foreseen or {}) for at, held in placed)))
    return made


def slowdowns(plan: SweepSpec, cells: Sequence[StoredCell]) -> list[Line]:
    """For each line without a KV cache beside one that has all else the same: its request latency over that one's."""
    lines = lines_of(plan, cells, "e2e_s")
    pairs = [(line, other) for line in lines if _cache(line) == "off" and (other := _with_cache(line, lines))]
    return [
        Line(line.number, line.name, tuple(_ratio(*both) for both in zip(line.points, other.points, strict=True))) for line, other in pairs
    ]


def _point(x: KnobValue, held: StoredCell, metric: str, foreseen: Foreseen) -> Point:
    result = held.result or {}
    found = result.get("metrics", {}).get(metric) or {}
    y, ends = value_of(result, metric), found.get("ci95")
    name = next((name for name, (measured, _) in PREDICTED.items() if measured == metric), "")
    predicted = (result.get("prediction") or {}).get(name, {}).get("predicted", foreseen.get(held.cell.index, {}).get(name))
    return Point(x, y, (float(ends[0]), float(ends[1])) if ends and y is not None else None, predicted, _best(result, metric), held)


def _best(result: Result, metric: str) -> float | None:
    """The metric of a run that moves its bytes at the copy's rate and computes at the matrix product's, whichever takes longer."""
    roofline = result.get("roofline") or {}
    step, first, new = (value_of(result, name) for name in ("itl_s", "ttft_s", "output_tokens"))
    if not roofline or step is None or first is None or new is None:
        return None
    best_step, best_first = (
        seconds * _share(roofline[phase], roofline["ceilings"]) for phase, seconds in (("decode", step), ("prefill", first))
    )
    if metric in ("itl_s", "ttft_s"):
        return best_step if metric == "itl_s" else best_first
    rate = value_of(result, "output_tokens_per_s")
    if metric != "output_tokens_per_s" or rate is None:
        return None
    return rate * (first + (new - 1) * step) / (best_first + (new - 1) * best_step)


def _share(at: Mapping[str, float], ceilings: Mapping[str, float]) -> float:
    """The share of its time that a phase's work would take at the nearer of the two ceilings."""
    return max(at["flops_per_s"] / ceilings["matmul_flops"], at["flops_per_s"] / at["intensity"] / ceilings["copy_bytes_per_s"])


def _cache(line: Line) -> object:
    return line.points[0].cell.cell.spec.knobs.get("kv_cache") if line.points else None


def _with_cache(line: Line, lines: Sequence[Line]) -> Line | None:
    """The first line that differs from this one in its KV cache alone."""

    def rest(item: Line) -> list[object]:
        specs = [point.cell.cell.spec for point in item.points]
        return [(spec.model, spec.engine, spec.device, {**spec.knobs, "kv_cache": ""}, spec.workload) for spec in specs]

    return next((other for other in lines if other.points and _cache(other) != "off" and rest(other) == rest(line)), None)


def _ratio(slow: Point, fast: Point) -> Point:
    if not slow.y or not fast.y:
        return Point(slow.x, None, None, None, None, slow.cell)
    pair = [_summary(point) for point in (slow, fast)]
    ends = None if pair[0] is None or pair[1] is None else difference(pair[0], pair[1], relative=True)
    predicted = [_predicted_e2e(point) for point in (slow, fast)]
    ratio = predicted[0] / predicted[1] if predicted[0] and predicted[1] else None
    return Point(slow.x, slow.y / fast.y, (1 + ends[0], 1 + ends[1]) if ends else None, ratio, None, slow.cell)


def _summary(point: Point) -> Summary | None:
    found = (point.cell.result or {}).get("metrics", {}).get("e2e_s") or {}
    return Summary(float(point.y or 0), int(found["n"]), point.ends, found.get("cv"), "") if point.ends else None


def _predicted_e2e(point: Point) -> float | None:
    """Seconds of a request: its first token and the steps after it."""
    result = point.cell.result or {}
    step, first = ((result.get("prediction") or {}).get(name, {}).get("predicted") for name in ("step_s", "ttft_s"))
    new = value_of(result, "output_tokens")
    return first + (new - 1) * step if step is not None and first is not None and new else None
