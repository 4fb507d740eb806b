"""Trade-offs between two metrics: the front, what is dominated, what stays within limits, and which variant is best of these.

Pure. By the means, a variant is on the front where no other is at least as good on both axes and better on one. One that is not is called
dominated only where some other is shown to be better or equal on both axes (`ranking.compare`): where the intervals overlap, these runs
cannot tell, and it is "open". A baseline's divergence from itself is nothing by definition. Example::

    seen = trade(results, names, Axes("decode_tokens_per_s", "top1_agreement"), {"ttft_s": 0.2, "top1_agreement": 0.95})
    seen.points[1].state, seen.sentence
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from playground.core.problem import Problem, did_you_mean
from playground.measure.agreement import IS_BASELINE
from playground.measure.metrics import METRICS
from playground.results.drawing import missing
from playground.results.expectations import AGAINST_ITSELF
from playground.results.numbers import FLOOR, floor_of, interval, shown
from playground.results.ranking import Metric, compare, nearer, number

Result = Mapping[str, Any]
State = Literal["front", "open", "dominated"]
SPEED = ("decode_tokens_per_s", "output_tokens_per_s")
MEMORY = ("peak_allocated_bytes", "peak_rss_bytes", "weights_bytes")
QUALITY = ("top1_agreement", "kld_mean", "question_accuracy", "ppl")
USUAL_LIMITS = {"ttft_s": 0.2, "top1_agreement": 0.95}
BY_DEFINITION = "by definition"


@dataclass(frozen=True)
class Axes:
    """Names of the metrics that are x, y and the area of a point ("" for equal points)."""

    x: str
    y: str
    size: str = ""


@dataclass(frozen=True)
class Point:
    """One variant that has both metrics. `by`: the variants that are better; `passes`: whether it is within all limits."""

    variant: int
    name: str
    x: Metric
    y: Metric
    size: Metric
    state: State = "front"
    by: tuple[int, ...] = ()
    passes: bool = True


@dataclass(frozen=True)
class Held:
    """A variant against the limits. `broken`: what it misses, in words; `narrow`: metrics whose interval reaches beyond their limit."""

    broken: tuple[str, ...] = ()
    narrow: tuple[str, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether it is within all limits."""
        return not self.broken


@dataclass(frozen=True)
class Trade:
    """What was found. `front`: variants by rising x; `absent`: names of variants without one of the two metrics, with the reason; `best`:
    the variant within the limits with the best x, None where none is; `sentence` says so and why."""

    axes: Axes
    points: tuple[Point, ...]
    front: tuple[int, ...]
    absent: tuple[tuple[str, str], ...]
    best: int | None
    sentence: str


def tradeable() -> list[str]:
    """The metrics of which one way is better, which can be an axis and have a limit."""
    return [name for name, about in METRICS.items() if about.direction != "none" and not name.endswith(FLOOR)]


def usual_axes(results: Sequence[Result]) -> list[Axes]:
    """Quality against speed and quality against memory, the third as area; speed against memory where no quality was measured."""
    speed, memory, quality = (_first(names, results) for names in (SPEED, MEMORY, QUALITY))
    pairs = [(speed, quality, memory), (memory, quality, speed)] if quality else [(speed, memory, "")]
    return [Axes(x, y, size) for x, y, size in pairs if x and y]


def usual_limits(results: Sequence[Result]) -> dict[str, float]:
    """The usual limits on those metrics that at least one of the runs has."""
    return {name: limit for name, limit in USUAL_LIMITS.items() if _first((name,), results)}


def _first(names: Sequence[str], results: Sequence[Result]) -> str:
    """Of the metrics that were measured the first that most runs have, "" for none."""
    counts = {name: sum(number(metric_of(result, name)) is not None for result in results) for name in names}
    seen = [name for name in names if any(number(result.get("metrics", {}).get(name) or {}) is not None for result in results)]
    return max(seen, key=lambda name: counts[name], default="")


def metric_of(result: Result, name: str) -> Metric:
    """A metric of a run that is done, with its reason where it has none; of a baseline its divergence from itself."""
    found: Metric = result.get("metrics", {}).get(name) or missing(result)
    if result.get("status") != "done":
        return missing(result)
    if name in AGAINST_ITSELF and found.get("reason") == IS_BASELINE.reason:
        return {"value": AGAINST_ITSELF[name], "unit": METRICS[name].unit, "kind": BY_DEFINITION}
    return found


def trade(results: Sequence[Result], names: Sequence[str], axes: Axes, limits: Mapping[str, float] | None = None) -> Trade:
    """Points, front, limits and the best; raises Problem("user") for a metric that cannot be an axis or have a limit."""
    limits = limits or {}
    for name in (axes.x, axes.y, *limits):
        if name not in tradeable():
            raise Problem("user", did_you_mean("There is no metric with a better direction", name, tradeable()))
    if axes.size and axes.size not in METRICS:
        raise Problem("user", did_you_mean("There is no metric", axes.size, METRICS))
    points, absent = [], []
    held = [within(result, limits) for result in results]
    for index, (result, name) in enumerate(zip(results, names, strict=True)):
        x, y = metric_of(result, axes.x), metric_of(result, axes.y)
        lacking = [(axis, metric) for axis, metric in ((axes.x, x), (axes.y, y)) if number(metric) is None]
        if lacking:
            absent.append((name, "; ".join(f"{METRICS[axis].title}: {metric.get('reason') or 'not measured'}" for axis, metric in lacking)))
            continue
        size = metric_of(result, axes.size) if axes.size else {}
        points.append(Point(index, name, x, y, size, passes=held[index].passes))
    floors = {axis: next((f for r in results if (f := floor_of(r, axis)) is not None), None) for axis in (axes.x, axes.y)}
    placed = tuple(_placed(point, points, axes, floors) for point in points)
    front = sorted((p for p in placed if p.state == "front"), key=lambda p: (number(p.x) or 0.0, number(p.y) or 0.0))
    best, sentence = best_within(results, names, held, axes.x, limits)
    return Trade(axes, placed, tuple(p.variant for p in front), tuple(absent), best, sentence)


def _placed(point: Point, points: Sequence[Point], axes: Axes, floors: Mapping[str, float | None]) -> Point:
    others = [other for other in points if other is not point]
    shown_by = tuple(other.variant for other in others if _surely(other, point, axes, floors))
    if shown_by:
        return replace(point, state="dominated", by=shown_by)
    by_means = tuple(other.variant for other in others if _by_means(other, point, axes))
    return replace(point, state="open", by=by_means) if by_means else point


def _surely(one: Point, other: Point, axes: Axes, floors: Mapping[str, float | None]) -> bool:
    orders = [compare(axes.x, one.x, other.x, floors[axes.x]), compare(axes.y, one.y, other.y, floors[axes.y])]
    return "better" in orders and all(order in ("better", "equal") for order in orders)


def _by_means(one: Point, other: Point, axes: Axes) -> bool:
    pairs = [(name, number(a) or 0.0, number(b) or 0.0) for name, a, b in ((axes.x, one.x, other.x), (axes.y, one.y, other.y))]
    return any(nearer(*pair) for pair in pairs) and not any(nearer(name, b, a) for name, a, b in pairs)


def within(result: Result, limits: Mapping[str, float]) -> Held:
    """What of the limits a run breaks. A metric that it does not have breaks its limit: nothing shows that it is within."""
    broken, narrow = [], []
    for name, limit in limits.items():
        metric = metric_of(result, name)
        value, title = number(metric), METRICS[name].title
        if value is None:
            broken.append(f"{title} is not available ({metric.get('reason') or 'not measured'})")
        elif nearer(name, limit, value):
            broken.append(f"{title} is {shown(value, METRICS[name].unit)}")
        elif any(nearer(name, limit, float(end)) for end in metric.get("ci95") or ()):
            narrow.append(title)
    return Held(tuple(broken), tuple(narrow))


def limit_words(limits: Mapping[str, float]) -> str:
    """ "Time to first token at most 200 ms, Same top token at least 95 %"."""
    bounds = {"lower": "at most", "higher": "at least"}
    return ", ".join(
        f"{METRICS[name].title} {bounds[METRICS[name].direction]} {shown(limit, METRICS[name].unit)}" for name, limit in limits.items()
    )


def best_within(
    results: Sequence[Result], names: Sequence[str], held: Sequence[Held], by: str, limits: Mapping[str, float]
) -> tuple[int | None, str]:
    """The variant within the limits with the best metric `by`, and the sentence that names it, why, and how sure that is."""
    about = METRICS[by]
    metrics = [metric_of(result, by) for result in results]
    known = [index for index, found in enumerate(held) if found.passes and number(metrics[index]) is not None]
    within_words = f"Within the limits ({limit_words(limits)})" if limits else "Without limits"
    if not known:
        misses = "; ".join(f"{name}: {', '.join(found.broken)}" for name, found in zip(names, held, strict=True) if found.broken)
        return None, f"{within_words} there is no variant. {misses}." if misses else f"{about.title} is not available for any variant."
    sign = 1 if about.direction == "lower" else -1
    ranked = sorted(known, key=lambda index: sign * (number(metrics[index]) or 0.0))
    first = ranked[0]
    value = f"{shown(number(metrics[first]) or 0.0, about.unit)} {interval(metrics[first])}".strip()
    if len(ranked) == 1:
        sentence = f"{within_words}, {names[first]} is the only variant. Its {_lower(about.title)}: {value}."
    else:
        sentence = f"{within_words}, {names[first]} has the best {_lower(about.title)}: {value}."
        alike = [index for index in ranked[1:] if compare(by, metrics[first], metrics[index]) != "better"]
        if alike:
            sentence += f" These runs cannot tell it apart from {' and '.join(names[index] for index in alike)}."
    if held[first].narrow:
        sentence += f" The interval of its {' and '.join(map(_lower, held[first].narrow))} reaches beyond the limit."
    return first, sentence


def _lower(title: str) -> str:
    return title if title[1:2].isupper() else title[:1].lower() + title[1:]
